"""Completion of names in the shell, after `bcd-bench --install-completion`."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["assets", "executors", "methods", "metrics", "presets", "suites", "trainables"]


def _names(kind: str) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        """The completions of the last name in a comma-separated list."""
        from bcd_bench.plugin.registry import load_registry

        before, comma, start = incomplete.rpartition(",")
        names = sorted(getattr(load_registry(), kind))
        return [before + comma + name for name in names if name.startswith(start)]

    return complete


methods = _names("methods")
metrics = _names("metrics")
suites = _names("suites")
assets = _names("assets")
executors = _names("executors")
trainables = _names("trainables")


def presets(incomplete: str) -> list[str]:
    """The presets of all trainables."""
    from bcd_bench.plugin.registry import load_registry

    names = {name for spec in load_registry().trainables.values() for name in spec.presets}
    return sorted(name for name in names if name.startswith(incomplete))
