"""Metrics, samples, the progress line."""
