"""Plugins: hooks, specs, protocols, loading, and the built-in plugin."""
