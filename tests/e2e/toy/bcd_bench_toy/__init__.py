"""A toy plugin for the end-to-end tests: squares that move, methods that work or fail, and metrics over them."""
