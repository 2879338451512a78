"""Moments, Frechet distance, kernel distance and sample: against plain formulas, and in shards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from bcd_bench_fidelity.bottom_k_sample import Sample, keys_of
from bcd_bench_fidelity.frechet import frechet_distance
from bcd_bench_fidelity.mmd import kernel_distances
from bcd_bench_fidelity.moments import Moments

WIDTH = 12


def vectors(count: int, width: int = WIDTH, seed: int = 0) -> Any:
    """Correlated features with a mean far from 0, float32[count, width]."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((count, width)) @ rng.standard_normal((width, width)) + rng.uniform(50, 60, width)
    return mixed.astype(np.float32)


def covariance(moments: Moments) -> Any:
    _, factor = moments.gaussian()
    return factor @ factor.T


@settings(deadline=None)
@given(
    count=st.integers(2, 40),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    shards=st.integers(1, 3),
    seed=st.integers(0, 9),
)
def test_moments_are_those_of_numpy_however_the_stream_is_cut(
    count: int, cuts: list[int], shards: int, seed: int
) -> None:
    data = vectors(count, seed=seed)
    parts = np.split(data, sorted(cut for cut in cuts if cut <= count))
    states = [Moments.empty(WIDTH) for _ in range(shards)]
    for number, part in enumerate(parts):
        states[number % shards] = states[number % shards].add(part)
    whole = Moments.merge([Moments.from_tree(state.to_tree()) for state in states])
    mean, _ = whole.gaussian()
    assert whole.count == count
    assert np.allclose(mean, data.mean(0, dtype=float), rtol=1e-12)
    assert np.allclose(covariance(whole), np.cov(data.astype(float), rowvar=False), rtol=1e-9, atol=1e-9)


def test_memory_of_moments_is_bounded() -> None:
    state = Moments.empty(WIDTH)
    sizes = []
    for seed in range(50):
        state = state.add(vectors(5, seed=seed))
        sizes.append(state.rows.size + state.scatter.size + state.mean.size)
    assert max(sizes) <= WIDTH * (WIDTH // 4) + WIDTH * (WIDTH + 1) // 2 + WIDTH
    assert state.count == 250


def test_moments_merge_without_changing_what_they_are_made_of() -> None:
    one, other = Moments.empty(WIDTH).add(vectors(20)), Moments.empty(WIDTH).add(vectors(9, seed=1))
    before = covariance(one).copy()
    Moments.merge([one, other])
    one.add(vectors(30, seed=2))
    assert np.array_equal(covariance(one), before)


def test_moments_refuse_other_widths_and_a_single_vector() -> None:
    with pytest.raises(ValueError, match=r"\[N, 12\], not \[2, 5\]"):
        Moments.empty(WIDTH).add(np.zeros((2, 5)))
    with pytest.raises(ValueError, match="two vectors"):
        Moments.empty(WIDTH).add(vectors(1)).gaussian()


def by_square_root(x: Any, y: Any) -> float:
    """The textbook formula, as the usual code computes it."""
    one, other = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    shift = x.mean(0) - y.mean(0)
    return float(shift @ shift + np.trace(one) + np.trace(other) - 2 * np.trace(sqrtm(one @ other).real))


def distance(x: Any, y: Any) -> float:
    width = x.shape[1]
    return frechet_distance(*Moments.empty(width).add(x).gaussian(), *Moments.empty(width).add(y).gaussian())


@settings(deadline=None, max_examples=40)
@given(width=st.integers(1, 24), seed=st.integers(0, 1000), more=st.integers(2, 60))
def test_frechet_distance_is_that_of_the_matrix_square_root(width: int, seed: int, more: int) -> None:
    x, y = vectors(width + more, width, seed), vectors(width + 2 * more, width, seed + 1)
    wide_x, wide_y = x.astype(float).reshape(-1, width), y.astype(float).reshape(-1, width)
    if width == 1:
        expected = (wide_x.mean() - wide_y.mean()) ** 2 + (wide_x.std(ddof=1) - wide_y.std(ddof=1)) ** 2
    else:
        expected = by_square_root(wide_x, wide_y)
    assert distance(x, y) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert distance(y, x) == pytest.approx(distance(x, y), rel=1e-9, abs=1e-9)


def test_frechet_distance_of_covariances_without_full_rank() -> None:
    rng = np.random.default_rng(3)
    axes = np.linalg.qr(rng.standard_normal((12, 12)))[0]
    one, other = rng.uniform(0, 4, 12), rng.uniform(0, 4, 12)
    one[5:] = 0
    other[:3] = 0  # they share two axes only, so their product has rank 2
    expected = float(((np.sqrt(one) - np.sqrt(other)) ** 2).sum())
    zero = np.zeros(12)
    assert frechet_distance(zero, axes * np.sqrt(one), zero, axes * np.sqrt(other)) == pytest.approx(
        expected, rel=1e-12
    )
    few, fewer = vectors(5, 12), vectors(4, 12, seed=1)
    assert distance(few, fewer) == pytest.approx(by_square_root(few.astype(float), fewer.astype(float)), rel=1e-4)


def test_folded_vectors_of_low_rank_give_the_distance_of_their_rows() -> None:
    rng = np.random.default_rng(0)
    flat = (rng.standard_normal((60, 3)) @ rng.standard_normal((3, 10))).astype(np.float32)
    full = vectors(60, 10, seed=4)
    folded = Moments.empty(10).add(flat)
    assert folded.folded == 60
    _, factor = folded.gaussian()
    assert factor.shape[1] < 10
    rows = flat.astype(float) - flat.mean(0, dtype=float)
    exact = frechet_distance(flat.mean(0, dtype=float), rows.T / np.sqrt(59), *Moments.empty(10).add(full).gaussian())
    assert distance(flat, full) == pytest.approx(exact, rel=1e-6)


def test_equal_sets_are_at_no_distance_and_a_shift_counts_squared() -> None:
    for count in (5, 200):
        data = vectors(count, 16)
        assert distance(data, data) == pytest.approx(0, abs=1e-8)
        assert distance(data, data + np.float32(2)) == pytest.approx(16 * 4, rel=1e-4)


def kernel_by_the_book(x: Any, y: Any) -> float:
    def k(a: Any, b: Any) -> float:
        return float((np.dot(a, b) / len(a) + 1) ** 3)

    m, n = len(x), len(y)
    within = sum(k(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    beside = sum(k(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return within + beside - 2 * sum(k(a, b) for a in x for b in y) / (m * n)


def test_kernel_distance_and_its_replicates_are_those_of_plain_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bcd_bench_fidelity.mmd._CHUNK", 4)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((11, 5)).astype(np.float32), rng.standard_normal((9, 5)).astype(np.float32) + 1
    x_groups, y_groups = np.arange(11) % 3, np.arange(9) % 3
    value, replicates = kernel_distances(x, x_groups, y, y_groups, 3)
    assert value == pytest.approx(kernel_by_the_book(x.astype(float), y.astype(float)), rel=1e-12)
    for group in range(3):
        expected = kernel_by_the_book(x[x_groups != group].astype(float), y[y_groups != group].astype(float))
        assert replicates[group] == pytest.approx(expected, rel=1e-10)


def test_kernel_distance_is_unbiased_and_has_no_value_for_single_vectors() -> None:
    rng = np.random.default_rng(1)
    none = np.zeros(10, np.intp)
    draws = [
        kernel_distances(
            rng.standard_normal((10, 4)).astype(np.float32),
            none,
            rng.standard_normal((10, 4)).astype(np.float32),
            none,
            1,
        )[0]
        for _ in range(400)
    ]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 3 * error
    assert min(draws) < 0
    value, replicates = kernel_distances(
        np.zeros((1, 4), np.float32), none[:1], np.zeros((5, 4), np.float32), none[:5], 1
    )
    assert np.isnan([value, *replicates]).all()


@settings(deadline=None, max_examples=50)
@given(order=st.permutations(range(12)), batch=st.integers(1, 12), shards=st.integers(1, 3), limit=st.integers(1, 15))
def test_a_sample_depends_on_nothing_but_what_it_has_seen(
    order: list[int], batch: int, shards: int, limit: int
) -> None:
    keys, clusters, rows = (
        keys_of([f"v{i}" for i in range(12)]),
        keys_of([f"c{i // 3}" for i in range(12)]),
        vectors(12),
    )
    once = Sample.empty(limit, WIDTH).add(keys, clusters, rows)
    states = [Sample.empty(limit, WIDTH) for _ in range(shards)]
    for number, start in enumerate(range(0, 12, batch)):
        chosen = order[start : start + batch]
        states[number % shards] = states[number % shards].add(keys[chosen], clusters[chosen], rows[chosen])
    merged = Sample.merge([Sample.from_tree(state.to_tree()) for state in states])
    assert merged.seen == once.seen == 12
    assert len(once.rows) == min(limit, 12)
    for name in ("keys", "clusters", "rows"):
        assert np.array_equal(getattr(merged, name), getattr(once, name))


def test_a_sample_is_no_choice_by_content() -> None:
    rows = np.arange(3000, dtype=np.float32)[:, None]
    keys = keys_of([str(i) for i in range(3000)])
    kept = Sample.empty(300, 1).add(keys, keys, rows).rows
    assert abs(kept.mean() - 1499.5) < 3 * 866 / np.sqrt(300)
    assert keys_of(["a"]).tolist() == [int.from_bytes(bytes.fromhex("ca978112ca1bbdca"))]
