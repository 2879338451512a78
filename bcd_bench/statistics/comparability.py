"""Comparability of the values of one column from several records.

A value depends on the code and the files that scored it. Two values of one column are comparable only if the metric,
its version, definition, files and identity (the hash of everything that determines its rows) are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bcd_bench.results.schema import MetricInfo, RunRecord, Value

__all__ = ["why_incomparable"]

SHOWN = 12
"""Number of hash digits shown in messages."""


def why_incomparable(records: Sequence[RunRecord], column: str) -> str | None:
    """Reason, as a clause, why the values of `column` in these records are not comparable; None if they are.

    Records without a value in the column are ignored. The clause names the first difference in this order: the suite's
    pairs, the metric, its version, unit, kind or direction, the files used, its definition, its identity.
    """
    scored = [(record, value) for record in records if (value := record.values.get(column)) and value.value is not None]
    for criterion, describe in _TOLD:
        descriptions = list(dict.fromkeys(describe(record, value) for record, value in scored))
        if len(descriptions) > 1:
            return f"scored with different {criterion} ({' and '.join(descriptions)})"
    return None


def _info(record: RunRecord, value: Value) -> MetricInfo | None:
    return record.metrics.get(value.metric)


def _version(record: RunRecord, value: Value) -> str:
    info = _info(record, value)
    return f"{value.metric} {info.version if info else '?'}"


def _files(record: RunRecord, value: Value) -> str:
    info = _info(record, value)
    used = [f"{asset['file']} {asset['sha256'][:8]}" for asset in info.assets.values()] if info else []
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
"""Criteria that must be equal, by relevance to the reader, each with a function that describes its value."""
