"""Fitting the head model to landmarks."""
