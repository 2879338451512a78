"""Mean and covariance of a stream of feature vectors: mergeable, in memory that does not grow with the stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Moments"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Moments:
    """Count, mean and scatter of vectors of length `width`, the latest of which are stored unchanged.

    `folded` vectors are accumulated in `mean` float64[D] and `scatter` float64[D (D + 1) / 2] (the lower triangle, row
    by row, of the sum of outer products about the mean); `rows` float32[K, D] are not accumulated yet. There are never
    more than D / 4 of them, which take a quarter of the triangle's memory. Small sets thus stay exact, and vectors are
    accumulated many at a time.
    """

    width: int
    folded: int
    mean: Floats
    scatter: Floats
    rows: Rows

    @classmethod
    def empty(cls, width: int) -> Moments:
        return cls(width, 0, np.zeros(width), np.zeros(0), np.zeros((0, width), np.float32))

    @property
    def count(self) -> int:
        """Total number of vectors."""
        return self.folded + len(self.rows)

    def add(self, vectors: npt.NDArray[Any]) -> Moments:
        """The moments with further vectors float[N, D] added. Raises `ValueError` if their width differs."""
        if vectors.ndim != 2 or vectors.shape[1] != self.width:
            raise ValueError(f"vectors must be [N, {self.width}], not {list(vectors.shape)}")
        rows = np.concatenate([self.rows, vectors.astype(np.float32, copy=False)])
        return Moments(self.width, self.folded, self.mean, self.scatter, rows)._bounded()

    @staticmethod
    def merge(parts: Sequence[Moments]) -> Moments:
        """The moments of the vectors of all `parts` (at least one), as in one pass, up to rounding."""
        merged = Moments.empty(parts[0].width)
        for part in parts:
            count, mean, scatter = _pooled(merged, part.folded, part.mean, part.scatter)
            rows = np.concatenate([merged.rows, part.rows])
            merged = Moments(merged.width, count, mean, scatter, rows)._bounded()
        return merged

    def gaussian(self) -> tuple[Floats, Floats]:
        """Mean float64[D] and a factor L float64[D, R] with L L^T the unbiased covariance, R at least its rank.

        Raises `ValueError` with fewer than two vectors.
        """
        if self.count < 2:
            raise ValueError("a covariance requires at least two vectors")
        scale = np.sqrt(self.count - 1)
        if self.folded == 0:
            vectors = self.rows.astype(np.float64)
            mean = vectors.mean(axis=0)
            return mean, (vectors - mean).T / scale
        folded = self._fold()
        return folded.mean, _factor(_unpacked(folded.scatter, self.width)) / scale

    def to_tree(self) -> dict[str, Any]:
        """The moments as arrays and numbers, for a stored state."""
        return {
            "width": self.width,
            "folded": self.folded,
            "mean": self.mean,
            "scatter": self.scatter,
            "rows": self.rows,
        }

    @classmethod
    def from_tree(cls, tree: Mapping[str, Any]) -> Moments:
        return cls(int(tree["width"]), int(tree["folded"]), tree["mean"], tree["scatter"], tree["rows"])

    def _bounded(self) -> Moments:
        return self._fold() if len(self.rows) > self.width // 4 else self

    def _fold(self) -> Moments:
        """The moments with all rows accumulated."""
        if len(self.rows) == 0:
            return self
        vectors = self.rows.astype(np.float64)
        mean = vectors.mean(axis=0)
        vectors -= mean
        scatter = (vectors.T @ vectors)[_triangle(self.width)]
        count, mean, scatter = _pooled(self, len(vectors), mean, scatter)
        return Moments(self.width, count, mean, scatter, self.rows[:0])


def _pooled(one: Moments, count: int, mean: Floats, scatter: Floats) -> tuple[int, Floats, Floats]:
    """Count, mean and scatter of `one`'s folded vectors and `count` others (Chan, Golub and LeVeque 1983)."""
    if count == 0:
        return one.folded, one.mean, one.scatter
    if one.folded == 0:
        return count, mean, scatter
    total = one.folded + count
    shift = mean - one.mean
    between = np.outer(shift, shift)[_triangle(one.width)] * (one.folded * count / total)
    return total, one.mean + shift * (count / total), one.scatter + scatter + between


def _triangle(width: int) -> npt.NDArray[np.bool_]:
    """Mask of the entries of a [D, D] matrix that the packed form holds, row by row."""
    return np.tri(width, dtype=np.bool_)


def _unpacked(packed: Floats, width: int) -> Floats:
    """The lower triangle as a matrix float64[D, D] with zeros above the diagonal."""
    matrix = np.zeros((width, width))
    matrix[_triangle(width)] = packed
    return matrix


def _factor(lower: Floats) -> Floats:
    """L float64[D, R] with L L^T the symmetric positive semidefinite matrix of which `lower` is the lower triangle.

    Pivoted Cholesky: it stops at the rank, where the plain one fails, and needs no eigenvectors.
    """
    from scipy.linalg.lapack import dpstrf

    packed, pivots, rank, _ = dpstrf(lower, lower=1)
    factor = np.zeros((len(lower), int(rank)))
    factor[pivots - 1] = np.tril(packed)[:, : int(rank)]
    return factor
