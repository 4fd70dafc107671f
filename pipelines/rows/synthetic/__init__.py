"""Rows that are made instead of read: tasks whose answers a rule can check."""
