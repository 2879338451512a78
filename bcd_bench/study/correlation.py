"""How well metrics agree with ratings: rank correlations of the values of pairs with mean scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from bcd_bench.results.schema import PairValues, RunRecord, load_record
from bcd_bench.run.folder import RunFolder, find_runs
from bcd_bench.statistics.comparability import why_incomparable
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE, Interval, bootstrap_statistics
from bcd_bench.study.design import Study
from bcd_bench.study.questions import QUESTIONS
from bcd_bench.verification.files import first_failure

__all__ = ["Correlation", "Correlations", "MetricValues", "correlate", "load_values", "spearman"]


@dataclass(frozen=True)
class MetricValues:
    """Values of metrics on the videos of a study: column -> [groups, methods], NaN where a run has none.

    `signs` is 1 for columns that are better if higher, -1 if lower, and 0 without direction. `notes` say what is left
    out.
    """

    columns: Mapping[str, npt.NDArray[np.float64]]
    signs: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of a column with the mean scores for a question, from `n` videos.

    Signed so that 1 is agreement: values that are better if lower count with the opposite sign. `rho` is over all
    videos, `within` the mean over pairs of clips of the correlation among the methods. Intervals of 95 % are clustered
    by content subject; None with fewer than `MIN_CLUSTERS_TO_COMPARE` subjects.
    """

    column: str
    question: str
    rho: float | None
    ci_low: float | None
    ci_high: float | None
    within: float | None
    within_low: float | None
    within_high: float | None
    n: int


@dataclass(frozen=True)
class Correlations:
    """The correlations of all columns and questions, the number of subjects, and notes on what is left out."""

    rows: tuple[Correlation, ...]
    subjects: int
    notes: tuple[str, ...]


def load_values(study: Study, paths: Sequence[Path] = ()) -> MetricValues:
    """The values of all metrics that the runs of a study have been scored with.

    Runs are looked for in `paths`, or else where they were when the study was built. Left out, with a note: runs that
    are missing, that have no record, whose record fails its checks, or whose outputs have changed. Raises `UsageError`
    for a path without a run.
    """
    folders = {run.plan.run_id: run for run in find_runs(paths)} if paths else _stored(study)
    notes: list[str] = []
    found: dict[int, tuple[RunRecord, PairValues]] = {}
    for index, method in enumerate(study.methods):
        run = folders.get(method.run_id)
        reason = "the run is not there; name its folder" if run is None else None
        if run is not None:
            reason, content = _values(run, [(group.pair, group.outputs[index]) for group in study.groups])
            if content is not None:
                found[index] = content
        if reason:
            notes.append(f"{method.label}: no values of metrics: {reason}")
    names = dict.fromkeys(name for record, values in found.values() for name in record.values if values.by_pair(name))
    columns, signs = {}, {}
    for name in names:
        owners = [record for record, _ in found.values() if name in record.values]
        why = why_incomparable(owners, name) if len(owners) > 1 else None
        if why:
            notes.append(f"{name}: {why}, so not correlated")
            continue
        grid = np.full((len(study.groups), len(study.methods)), np.nan)
        for index, (_, values) in found.items():
            by_pair = values.by_pair(name)
            grid[:, index] = [by_pair.get(group.pair, math.nan) for group in study.groups]
        columns[name] = grid
        signs[name] = {True: 1, False: -1, None: 0}[owners[0].values[name].higher_is_better]
    without = sorted({name for record, _ in found.values() for name in record.values} - names.keys())
    if without:
        notes.append(f"without values of pairs, so not correlated: {', '.join(without)}")
    return MetricValues(columns, signs, tuple(notes))


def _stored(study: Study) -> dict[str, RunFolder]:
    folders = {}
    for method in study.methods:
        if (Path(method.path) / "plan.json").is_file():
            run = RunFolder(Path(method.path))
            folders[run.plan.run_id] = run
    return folders


def _values(
    run: RunFolder, outputs: Sequence[tuple[str, str]]
) -> tuple[str | None, tuple[RunRecord, PairValues] | None]:
    """The reason why a run's values cannot be used, or its record and values."""
    if not run.record_path.exists():
        return f"not scored; bcd-bench score {run.path}", None
    results = run.pairs()
    if any(pair not in results or results[pair].output_sha256 != sha256 for pair, sha256 in outputs):
        return "its outputs have changed since the study was built", None
    record = load_record(run.record_path)
    failure = first_failure(record, run.path)
    if failure:
        return f"its record fails its checks: {failure}", None
    values = PairValues.load(run.path)
    return (None, (record, values)) if values is not None else ("values.json is missing", None)


def correlate(study: Study, scores: npt.NDArray[np.float64], metrics: MetricValues) -> Correlations:
    """Correlate every column with the mean over raters of `scores` [raters, groups, methods, questions]."""
    subjects = [group.subject for group in study.groups]
    number = len(set(subjects))
    if not len(scores) or not metrics.columns:
        return Correlations((), number, metrics.notes)
    counts = np.isfinite(scores).sum(axis=0)
    mean = np.where(counts > 0, np.nansum(scores, axis=0) / np.maximum(counts, 1), np.nan)

    def statistic(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        chosen = [row["group"] for row in rows]
        found = {}
        for column, grid in metrics.columns.items():
            x = grid[chosen] * (metrics.signs[column] or 1)
            for q, question in enumerate(QUESTIONS):
                y = mean[chosen, :, q]
                found[f"{column}\n{question.name}"] = spearman(x.ravel(), y.ravel())
        return found

    by_group = {
        (column, question.name): np.array([
            spearman(metrics.columns[column][g] * (metrics.signs[column] or 1), mean[g, :, q])
            for g in range(len(study.groups))
        ])
        for column in metrics.columns
        for q, question in enumerate(QUESTIONS)
    }  # fmt: skip

    def within(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        chosen = [row["group"] for row in rows]
        return {f"{column}\n{question}": _finite_mean(one[chosen]) for (column, question), one in by_group.items()}

    rows = [{"group": group} for group in range(len(study.groups))]
    enough = number >= MIN_CLUSTERS_TO_COMPARE
    results = []
    for function in (statistic, within):
        results.append((function(rows), bootstrap_statistics(rows, subjects, function) if enough else {}))
    (whole, whole_intervals), (inside, inside_intervals) = results
    correlations = []
    for column, grid in metrics.columns.items():
        for q, question in enumerate(QUESTIONS):
            key = f"{column}\n{question.name}"
            low, high = _ends(whole_intervals.get(key))
            inside_low, inside_high = _ends(inside_intervals.get(key))
            n = int((np.isfinite(grid) & np.isfinite(mean[..., q])).sum())
            rho, within_rho = _or_none(whole[key]), _or_none(inside[key])
            correlations.append(
                Correlation(column, question.name, rho, low, high, within_rho, inside_low, inside_high, n)
            )
    return Correlations(tuple(correlations), number, metrics.notes)


def spearman(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> float:
    """Spearman's rank correlation of two vectors where both are finite; NaN if one of them is constant there.

    As `scipy.stats.spearmanr`, which takes ten times as long on vectors of this length.
    """
    known = np.isfinite(x) & np.isfinite(y)
    if known.sum() < 2:
        return math.nan
    a, b = rankdata(x[known]), rankdata(y[known])
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else math.nan


def _finite_mean(values: npt.NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else math.nan


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def _or_none(value: float) -> float | None:
    return value if math.isfinite(value) else None
