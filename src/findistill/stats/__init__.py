"""Metrics, intervals, paired tests and curves."""
