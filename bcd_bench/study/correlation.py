"""How well metrics agree with ratings: rank correlations of the values of pairs with mean scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from bcd_bench.results.schema import PairValues, RunRecord, load_record
from bcd_bench.run.folder import RunFolder, find_runs
from bcd_bench.statistics.comparability import why_incomparable
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE, Interval, bootstrap_crossed
from bcd_bench.study.design import Study
from bcd_bench.study.questions import QUESTIONS
from bcd_bench.verification.files import first_failure

__all__ = ["Correlation", "Correlations", "MetricValues", "correlate", "load_values", "spearman", "within_groups"]

Ints = npt.NDArray[np.intp]


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
    videos, `within` the mean over pairs of clips of the correlation among the methods. Intervals of 95 % are over
    raters and content subjects; None with fewer than `MIN_CLUSTERS_TO_COMPARE` of either.
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
    """The correlations of all columns and questions, the numbers of subjects and raters, and notes on what is left
    out."""

    rows: tuple[Correlation, ...]
    subjects: int
    raters: int
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
    """Correlate every column with the mean over raters of `scores` [raters, groups, methods, questions].

    Intervals resample the raters, whose mean is computed again, and the content subjects, both at once.
    """
    subjects = [group.subject for group in study.groups]
    names = sorted(set(subjects))
    if not len(scores) or not metrics.columns:
        return Correlations((), len(names), len(scores), metrics.notes)
    members = [np.array([g for g, subject in enumerate(subjects) if subject == name]) for name in names]
    grids = {column: grid * (metrics.signs[column] or 1) for column, grid in metrics.columns.items()}

    def statistic(raters: Ints, chosen_subjects: Ints) -> dict[str, float]:
        mean = _mean_scores(scores, raters)
        chosen = np.concatenate([members[subject] for subject in chosen_subjects])
        found = {}
        for q, question in enumerate(QUESTIONS):
            y = mean[..., q]
            for column, x in grids.items():
                found[f"{column}\n{question.name}"] = spearman(x[chosen].ravel(), y[chosen].ravel())
                found[f"{column}\n{question.name}\nwithin"] = _finite_mean(within_groups(x, y)[chosen])
        return found

    sizes = (len(scores), len(names))
    whole = statistic(np.arange(sizes[0]), np.arange(sizes[1]))
    intervals = bootstrap_crossed(sizes, statistic) if min(sizes) >= MIN_CLUSTERS_TO_COMPARE else {}
    mean = _mean_scores(scores, np.arange(sizes[0]))
    correlations = []
    for column, grid in grids.items():
        for q, question in enumerate(QUESTIONS):
            key = f"{column}\n{question.name}"
            inside = f"{key}\nwithin"
            correlations.append(
                Correlation(
                    column,
                    question.name,
                    _or_none(whole[key]),
                    *_ends(intervals.get(key)),
                    _or_none(whole[inside]),
                    *_ends(intervals.get(inside)),
                    int((np.isfinite(grid) & np.isfinite(mean[..., q])).sum()),
                )
            )
    return Correlations(tuple(correlations), len(names), len(scores), metrics.notes)


def _mean_scores(scores: npt.NDArray[np.float64], raters: Ints) -> npt.NDArray[np.float64]:
    """The mean [groups, methods, questions] over these raters, of whom one may be there several times; NaN without."""
    weights = np.bincount(raters, minlength=len(scores)).astype(np.float64)
    known = np.isfinite(scores)
    counts = np.tensordot(weights, known, 1)
    sums = np.tensordot(weights, np.where(known, scores, 0.0), 1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def within_groups(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`spearman` of each row of `x` and `y` [groups, methods], all at once if nothing is missing."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return np.array([spearman(one, other) for one, other in zip(x, y, strict=True)])
    a, b = (rankdata(values, axis=1) for values in (x, y))
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.where(scale > 0, (a * b).sum(axis=1) / np.where(scale > 0, scale, 1), np.nan)


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
