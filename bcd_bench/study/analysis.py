"""Evaluates ratings: which raters count, means, agreement, and differences of methods."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.statistics.compare import Comparison
from bcd_bench.statistics.intervals import (
    MIN_CLUSTERS_TO_COMPARE,
    Interval,
    bootstrap_mean,
    bootstrap_statistics,
    paired_difference,
    paired_effect,
    sign_flip_p_value,
)
from bcd_bench.statistics.pairwise import Difference, holm, letters
from bcd_bench.study.design import Study
from bcd_bench.study.questions import QUESTIONS, SCALE
from bcd_bench.study.store import Rating

__all__ = ["Agreement", "Evaluation", "Mean", "Raters", "agreement", "evaluate", "select_raters"]


@dataclass(frozen=True)
class Raters:
    """Numbers of raters: those who rated a video that counts, and of these who stopped early, who failed attention
    checks, and whose ratings are used."""

    started: int
    unfinished: int
    failed: int
    used: int


@dataclass(frozen=True)
class Mean:
    """The mean score, 1..5, of a method for a question over `n` ratings, with its 95 % interval clustered by rater;
    None with fewer than `MIN_CLUSTERS_TO_COMPARE` raters."""

    method: str
    question: str
    value: float | None
    ci_low: float | None
    ci_high: float | None
    n: int


@dataclass(frozen=True)
class Agreement:
    """Krippendorff's alpha for a question: 1 for equal ratings, 0 for chance; None if it is undefined, such as for one
    rater or equal scores everywhere. The interval is clustered by pair of clips."""

    question: str
    alpha: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Evaluation:
    """The results of a study. `scores` [raters, groups, methods, questions] contains NaN for missing ratings.

    `differences` are of all pairs of methods for each question, with p-values adjusted by Holm for each question.
    `letters` maps a question to one text for each method: methods with a letter in common do not differ significantly.
    """

    raters: Raters
    rater_ids: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    means: tuple[Mean, ...]
    agreement: tuple[Agreement, ...]
    differences: tuple[Difference, ...]
    letters: Mapping[str, tuple[str, ...]]


def evaluate(
    study: Study, ratings: Iterable[Rating], *, allowed_failures: int = 0, unfinished: bool = False
) -> Evaluation:
    """Evaluate the ratings of a study. Raters are chosen as by `select_raters`."""
    raters, by_rater = select_raters(study, ratings, allowed_failures=allowed_failures, unfinished=unfinished)
    scores = np.full((len(by_rater), len(study.groups), len(study.methods), len(QUESTIONS)), np.nan)
    for index, own in enumerate(by_rater.values()):
        for g, group in enumerate(study.groups):
            for m, item in enumerate(group.items):
                if item.id in own:
                    scores[index, g, m] = [own[item.id][question.key] for question in QUESTIONS]
    names = tuple(by_rater)
    differences = [one for q in range(len(QUESTIONS)) for one in _differences(study, scores[..., q], names, q)]
    return Evaluation(
        raters=raters,
        rater_ids=names,
        scores=scores,
        means=tuple(
            _mean(study.methods[m].label, QUESTIONS[q].name, scores[:, :, m, q], names)
            for m in range(len(study.methods))
            for q in range(len(QUESTIONS))
        ),
        agreement=agreement(scores),
        differences=tuple(differences),
        letters=_letters(study, scores, differences),
    )


def select_raters(
    study: Study, ratings: Iterable[Rating], *, allowed_failures: int = 0, unfinished: bool = False
) -> tuple[Raters, dict[str, dict[str, Mapping[str, int]]]]:
    """Rater -> item -> scores for raters whose ratings are used, and the numbers of raters.

    A rater is left out who has not answered every item, except the practice trial, unless `unfinished`; or who failed
    more than `allowed_failures` attention checks. Raters who rated nothing that counts are not counted.
    """
    counted = {item.id for group in study.groups for item in group.items}
    checks = {item.id: item for item in study.checks}
    every: dict[str, dict[str, Mapping[str, int]]] = {}
    for rating in sorted(ratings, key=lambda one: (one.rater.slot, one.rater.id)):
        every.setdefault(rating.rater.id, {})[rating.item] = rating.scores
    started = {rater: own for rater, own in every.items() if counted & own.keys()}
    failed, stopped, used = 0, 0, {}
    for rater, own in started.items():
        failures = sum(not check.passed(own[item]) for item, check in checks.items() if item in own)
        if failures > allowed_failures:
            failed += 1
        elif not unfinished and not (counted | checks.keys()) <= own.keys():
            stopped += 1
        else:
            used[rater] = own
    return Raters(len(started), stopped, failed, len(used)), used


def agreement(scores: npt.NDArray[np.float64]) -> tuple[Agreement, ...]:
    """Krippendorff's alpha for ordinal `scores` [raters, groups, methods, questions], for each question."""
    import krippendorff

    def alphas(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        found = {}
        for q, question in enumerate(QUESTIONS):
            units = np.concatenate([scores[:, row["group"], :, q] for row in rows], axis=1)
            shared = np.isfinite(units).sum(axis=0) >= 2
            values = np.unique(units[:, shared][np.isfinite(units[:, shared])]) if shared.any() else ()
            found[question.name] = math.nan
            if len(values) > 1:  # otherwise expected disagreement is 0, and alpha is undefined
                found[question.name] = float(
                    krippendorff.alpha(units, level_of_measurement="ordinal", value_domain=list(SCALE))
                )
        return found

    rows = [{"group": group} for group in range(scores.shape[1])]
    values = alphas(rows)
    groups = [str(group) for group in range(len(rows))]
    intervals = bootstrap_statistics(rows, groups, alphas) if len(rows) >= MIN_CLUSTERS_TO_COMPARE else {}
    return tuple(
        Agreement(name, value if math.isfinite(value) else None, *_ends(intervals.get(name)))
        for name, value in values.items()
    )


def _mean(method: str, question: str, scores: npt.NDArray[np.float64], raters: Sequence[str]) -> Mean:
    known = np.isfinite(scores)
    values = scores[known]
    clusters = [raters[int(index)] for index in np.nonzero(known)[0]]
    interval = bootstrap_mean(values, clusters) if len(set(clusters)) >= MIN_CLUSTERS_TO_COMPARE else None
    return Mean(method, question, float(values.mean()) if len(values) else None, *_ends(interval), len(values))


def _ends(interval: Interval | None) -> tuple[float | None, float | None]:
    return (None, None) if interval is None else (interval.low, interval.high)


def _differences(study: Study, scores: npt.NDArray[np.float64], raters: Sequence[str], q: int) -> list[Difference]:
    """All pairs of methods for one question, from ratings of both by one rater in one group."""
    found = []
    for i, j in combinations(range(len(study.methods)), 2):
        a, b = scores[..., i], scores[..., j]
        known = np.isfinite(a) & np.isfinite(b)
        clusters = [raters[int(index)] for index in np.nonzero(known)[0]]
        if clusters:
            found.append(
                (i, j, _comparison(a[known], b[known], clusters, q), paired_effect(a[known], b[known], clusters))
            )
    adjusted = holm([comparison.p_value for _, _, comparison, _ in found])
    differences = []
    for (i, j, comparison, (effect, interval)), p_adjusted in zip(found, adjusted, strict=True):
        enough = comparison.n_clusters >= MIN_CLUSTERS_TO_COMPARE
        labels = (study.methods[i].label, study.methods[j].label)
        differences.append(Difference(*labels, comparison, p_adjusted, effect, *_ends(interval if enough else None)))
    return differences


def _comparison(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], clusters: Sequence[str], q: int) -> Comparison:
    paired = paired_difference(a, b, clusters)
    enough = paired.n_clusters >= MIN_CLUSTERS_TO_COMPARE
    low, high = _ends(paired.interval if enough else None)
    return Comparison(
        column=QUESTIONS[q].name,
        metric=QUESTIONS[q].key,
        unit="",
        higher_is_better=True,
        decimals=2,
        a=float(a.mean()),
        b=float(b.mean()),
        difference=paired.difference,
        ci_low=low,
        ci_high=high,
        p_value=sign_flip_p_value(a, b, clusters),
        n_pairs=paired.n_pairs,
        n_clusters=paired.n_clusters,
        significant=paired.significant,
    )


def _letters(
    study: Study, scores: npt.NDArray[np.float64], differences: Sequence[Difference]
) -> dict[str, tuple[str, ...]]:
    if not len(scores):
        return {}
    number = {method.label: index for index, method in enumerate(study.methods)}
    found = {}
    for q, question in enumerate(QUESTIONS):
        distinct = [
            (number[one.a], number[one.b])
            for one in differences
            if one.comparison.column == question.name and one.significant
        ]
        means = [-float(np.nanmean(scores[:, :, m, q])) if np.isfinite(scores[:, :, m, q]).any() else 0.0
                 for m in range(len(study.methods))]  # fmt: skip
        found[question.name] = letters(len(study.methods), distinct, sorted(range(len(means)), key=means.__getitem__))
    return found
