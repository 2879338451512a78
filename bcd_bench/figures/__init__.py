"""Figures of videos from run folders: `bcd-bench figure`. Imports neither torch nor matplotlib before one is drawn."""
