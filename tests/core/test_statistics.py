"""The intervals cover, agree with SciPy, and are the same bits each time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from bcd_bench.statistics import intervals as s


@given(n=st.integers(1, 5000), share=st.floats(0, 1), level=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(n: int, share: float, level: float) -> None:
    successes = round(share * n)
    expected = stats.binomtest(successes, n).proportion_ci(level, method="wilson")
    interval = s.wilson(successes, n, level)
    assert interval.low == pytest.approx(expected.low, abs=1e-12)
    assert interval.high == pytest.approx(expected.high, abs=1e-12)
    assert interval.contains(successes / n)


def test_wilson_of_a_perfect_sprites_score() -> None:
    interval = s.wilson(2664, 2664)
    assert (round(100 * interval.low, 2), interval.high) == (99.86, 1.0)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_proportion(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="Wilson"):
        s.wilson(successes, n)


def _clustered(rng: np.random.Generator, clusters: int, size: int, within: float) -> tuple[np.ndarray, list[str]]:
    """Values around 0 whose clusters share an offset of variance 1, with noise of standard deviation `within`."""
    offsets = rng.normal(size=clusters)
    names = [f"c{index // size}" for index in range(clusters * size)]
    return np.repeat(offsets, size) + within * rng.normal(size=clusters * size), names


@pytest.mark.parametrize(("clusters", "size"), [(8, 5), (40, 3)])
def test_bootstrap_covers_clustered_data_where_a_plain_one_does_not(clusters: int, size: int) -> None:
    rng = np.random.default_rng(1)
    covered = plain = 0
    trials = 300
    for trial in range(trials):
        values, names = _clustered(rng, clusters, size, within=0.3)
        interval = s.bootstrap_mean(values, names, seed=trial, resamples=400)
        independent = s.bootstrap_mean(values, [str(i) for i in range(len(values))], seed=trial, resamples=400)
        assert interval is not None
        assert independent is not None
        covered += interval.contains(0.0)
        plain += independent.contains(0.0)
    assert 0.91 <= covered / trials <= 0.985
    assert plain / trials < 0.85


def test_bootstrap_agrees_with_scipys_on_cluster_sums() -> None:
    values, names = _clustered(np.random.default_rng(2), 200, 4, within=1.0)
    sums = values.reshape(200, 4).sum(axis=1)
    counts = np.full(200, 4.0)
    reference = stats.bootstrap(
        (sums, counts),
        lambda x, y, axis: x.sum(axis=axis) / y.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=8000,
        random_state=np.random.default_rng(3),
    ).confidence_interval
    interval = s.bootstrap_mean(values, names, resamples=8000)
    assert interval is not None
    width = reference.high - reference.low
    assert interval.low == pytest.approx(reference.low, abs=0.05 * width)
    assert interval.high == pytest.approx(reference.high, abs=0.05 * width)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.floats(-1e3, 1e3), st.sampled_from("abcdef")), min_size=2, max_size=40), st.integers(0, 2**31)
)
def test_bootstrap_is_reproducible_and_within_the_cluster_means(data: list[tuple[float, str]], seed: int) -> None:
    values = np.array([value for value, _ in data])
    names = [name for _, name in data]
    first = s.bootstrap_mean(values, names, seed=seed, resamples=100)
    assert first == s.bootstrap_mean(values, names, seed=seed, resamples=100)
    if len(set(names)) < 2:
        assert first is None
        return
    assert first is not None
    means = [values[[n == name for n in names]].mean() for name in set(names)]
    assert min(means) - 1e-9 <= first.low <= first.high <= max(means) + 1e-9


def test_chunks_do_not_change_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    values, names = _clustered(np.random.default_rng(4), 30, 3, within=1.0)
    whole = s.bootstrap_mean(values, names)
    monkeypatch.setattr(s, "_CHUNK_ELEMENTS", 64)
    assert s.bootstrap_mean(values, names) == whole


def test_unequal_clusters_keep_their_weight() -> None:
    values = np.array([1.0] * 90 + [0.0] * 10)
    names = [f"big{i % 3}" for i in range(90)] + [f"small{i}" for i in range(10)]
    interval = s.bootstrap_mean(values, names)
    assert interval is not None
    assert interval.low < 0.9 < interval.high <= 1.0


@pytest.mark.parametrize("hits", [np.ones(50), np.zeros(50)])
def test_a_degenerate_rate_falls_back_to_wilson(hits: np.ndarray) -> None:
    interval = s.rate_interval(hits, [str(i % 10) for i in range(50)])
    assert interval == s.wilson(float(hits.sum()), 50)
    assert interval.high - interval.low > 0.05


def test_a_rate_in_between_is_bootstrapped_by_cluster() -> None:
    hits = np.array([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0] * 10)
    names = [f"c{i // 4}" for i in range(80)]
    interval = s.rate_interval(hits, names)
    assert interval.method == "clustered bootstrap"
    assert interval.high - interval.low > s.wilson(40, 80).high - s.wilson(40, 80).low


def test_one_cluster_gives_a_wilson_rate() -> None:
    assert s.rate_interval(np.array([1.0, 0.0]), ["a", "a"]).method == "wilson"


def _entropy(rows: list[dict[str, int]]) -> dict[str, float]:
    counts = np.bincount([row["label"] for row in rows], minlength=4)
    share = counts[counts > 0] / counts.sum()
    return {"entropy": float(-(share * np.log(share)).sum()), "broken": math.nan}


def test_statistics_contain_the_estimate_even_at_its_maximum() -> None:
    rows = [{"label": i % 4} for i in range(80)]
    intervals = s.bootstrap_statistics(rows, [str(i % 16) for i in range(80)], _entropy, resamples=60)
    assert set(intervals) == {"entropy"}
    assert intervals["entropy"].high == pytest.approx(math.log(4))
    assert intervals["entropy"].low < math.log(4) - 0.01
    assert s.bootstrap_statistics(rows, ["one"] * 80, _entropy) == {}


def test_paired_difference_sees_what_separate_intervals_cannot() -> None:
    rng = np.random.default_rng(5)
    base, names = _clustered(rng, 40, 3, within=0.5)
    better = base + 0.05 + 0.01 * rng.normal(size=len(base))
    result = s.paired_difference(better, base, names)
    alone = s.bootstrap_mean(base, names)
    assert alone is not None
    assert alone.contains(float(better.mean()))
    assert result.significant
    assert result.difference == pytest.approx(0.05, abs=0.01)
    assert (result.n_pairs, result.n_clusters) == (120, 40)
    assert s.sign_flip_p_value(better, base, names) < 0.001


def test_no_difference_and_too_few_clusters_are_not_significant() -> None:
    values, names = _clustered(np.random.default_rng(6), 20, 2, within=1.0)
    same = s.paired_difference(values, values, names)
    assert same.interval is not None
    assert (same.difference, same.interval.low, same.interval.high) == (0.0, 0.0, 0.0)
    assert not same.significant
    assert s.sign_flip_p_value(values, values, names) == 1.0
    few = [str(i % 5) for i in range(40)]
    assert not s.paired_difference(values + 1, values, few).significant
    assert s.sign_flip_p_value(values + 1, values, few) == pytest.approx(2 / 2**5)
    with pytest.raises(ValueError, match="no pair"):
        s.paired_difference(np.array([]), np.array([]), [])


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=30))
def test_jackknife_of_the_mean_is_the_t_interval(values: list[float]) -> None:
    data = np.array(values)
    replicates = [float(np.delete(data, index).mean()) for index in range(len(data))]
    interval = s.delete_group_jackknife(float(data.mean()), replicates)
    assert interval is not None
    half = stats.t.ppf(0.975, len(data) - 1) * data.std(ddof=1) / math.sqrt(len(data))
    assert interval.low == pytest.approx(data.mean() - half, rel=1e-6, abs=1e-6)
    assert interval.high == pytest.approx(data.mean() + half, rel=1e-6, abs=1e-6)


def test_jackknife_groups_are_even_seeded_and_never_empty() -> None:
    clusters = [f"c{i % 23}" for i in range(100)]
    groups = s.jackknife_groups(clusters, 5)
    assert groups == s.jackknife_groups(list(reversed(clusters)), 5)
    assert set(groups) == set(clusters)
    assert sorted(np.bincount(list(groups.values()))) == [4, 4, 5, 5, 5]
    assert set(s.jackknife_groups(["a", "b"], 10).values()) == {0, 1}
    assert s.delete_group_jackknife(1.0, [1.0]) is None


def test_the_area_under_the_curve_counts_pairs() -> None:
    assert s.area_under_curve([3.0, 4.0], [1.0, 2.0]) == 1
    assert s.area_under_curve([3.0, 4.0], [1.0, 3.5]) == pytest.approx(0.75)
    assert s.area_under_curve([2.0], [2.0]) == 0.5


def test_a_crossed_bootstrap_adds_the_variances_of_both_kinds() -> None:
    rng = np.random.default_rng(7)
    raters, subjects = rng.normal(0, 2.0, 40), rng.normal(5, 1.5, 60)

    def half_width(a: float, b: float) -> float:
        def statistic(first: Any, second: Any) -> dict[str, float]:
            return {"sum": a * float(raters[first].mean()) + b * float(subjects[second].mean())}

        interval = s.bootstrap_crossed((40, 60), statistic, resamples=2000)["sum"]
        assert interval.contains(a * raters.mean() + b * subjects.mean())
        return (interval.high - interval.low) / 2

    variance = {"raters": raters.var() / 40, "subjects": subjects.var() / 60}
    assert half_width(1, 0) == pytest.approx(1.96 * np.sqrt(variance["raters"]), rel=0.1)
    assert half_width(0, 1) == pytest.approx(1.96 * np.sqrt(variance["subjects"]), rel=0.1)
    assert half_width(1, 1) == pytest.approx(1.96 * np.sqrt(sum(variance.values())), rel=0.1)
    assert s.bootstrap_crossed((1, 60), lambda first, second: {"sum": 1.0}) == {}
    assert s.bootstrap_crossed((3, 3), lambda first, second: {"x": float("nan" if first[0] else 1)}) == {}
