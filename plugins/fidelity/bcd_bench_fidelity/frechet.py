"""The Frechet distance of two Gaussians, exact and without a matrix square root."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["frechet_distance"]

Floats = npt.NDArray[np.float64]


def frechet_distance(mean_1: Floats, factor_1: Floats, mean_2: Floats, factor_2: Floats) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), from means float64[D] and factors L float64[D, R] with L L^T = C.

    C1 C2 = L1 L1^T L2 L2^T has the nonzero eigenvalues of (L1^T L2)(L1^T L2)^T, so the trace of its square root is the
    sum of the singular values of L1^T L2: exact for any ranks, with no complex numbers, nothing added to the diagonal,
    and a problem size that depends only on the ranks. Rounding can make the distance of equal Gaussians slightly
    negative; it is then returned as 0.
    """
    shift = mean_1 - mean_2
    shared = np.linalg.svd(factor_1.T @ factor_2, compute_uv=False).sum()
    traces = np.vdot(factor_1, factor_1) + np.vdot(factor_2, factor_2)
    return max(0.0, float(shift @ shift + traces - 2 * shared))
