"""Landmarks of MediaPipe, and alignment by them."""
