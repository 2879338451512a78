"""Who is best, and whether the data can tell: marks for the ranked rows of one table column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from bcd_bench.records import Value
from bcd_bench.report.rows import ReportRow
from bcd_bench.statistics import paired_difference

__all__ = ["Mark", "distinguishable", "marks"]

Mark = Literal["best", "second"]


def marks(rows: Sequence[ReportRow], column: str) -> dict[int, Mark]:
    """Row index -> mark, for one column.

    Only ranked rows with enough coverage compete. The best is marked where the paired interval of its difference to
    the next excludes 0; the second where there is such a best, and it is told apart from the third (or is the last).
    Where the pairs are not at hand, or the interval contains 0, there is no mark: the table does not guess. Nor is
    there one where the rows were scored with different files of the user's choice, such as two face recognisers.
    """
    competing = [
        (index, value.value, value.higher_is_better)
        for index, row in enumerate(rows)
        if row.ranked and (value := row.metrics.get(column)) is not None and value.covered and value.value is not None
    ]
    directions = {higher for _, _, higher in competing}
    files = [_chosen_files(rows[index], column) for index, _, _ in competing]
    if len(competing) < 2 or len(directions) != 1 or None in directions or any(one != files[0] for one in files):
        return {}
    order = sorted(competing, key=lambda entry: entry[1], reverse=bool(directions.pop()))
    places = [index for index, _, _ in order]
    if not distinguishable(rows[places[0]], rows[places[1]], column):
        return {}
    found: dict[int, Mark] = {places[0]: "best"}
    if len(places) == 2 or distinguishable(rows[places[1]], rows[places[2]], column):
        found[places[1]] = "second"
    return found


def distinguishable(a: ReportRow, b: ReportRow, column: str) -> bool:
    """Whether two runs of one suite differ in a column, by the clustered interval over the pairs both scored.

    A column without per-pair values (a set metric, an entropy) needs intervals that do not overlap, which is
    stricter than a paired interval would be.
    """
    if a.manifest_sha256 is None or a.manifest_sha256 != b.manifest_sha256:
        return False
    if a.metrics[column].kind in ("set", "derived"):
        return _disjoint(a.metrics[column], b.metrics[column])
    left, right = a.pair_values, b.pair_values
    if left is None or right is None:
        return False
    values, others, clusters = left.by_pair(column), right.by_pair(column), left.cluster_by_pair()
    common = [pair for pair in left.pairs if pair in values and pair in others]
    if not common:
        return False
    return paired_difference(
        np.array([values[pair] for pair in common], dtype=np.float64),
        np.array([others[pair] for pair in common], dtype=np.float64),
        [clusters[pair] for pair in common],
    ).significant


def _chosen_files(row: ReportRow, column: str) -> Mapping[str, Mapping[str, str]]:
    info = row.record.metrics.get(row.metrics[column].metric) if row.record else None
    return info.assets if info else {}


def _disjoint(a: Value, b: Value) -> bool:
    if a.ci_low is None or a.ci_high is None or b.ci_low is None or b.ci_high is None:
        return False
    return a.ci_low > b.ci_high or b.ci_low > a.ci_high
