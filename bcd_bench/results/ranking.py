"""Who is best, and whether the data can tell: marks for the ranked rows of one table column."""

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

    Only ranked rows with enough coverage compete. The best is the row that beats every other one: the paired
    difference over the pairs that both did is in its favour, and its interval excludes 0. The second is the one that
    beats all but the best, or the only other one. Where nobody does, there is no mark: the table does not guess. Nor
    is there one if the values do not compare (`incomparable`).
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
    others = [index for index in competing if index != best]
    second = others[0] if len(others) == 1 else _winner(rows, others, column, higher)
    return {best: "best"} if second is None else {best: "best", second: "second"}


def incomparable(rows: Sequence[ReportRow], column: str) -> str | None:
    """Why the measured values of a column may not be ranked against each other, as a clause; None if they may."""
    records = [row.record for row in rows if row.record is not None]
    why = why_incomparable(records, column)
    if why is not None:
        return why
    values = [row.metrics[column] for row in rows if row.ranked and column in row.metrics]
    values = [value for value in values if value.value is not None]
    if any(value.kind in ("set", "derived") for value in values) and any(value.n_failed for value in values):
        return "made from different pairs, since some of them failed, and not to be had pair by pair"
    return None


def _winner(rows: Sequence[ReportRow], among: Sequence[int], column: str, higher: bool) -> int | None:
    for index in among:
        if all(beats(rows[index], rows[other], column, higher=higher) for other in among if other != index):
            return index
    return None


def beats(a: ReportRow, b: ReportRow, column: str, *, higher: bool) -> bool:
    """Whether run `a` is better than run `b` of the same suite in a column (`higher` is better, or lower is).

    Decided by the clustered interval of the paired difference over the pairs both scored. A column without per-pair
    values (a set metric, an entropy) needs intervals that do not overlap, which is stricter than a paired interval
    would be.
    """
    if a.manifest_sha256 is None or a.manifest_sha256 != b.manifest_sha256:
        return False
    if a.metrics[column].kind in ("set", "derived"):
        better, worse = (a, b) if higher else (b, a)
        return _above(better.metrics[column], worse.metrics[column])
    left, right = a.pair_values, b.pair_values
    if left is None or right is None:
        return False
    values, others, clusters = left.by_pair(column), right.by_pair(column), left.cluster_by_pair()
    common = [pair for pair in left.pairs if pair in values and pair in others]
    if not common:
        return False
    paired = paired_difference(
        np.array([values[pair] for pair in common], dtype=np.float64),
        np.array([others[pair] for pair in common], dtype=np.float64),
        [clusters[pair] for pair in common],
    )
    return paired.significant and (paired.difference > 0) == higher


def _above(a: Value, b: Value) -> bool:
    """Whether the whole interval of `a` lies above that of `b`."""
    return a.ci_low is not None and b.ci_high is not None and a.ci_low > b.ci_high
