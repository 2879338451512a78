"""Rows as JSON, in the stable format that other tools rely on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bcd_bench.results.rows import ReportRow

__all__ = ["render", "row_to_json"]

_VALUE_KEYS = ("value", "ci_low", "ci_high", "n", "n_failed", "frame_coverage", "unit", "higher_is_better")


def render(rows: Sequence[ReportRow], *, suite: str | None = None) -> str:
    """A JSON list of rows; everything beyond the fixed keys is under `provenance`."""
    selected = [row_to_json(row) for row in rows if suite is None or row.suite == suite]
    return json.dumps(selected, indent=1, allow_nan=False, ensure_ascii=False) + "\n"


def row_to_json(row: ReportRow) -> dict[str, Any]:
    """One row. Values quoted from papers have no run, pairs or interval: these are null, and n = 0."""
    return {
        "suite": row.suite,
        "suite_version": row.suite_version,
        "method": row.method,
        "run_id": row.run_id,
        "partial": row.partial,
        "reported": row.reported,
        "n_pairs": row.n_pairs,
        "n_failed": row.n_failed,
        "metrics": {name: {key: getattr(value, key) for key in _VALUE_KEYS} for name, value in row.metrics.items()},
        "provenance": {**row.provenance, **({} if row.reported else {"verified": _verified(row)})},
    }


def _verified(row: ReportRow) -> dict[str, Any] | None:
    """The sign-off of a verified record; None for a self-reported one."""
    return None if row.verified is None else dict(row.verified.model_dump())
