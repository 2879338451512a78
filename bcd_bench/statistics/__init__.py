"""Intervals, aggregation, paired comparison."""
