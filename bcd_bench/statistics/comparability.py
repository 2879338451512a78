"""Whether the values of one column, from several records, may be compared with each other at all.

A value depends on the code and the files that scored it. Two values of one column compare only if the metric, its
version, its definition, its files and its identity (the hash of all that decides its rows) are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bcd_bench.results.schema import MetricInfo, RunRecord, Value

__all__ = ["why_incomparable"]

SHOWN = 12
"""Hex digits of a hash that a message shows."""


def why_incomparable(records: Sequence[RunRecord], column: str) -> str | None:
    """Why the values of `column` in these records do not compare, as a clause; None if they do.

    Records without a value in the column do not count. The clause names the first of these that differs: the suite's
    pairs, the metric, its version, unit, kind or direction, the files it used, its definition, its identity.
    """
    scored = [(record, value) for record in records if (value := record.values.get(column)) and value.value is not None]
    for what, tell in _TOLD:
        said = list(dict.fromkeys(tell(record, value) for record, value in scored))
        if len(said) > 1:
            return f"scored with different {what} ({' and '.join(said)})"
    return None


def _info(record: RunRecord, value: Value) -> MetricInfo | None:
    return record.metrics.get(value.metric)


def _version(record: RunRecord, value: Value) -> str:
    info = _info(record, value)
    return f"{value.metric} {info.version if info else '?'}"


def _files(record: RunRecord, value: Value) -> str:
    info = _info(record, value)
    used = [f"{one['file']} {one['sha256'][:8]}" for one in info.assets.values()] if info else []
    return ", ".join(used) or "none"


def _identity(record: RunRecord, value: Value) -> str:
    info = _info(record, value)
    return info.identity[:SHOWN] if info else "unknown"


_TOLD: tuple[tuple[str, Callable[[RunRecord, Value], str]], ...] = (
    ("pairs", lambda record, value: f"manifest {record.suite.manifest_sha256[:SHOWN]}"),
    ("metrics", lambda record, value: value.metric),
    ("versions of the metric", _version),
    ("units", lambda record, value: f"{value.unit or 'no unit'}"),
    ("kinds of columns", lambda record, value: f"{value.kind}, higher is better: {value.higher_is_better}"),
    ("models", _files),
    ("definitions", lambda record, value: f"“{value.definition}”"),
    ("code or weights of the metric", _identity),
)
"""What has to be equal, in the order in which a reader wants to know, each as the text that names it."""
