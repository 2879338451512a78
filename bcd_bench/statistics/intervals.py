"""Uncertainty: clustered bootstrap, Wilson, paired differences between methods, delete-group jackknife.

Outputs that share a content subject are not independent, so every interval here resamples (or deletes) whole
clusters, never single pairs or frames. Everything is seeded: equal inputs yield equal bits on one machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "BOOTSTRAP_SEED",
    "MIN_CLUSTERS_TO_COMPARE",
    "Interval",
    "PairedDifference",
    "area_under_curve",
    "bootstrap_crossed",
    "bootstrap_mean",
    "bootstrap_statistics",
    "delete_group_jackknife",
    "jackknife_groups",
    "paired_difference",
    "paired_effect",
    "rate_interval",
    "sign_flip_p_value",
    "wilson",
]

BOOTSTRAP_SEED = 20_240_601
"""Fixed, so that an interval is a function of the scores alone."""
RESAMPLES = 2000
STATISTIC_RESAMPLES = 300
"""Resamples of a derived column; fewer, since each one calls the metric."""
MIN_CLUSTERS_TO_COMPARE = 6
"""With fewer clusters, even a unanimous difference has p = 2 / 2**clusters > 0.05 in the sign-flip test."""
_CHUNK_ELEMENTS = 2_000_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Interval:
    """A confidence interval in the unit of its value; `method` names the procedure."""

    low: float
    high: float
    method: str

    def contains(self, value: float) -> bool:
        return self.low <= value <= self.high

    def scaled(self, factor: float) -> Interval:
        return Interval(self.low * factor, self.high * factor, self.method)


@dataclass(frozen=True)
class PairedDifference:
    """Mean of `a - b` over the common pairs; `interval` is None with fewer than two clusters."""

    difference: float
    interval: Interval | None
    n_pairs: int
    n_clusters: int

    @property
    def significant(self) -> bool:
        """Whether the 95 % interval excludes 0, given enough clusters for the decision."""
        enough = self.n_clusters >= MIN_CLUSTERS_TO_COMPARE
        return enough and self.interval is not None and not self.interval.contains(0.0)


def wilson(successes: float, n: int, level: float = 0.95) -> Interval:
    """Wilson score interval of a proportion, as fractions in [0, 1].

    It remains informative at 0 and 100 %: 2,664 of 2,664 yields [0.9986, 1]. It assumes n independent trials.
    Raises `ValueError` unless 0 <= successes <= n and n >= 1.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"Wilson interval needs 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(low, high, "wilson")


def bootstrap_mean(
    values: Floats,
    clusters: Sequence[str],
    *,
    seed: int = BOOTSTRAP_SEED,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Interval | None:
    """Percentile interval of the mean of `values` [n], resampling whole clusters.

    The statistic is a ratio of sums, so clusters of unequal size keep their weight. For few clusters, the percentiles
    are widened as in Hesterberg (2015): a plain percentile interval is too short by sqrt((k - 1) / k) and because it
    uses the normal instead of the t quantile. None with fewer than two clusters.
    """
    sums, counts = _cluster_sums(values, clusters)
    if len(sums) < 2:
        return None
    means = np.concatenate(
        [sums[draw].sum(axis=1) / counts[draw].sum(axis=1) for draw in _draws(len(sums), resamples, seed)]
    )
    low, high = _percentiles(means, len(sums), level)
    return Interval(low, high, "clustered bootstrap")


def rate_interval(
    hits: Floats, clusters: Sequence[str], *, seed: int = BOOTSTRAP_SEED, level: float = 0.95
) -> Interval:
    """Interval of a rate (fractions) from 0/1 `hits` [n >= 1].

    The clustered bootstrap, unless it is degenerate (every resample has the same rate, as at 0 and 100 %, or there
    is only one cluster): a zero-width interval would claim certainty, so the Wilson interval is used instead.
    """
    interval = bootstrap_mean(hits, clusters, seed=seed, level=level)
    if interval is None or interval.high - interval.low < 1e-12:
        return wilson(float(hits.sum()), len(hits), level)
    return interval


def bootstrap_statistics(
    rows: Sequence[Mapping[str, Any]],
    clusters: Sequence[str],
    statistic: Callable[[Sequence[Mapping[str, Any]]], Mapping[str, float]],
    *,
    seed: int = BOOTSTRAP_SEED,
    resamples: int = STATISTIC_RESAMPLES,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile intervals of every number that `statistic(rows)` returns, resampling whole clusters of rows.

    Statistics such as entropies are biased downwards on resamples; if the percentiles exclude the estimate itself,
    the interval is extended to contain it. Numbers that are not finite on every resample have no interval.
    """
    members: dict[str, list[Mapping[str, Any]]] = {}
    for row, cluster in zip(rows, clusters, strict=True):
        members.setdefault(cluster, []).append(row)
    groups = [members[name] for name in sorted(members)]
    if len(groups) < 2:
        return {}
    estimate = statistic(rows)
    draws: dict[str, list[float]] = {name: [] for name in estimate}
    for chunk in _draws(len(groups), resamples, seed):
        for draw in chunk:
            resample = statistic([row for index in draw for row in groups[index]])
            for name in estimate:
                draws[name].append(float(resample[name]))
    intervals = {}
    for name, value in estimate.items():
        if np.isfinite(draws[name]).all() and math.isfinite(value):
            low, high = _percentiles(np.array(draws[name]), len(groups), level)
            intervals[name] = Interval(min(low, value), max(high, value), "clustered bootstrap")
    return intervals


def bootstrap_crossed(
    sizes: tuple[int, int],
    statistic: Callable[[Ints, Ints], Mapping[str, float]],
    *,
    seed: int = BOOTSTRAP_SEED,
    resamples: int = STATISTIC_RESAMPLES,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile intervals of a statistic of two crossed kinds of clusters, such as raters and subjects.

    `sizes` are their numbers. `statistic(first, second)` is called with indices of clusters, and returns named numbers.
    Both kinds are resampled independently of each other (Owen's pigeonhole bootstrap, 2007): an interval covers other
    raters and other subjects, and is at least as wide as one for either alone. Percentiles are widened for the smaller
    number of clusters. Numbers that are not finite on every resample have no interval; none with fewer than two
    clusters of a kind.
    """
    if min(sizes) < 2:
        return {}
    estimate = statistic(*(np.arange(size, dtype=np.intp) for size in sizes))
    draws: dict[str, list[float]] = {name: [] for name in estimate}
    first, second = (
        [row for chunk in _draws(size, resamples, seed + kind) for row in chunk] for kind, size in enumerate(sizes)
    )
    for rows, columns in zip(first, second, strict=True):
        resample = statistic(rows, columns)
        for name in estimate:
            draws[name].append(float(resample[name]))
    intervals = {}
    for name, value in estimate.items():
        if np.isfinite(draws[name]).all() and math.isfinite(value):
            low, high = _percentiles(np.array(draws[name]), min(sizes), level)
            intervals[name] = Interval(min(low, value), max(high, value), "crossed bootstrap")
    return intervals


def paired_difference(
    a: Floats,
    b: Floats,
    clusters: Sequence[str],
    *,
    seed: int = BOOTSTRAP_SEED,
    level: float = 0.95,
) -> PairedDifference:
    """Mean of `a - b` [n] over pairs scored by both methods, with a clustered bootstrap interval.

    Raises `ValueError` on empty input.
    """
    difference = a - b
    if len(difference) == 0:
        raise ValueError("no pair was scored in both runs")
    return PairedDifference(
        difference=float(difference.mean()),
        interval=bootstrap_mean(difference, clusters, seed=seed, level=level),
        n_pairs=len(difference),
        n_clusters=len(set(clusters)),
    )


def paired_effect(
    a: Floats, b: Floats, clusters: Sequence[str], *, seed: int = BOOTSTRAP_SEED, level: float = 0.95
) -> tuple[float | None, Interval | None]:
    """Cohen's d of paired values, mean of `a - b` [n] over its standard deviation, with a clustered bootstrap interval.

    (None, None) if all differences are equal, or with fewer than two pairs; no interval with fewer than two clusters,
    or if a resample has equal differences only.
    """
    difference = a - b
    if len(difference) < 2 or float(np.ptp(difference)) == 0:
        return None, None
    effect = float(difference.mean() / difference.std(ddof=1))
    sums, counts = _cluster_sums(difference, clusters)
    squares, _ = _cluster_sums(difference**2, clusters)
    if len(sums) < 2:
        return effect, None
    effects = []
    for draw in _draws(len(sums), RESAMPLES, seed):
        number = counts[draw].sum(axis=1)
        mean = sums[draw].sum(axis=1) / number
        variance = (squares[draw].sum(axis=1) / number - mean**2) * number / np.maximum(number - 1, 1)
        if (variance <= 1e-12 * np.maximum(mean**2, 1e-12)).any():
            return effect, None
        effects.append(mean / np.sqrt(variance))
    low, high = _percentiles(np.concatenate(effects), len(sums), level)
    return effect, Interval(low, high, "clustered bootstrap")


def sign_flip_p_value(a: Floats, b: Floats, clusters: Sequence[str], *, seed: int = BOOTSTRAP_SEED) -> float:
    """Two-sided permutation p-value of the null hypothesis that both methods score equally, swapping methods per
    cluster.

    Exact for up to 13 clusters, otherwise based on 9,999 random swaps.
    """
    from scipy.stats import permutation_test

    sums_a, _ = _cluster_sums(a, clusters)
    sums_b, _ = _cluster_sums(b, clusters)
    if np.array_equal(sums_a, sums_b):
        return 1.0
    result = permutation_test(
        (sums_a, sums_b),
        lambda x, y, axis: np.sum(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        batch=max(1, _CHUNK_ELEMENTS // (2 * len(sums_a))),
        random_state=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def area_under_curve(higher: npt.ArrayLike, lower: npt.ArrayLike) -> float:
    """Probability that one of `higher` exceeds one of `lower`, ties counted half: the area under the ROC curve."""
    above, below = np.asarray(higher), np.sort(np.asarray(lower))
    passed = np.searchsorted(below, above, side="left") + np.searchsorted(below, above, side="right")
    return float(passed.mean() / 2 / len(below))


def jackknife_groups(clusters: Sequence[str], groups: int, *, seed: int = BOOTSTRAP_SEED) -> dict[str, int]:
    """Randomly assign clusters to groups 0..groups-1 of nearly equal size; never more groups than clusters."""
    names = sorted(set(clusters))
    order = np.random.default_rng(seed).permutation(len(names))
    return {names[cluster]: int(position) % min(groups, len(names)) for position, cluster in enumerate(order)}


def delete_group_jackknife(value: float, replicates: Sequence[float], level: float = 0.95) -> Interval | None:
    """Interval of a set statistic from its values with one group of clusters left out at a time.

    `value` is the statistic over all clusters, `replicates[g]` over all but group g. Variance (G - 1) / G * sum of
    squared deviations from the replicates' mean, t quantile with G - 1 degrees of freedom. Unlike the bootstrap, it
    never repeats an output, which would bias Frechet and kernel distances. None with fewer than two groups.
    """
    from scipy.special import stdtrit

    groups = len(replicates)
    if groups < 2:
        return None
    deviations = np.asarray(replicates, dtype=np.float64) - np.mean(replicates)
    error = math.sqrt((groups - 1) / groups * float(deviations @ deviations))
    half = float(stdtrit(groups - 1, 0.5 + level / 2)) * error
    return Interval(value - half, value + half, "delete-group jackknife")


def _cluster_sums(values: Floats, clusters: Sequence[str]) -> tuple[Floats, Floats]:
    """Sum and number of `values` per cluster, clusters in sorted order."""
    _, codes = np.unique(np.asarray(clusters, dtype=np.str_), return_inverse=True)
    return np.bincount(codes, weights=values).astype(np.float64), np.bincount(codes).astype(np.float64)


def _draws(clusters: int, resamples: int, seed: int) -> Iterator[Ints]:
    """Yield resampled cluster indices in chunks [<= chunk, clusters], to bound memory."""
    if clusters * resamples <= _CHUNK_ELEMENTS:
        yield _small_draw(clusters, resamples, seed)
        return
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK_ELEMENTS // clusters)
    for start in range(0, resamples, chunk):
        yield rng.integers(0, clusters, size=(min(chunk, resamples - start), clusters), dtype=np.intp)


@lru_cache(maxsize=2)
def _small_draw(clusters: int, resamples: int, seed: int) -> Ints:
    """All draws at once, kept for the next column of the same subjects: drawing takes half of the time."""
    draw = np.random.default_rng(seed).integers(0, clusters, size=(resamples, clusters), dtype=np.intp)
    draw.setflags(write=False)
    return draw


def _percentiles(draws: Floats, clusters: int, level: float) -> tuple[float, float]:
    from scipy.special import stdtrit

    t_quantile = float(stdtrit(clusters - 1, 0.5 + level / 2))
    tail = NormalDist().cdf(-math.sqrt(clusters / (clusters - 1)) * t_quantile)
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)
