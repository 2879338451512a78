"""The kernel distance (KID) of two samples of feature vectors, with its jackknife over groups at no extra cost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["kernel_distances"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]
Groups = npt.NDArray[np.intp]

_CHUNK = 512
"""Rows of the kernel matrix in memory at a time."""


def kernel_distances(x: Rows, x_groups: Groups, y: Rows, y_groups: Groups, groups: int) -> tuple[float, list[float]]:
    """The unbiased squared maximum mean discrepancy of x [M, D] and y [N, D], and the same without each group.

    Kernel (x . y / D + 1)^3; Binkowski et al., "Demystifying MMD GANs", 2018. `x_groups` [M] and `y_groups` [N] are in
    0..groups-1. NaN if a sample has fewer than two vectors. The estimate is unbiased, so it can be negative.
    """
    xx, yy = _sums(x, x_groups, x, x_groups, groups), _sums(y, y_groups, y, y_groups, groups)
    xy = _sums(x, x_groups, y, y_groups, groups)
    # Pairs of a vector with itself do not count: subtract both diagonals.
    xx -= np.diag(np.bincount(x_groups, weights=_kernel((x.astype(np.float64) ** 2).sum(1), x), minlength=groups))
    yy -= np.diag(np.bincount(y_groups, weights=_kernel((y.astype(np.float64) ** 2).sum(1), y), minlength=groups))
    m, n = np.bincount(x_groups, minlength=groups), np.bincount(y_groups, minlength=groups)
    every = np.ones(groups, dtype=bool)
    without = [_distance(xx, yy, xy, m, n, np.arange(groups) != group) for group in range(groups)]
    return _distance(xx, yy, xy, m, n, every), without


def _distance(xx: Floats, yy: Floats, xy: Floats, m: Groups, n: Groups, keep: npt.NDArray[np.bool_]) -> float:
    block = np.ix_(keep, keep)
    rows, columns = int(m[keep].sum()), int(n[keep].sum())
    if rows < 2 or columns < 2:
        return float("nan")
    within = xx[block].sum() / (rows * (rows - 1)) + yy[block].sum() / (columns * (columns - 1))
    return float(within - 2 * xy[block].sum() / (rows * columns))


def _kernel(products: Floats, vectors: Rows) -> Floats:
    kernel: Floats = (products / vectors.shape[1] + 1) ** 3
    return kernel


def _sums(x: Rows, x_groups: Groups, y: Rows, y_groups: Groups, groups: int) -> Floats:
    """Sums of the kernel over every pair of groups, float64[groups, groups]."""
    y_rows = y.astype(np.float64)
    members = np.equal.outer(y_groups, np.arange(groups)).astype(np.float64)
    sums = np.zeros((groups, groups))
    for start in range(0, len(x), _CHUNK):
        part = x[start : start + _CHUNK].astype(np.float64)
        membership = np.equal.outer(np.arange(groups), x_groups[start : start + _CHUNK]).astype(np.float64)
        sums += membership @ (_kernel(part @ y_rows.T, y) @ members)
    return sums
