"""Evaluators and the statistics that make their numbers honest."""
