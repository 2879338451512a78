"""Ranking within one table column: marks for the best and second-best rows where the differences are significant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from bcd_bench.results.rows import ReportRow
from bcd_bench.results.schema import Value
from bcd_bench.statistics.comparability import why_incomparable
from bcd_bench.statistics.intervals import paired_difference

__all__ = ["Mark", "beats", "incomparable", "marks"]

Mark = Literal["best", "second"]


def marks(rows: Sequence[ReportRow], column: str) -> dict[int, Mark]:
    """Row index -> mark, for one column of the rows of one table.

    Only ranked rows with sufficient coverage compete. The best row beats every other one: the paired difference over
    the common pairs is in its favour, and its interval excludes 0. The second-best row beats all but the best, or is
    the only other one. If no row qualifies, no mark is given, and neither if the values are not comparable
    (`incomparable`).
    """
    competing = [
        index
        for index, row in enumerate(rows)
        if row.ranked and (value := row.metrics.get(column)) is not None and value.covered and value.value is not None
    ]
    directions = {rows[index].metrics[column].higher_is_better for index in competing}
    if len(competing) < 2 or len(directions) != 1 or incomparable(rows, column):
        return {}
    higher = directions.pop()
    if higher is None:
        return {}
    best = _winner(rows, competing, column, higher)
    if best is None:
        return {}
    remaining = [index for index in competing if index != best]
    second = remaining[0] if len(remaining) == 1 else _winner(rows, remaining, column, higher)
    return {best: "best"} if second is None else {best: "best", second: "second"}


def incomparable(rows: Sequence[ReportRow], column: str) -> str | None:
    """Reason, as a clause, why the measured values of a column may not be ranked against each other; None if they
    may."""
    records = [row.record for row in rows if row.record is not None]
    reason = why_incomparable(records, column)
    if reason is not None:
        return reason
    values = [row.metrics[column] for row in rows if row.ranked and column in row.metrics]
    values = [value for value in values if value.value is not None]
    if any(value.kind in ("set", "derived") for value in values) and any(value.n_failed for value in values):
        return "made from different pairs, since some of them failed, and not to be had pair by pair"
    return None


def _winner(rows: Sequence[ReportRow], among: Sequence[int], column: str, higher: bool) -> int | None:
    for index in among:
        if all(beats(rows[index], rows[rival], column, higher=higher) for rival in among if rival != index):
            return index
    return None


def beats(a: ReportRow, b: ReportRow, column: str, *, higher: bool) -> bool:
    """Whether run `a` is better than run `b` of the same suite in a column (`higher` is better, or lower is better).

    Based on the clustered interval of the paired difference over the pairs scored in both. For columns without per-pair
    values (set metrics, entropies), the two intervals must not overlap, which is stricter than a paired interval.
    """
    if a.manifest_sha256 is None or a.manifest_sha256 != b.manifest_sha256:
        return False
    if a.metrics[column].kind in ("set", "derived"):
        better, worse = (a, b) if higher else (b, a)
        return _above(better.metrics[column], worse.metrics[column])
    left, right = a.pair_values, b.pair_values
    if left is None or right is None:
        return False
    values, values_b, clusters = left.by_pair(column), right.by_pair(column), left.cluster_by_pair()
    common = [pair for pair in left.pairs if pair in values and pair in values_b]
    if not common:
        return False
    paired = paired_difference(
        np.array([values[pair] for pair in common], dtype=np.float64),
        np.array([values_b[pair] for pair in common], dtype=np.float64),
        [clusters[pair] for pair in common],
    )
    return paired.significant and (paired.difference > 0) == higher


def _above(a: Value, b: Value) -> bool:
    """Whether the entire interval of `a` lies above that of `b`."""
    return a.ci_low is not None and b.ci_high is not None and a.ci_low > b.ci_high
