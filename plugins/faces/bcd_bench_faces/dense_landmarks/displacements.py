"""Training targets for identities and expressions: the displacements of face points that they cause."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.dense_landmarks.points import DensePoints, displacements_of

__all__ = ["Displacements"]

Floats = npt.NDArray[np.float64]
LEAST: Final = 0.15
"""Minimum standard deviation used to scale a displacement, relative to the mean: points that hardly move count
little."""


class Displacements:
    """Codes for the coefficients of the head model in which equal distances are equally large displacements.

    The likelihood of points alone is hardly affected by an open mouth or closed lids: expressions move the points by
    0.8 mm on average, identities by 2.6 mm. Here the displacement (x, y, z) of every point is scaled by its standard
    deviation, separately for identity and expression and independently of the pose. The squared distance of two codes
    is the mean square of both kinds of displacement, in standard deviations: 2 for two random faces. There are as many
    codes as coefficients: K of identity, then E of expression.
    """

    def __init__(self, points: DensePoints, coefficients: npt.NDArray[np.float32]) -> None:
        """Compute the standard deviations from random faces with `coefficients` [n, K + E]."""
        self._encode = np.zeros((coefficients.shape[1], coefficients.shape[1]))
        self._mirrored = np.zeros_like(self._encode)
        start = 0
        for moved, mirrored in displacements_of(points):
            part = slice(start, start + len(moved))
            start += len(moved)
            displacements = np.tensordot(coefficients[:, part].astype(np.float64), moved, 1)
            deviation = displacements.std(axis=0)
            deviation = (deviation + deviation[points.mirror]) / 2
            deviation = np.maximum(deviation, LEAST * deviation.mean()) * np.sqrt(2 * deviation.size)
            orthonormal, self._encode[part, part] = np.linalg.qr((moved / deviation).reshape(len(moved), -1).T)
            self._mirrored[part, part] = orthonormal.T @ (mirrored / deviation).reshape(len(moved), -1).T

    def codes(self, coefficients: npt.NDArray[np.floating], mirrored: npt.NDArray[np.bool_]) -> Floats:
        """Codes float64[B, K + E] of faces with `coefficients` [B, K + E], or of their mirror images if `mirrored`
        [B]."""
        return np.where(mirrored[:, None], coefficients @ self._mirrored.T, coefficients @ self._encode.T)

    @property
    def decoder(self) -> Floats:
        """float64[K + E, K + E]: the matrix that maps codes to coefficients."""
        return np.asarray(np.linalg.inv(self._encode))
