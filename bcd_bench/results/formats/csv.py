"""Rows as CSV in long form: one line for each run and metric, ready for pivoting."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from bcd_bench.results.rows import ReportRow

__all__ = ["FIELDS", "lines", "render"]

FIELDS = [
    "suite",
    "suite_version",
    "manifest_sha256",
    "method",
    "recipe",
    "run_id",
    "partial",
    "reported",
    "reference",
    "seeded",
    "n_pairs",
    "n_failed_outputs",
    "metric",
    "metric_version",
    "metric_identity",
    "column",
    "value",
    "ci_low",
    "ci_high",
    "ci_method",
    "wilson_low",
    "wilson_high",
    "n",
    "n_failed",
    "n_clusters",
    "frame_coverage",
    "unit",
    "higher_is_better",
    "code_version",
    "source",
    "restrictions",
]


_OWN = (
    "metric", "value", "ci_low", "ci_high", "ci_method", "n", "n_failed", "n_clusters", "frame_coverage", "unit",
    "higher_is_better",
)  # fmt: skip


def render(rows: Sequence[ReportRow], *, suite: str | None = None) -> str:
    """Render CSV. Provenance is stored on each line, since a footer would break parsers. Unknown cells are empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines(rows, suite=suite))
    return out.getvalue()


def lines(rows: Sequence[ReportRow], *, suite: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the lines as mappings with the keys `FIELDS`, one for each run and column."""
    for row in rows:
        if suite is not None and row.suite != suite:
            continue
        head = {
            "suite": row.suite,
            "suite_version": row.suite_version,
            "manifest_sha256": row.manifest_sha256,
            "method": row.method,
            "recipe": None if row.recipe is None else "; ".join(row.recipe.parts) or row.recipe.label,
            "run_id": row.run_id,
            "partial": row.partial,
            "reported": row.reported,
            "reference": row.reference,
            "seeded": row.seeded,
            "n_pairs": row.n_pairs,
            "n_failed_outputs": row.n_failed,
            "code_version": row.provenance.get("bcd_bench"),
            "source": row.provenance.get("source"),
            "restrictions": "; ".join(row.provenance.get("restrictions", ())),
        }
        for name, value in row.metrics.items():
            info = row.record.metrics.get(value.metric) if row.record else None
            scorer = {"metric_version": info.version, "metric_identity": info.identity} if info else {}
            low, high = value.wilson or (None, None)
            numbers = {key: getattr(value, key) for key in _OWN} | {"wilson_low": low, "wilson_high": high}
            yield {**head, "column": name, **scorer, **numbers}
