"""Preprocessing: from videos of people to face clips of one size and frame rate."""
