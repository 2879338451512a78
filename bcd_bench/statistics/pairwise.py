"""All pairs of several runs: adjusted p-values, effect sizes, and letters for runs that do not differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from bcd_bench.results.schema import PairValues, RunRecord
from bcd_bench.statistics.compare import Comparison, compare_runs, single_record
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE, paired_effect
from bcd_bench.types.errors import UsageError

__all__ = ["ALPHA", "Difference", "Tournament", "compare_all", "holm", "letters"]

ALPHA = 0.05
"""Level of the adjusted p-values."""


@dataclass(frozen=True)
class Difference:
    """One column of two of several runs; `a` and `b` are their labels.

    `p_adjusted` is the p-value of `comparison`, adjusted by Holm over all pairs of runs in this column. `effect` is the
    mean of the differences of pairs divided by their standard deviation (Cohen's d of paired values), with a 95 %
    interval clustered by subject. Both are None without values of pairs; the effect also if all differences are equal.
    """

    a: str
    b: str
    comparison: Comparison
    p_adjusted: float | None
    effect: float | None
    effect_low: float | None
    effect_high: float | None

    @property
    def significant(self) -> bool:
        """Whether the adjusted p-value is below `ALPHA` and the interval of the difference excludes 0."""
        return self.comparison.significant and self.p_adjusted is not None and self.p_adjusted < ALPHA


@dataclass(frozen=True)
class Tournament:
    """All pairs of several runs over the same pairs of clips.

    `means` maps a column to the value of each run, in the order of `labels`: over the pairs that all runs scored, or
    the recorded value for columns without values of pairs. `letters` maps a column to one text for each run: runs with
    a letter in common do not differ significantly; columns that cannot be tested are absent.
    """

    suite: str
    labels: tuple[str, ...]
    records: tuple[RunRecord, ...]
    means: Mapping[str, tuple[float | None, ...]]
    differences: tuple[Difference, ...]
    letters: Mapping[str, tuple[str, ...]]


def compare_all(paths: Sequence[Path], metrics: Sequence[str] = ()) -> Tournament:
    """Compare all pairs of two or more runs, in every headline column that all of them have.

    `metrics` selects metrics or columns by name; a column that is named need not be a headline column. Raises
    `UsageError` as `compare_runs`, and for fewer than two runs or a run that is given twice.
    """
    found = [single_record(path) for path in paths]
    if len(found) < 2:
        raise UsageError("compare needs at least two runs")
    records = tuple(record for _, record in found)
    for path, record in zip(paths, records, strict=True):
        if sum(record == other for other in records) > 1:
            raise UsageError(f"{path} is given twice")
    labels = _labels(records)
    values = [PairValues.load(folder) for folder, _ in found]
    compared = {(i, j): compare_runs(paths[i], paths[j], metrics) for i, j in combinations(range(len(paths)), 2)}
    shared = [one.column for one in next(iter(compared.values()))]
    for comparisons in compared.values():
        there = {one.column for one in comparisons}
        shared = [column for column in shared if column in there]
    shown = records[0].values
    shared = [column for column in shared if shown[column].headline or column in metrics]
    shared = [column for column in shared if any(record.values[column].value is not None for record in records)]
    if not shared:
        raise UsageError("the runs share no column", hint=f"bcd-bench score {' '.join(map(str, paths))}")
    differences: list[Difference] = []
    means, column_letters = {}, {}
    for column in shared:
        by_pair = {key: next(one for one in many if one.column == column) for key, many in compared.items()}
        adjusted = holm([one.p_value for one in by_pair.values()])
        own = [
            Difference(labels[i], labels[j], one, p, *_effect(column, one, values[i], values[j]))
            for ((i, j), one), p in zip(by_pair.items(), adjusted, strict=True)
        ]
        differences += own
        means[column] = _means(column, records, values)
        if all(one.p_adjusted is not None for one in own):
            distinct = [key for key, one in zip(by_pair, own, strict=True) if one.significant]
            best_first = _order(means[column], own[0].comparison.higher_is_better)
            column_letters[column] = letters(len(labels), distinct, best_first)
    suite = f"{records[0].suite.name}@{records[0].suite.version}"
    return Tournament(suite, labels, records, means, tuple(differences), column_letters)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted by Holm's step-down method, in the given order; None stays None and is not counted."""
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, index) in enumerate(known):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[index] = largest
    return adjusted


def letters(number: int, distinct: Sequence[tuple[int, int]], order: Sequence[int] | None = None) -> tuple[str, ...]:
    """A compact letter display: two of `number` runs share a letter exactly if they are not a pair in `distinct`.

    Letters are given in `order` (default: as numbered). After "z" come "z1", "z2", ….
    """
    groups: list[frozenset[int]] = [frozenset(range(number))]
    for i, j in distinct:
        split = [part for group in groups for part in ((group - {i}, group - {j}) if {i, j} <= group else (group,))]
        unique = list(dict.fromkeys(split))
        groups = [group for group in unique if group and not any(group < other for other in unique)]
    position = {run: rank for rank, run in enumerate(order or range(number))}
    groups.sort(key=lambda group: sorted(position[run] for run in group))
    names = [chr(ord("a") + k) if k < 26 else f"z{k - 25}" for k in range(len(groups))]
    return tuple(
        "".join(name for name, group in zip(names, groups, strict=True) if run in group) for run in range(number)
    )


def _labels(records: Sequence[RunRecord]) -> tuple[str, ...]:
    names = Counter(record.method.name for record in records)
    return tuple(
        record.method.name if names[record.method.name] == 1 else f"{record.method.name} {record.run_id[:8]}"
        for record in records
    )


def _effect(
    column: str, one: Comparison, a: PairValues | None, b: PairValues | None
) -> tuple[float | None, float | None, float | None]:
    if one.p_value is None or a is None or b is None:
        return None, None, None
    left, right, clusters = a.by_pair(column), b.by_pair(column), a.cluster_by_pair()
    common = [pair for pair in left if pair in right]
    x = np.array([left[pair] for pair in common], dtype=np.float64)
    y = np.array([right[pair] for pair in common], dtype=np.float64)
    effect, interval = paired_effect(x, y, [clusters[pair] for pair in common])
    if interval is None or one.n_clusters < MIN_CLUSTERS_TO_COMPARE:
        return effect, None, None
    return effect, interval.low, interval.high


def _means(column: str, records: Sequence[RunRecord], values: Sequence[PairValues | None]) -> tuple[float | None, ...]:
    recorded = tuple(record.values[column].value for record in records)
    by_pair = [frame.by_pair(column) if frame is not None else {} for frame in values]
    common = set(by_pair[0]).intersection(*by_pair[1:])
    if not common:
        return recorded
    scale = 100.0 if records[0].values[column].kind == "rate" else 1.0
    return tuple(scale * float(np.mean([own[pair] for pair in sorted(common)])) for own in by_pair)


def _order(means: Sequence[float | None], higher: bool | None) -> list[int]:
    sign = -1.0 if higher else 1.0
    return sorted(range(len(means)), key=lambda run: sign * (means[run] or 0.0))
