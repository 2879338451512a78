"""MediaPipe landmarks, and alignment by them."""
