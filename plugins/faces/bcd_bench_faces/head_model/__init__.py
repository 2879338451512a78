"""The head model: shape, expressions, and points on it."""
