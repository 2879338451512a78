"""Face recognition networks."""
