"""How wrong told identities and expressions are, measured where they move the points of the face."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench_faces.dense.points import DensePoints
from bcd_bench_faces.head.model import HeadModel

__all__ = ["Displacements"]

LEAST: Final = 0.15
"""Least deviation that a displacement is measured in, in means of all of them: what hardly moves counts little."""


class Displacements:
    """The error of coefficients in deviations of the displacements (x, y, z of every point) that they cause.

    The likelihood of points alone hardly notices an open mouth or closed lids: expressions move the points by 0.8 mm on
    average, identities by 2.6 mm. Here every point's displacement counts by its own deviation, expression beside
    identity, and no pose hides them.
    """

    def __init__(
        self, points: DensePoints, coefficients: npt.NDArray[np.float32], device: torch.device | str = "cpu"
    ) -> None:
        """Deviations are those of some faces with `coefficients` [n, K + E]."""
        head = HeadModel.load()
        self._count = len(head.identity)
        self._bases = tuple(
            torch.from_numpy(np.ascontiguousarray(basis[:, points.vertices], np.float32)).flatten(1).to(device)
            for basis in (head.identity, head.expression)
        )
        self._mirror = torch.from_numpy(points.mirror).long().to(device)
        self._flip = torch.tensor([-1.0, 1.0, 1.0], device=device)
        self._deviations = []
        for moved in self._displacements(torch.from_numpy(coefficients).to(device)):
            deviation = moved.std(dim=0)
            deviation = (deviation + deviation[self._mirror]) / 2
            self._deviations.append(deviation.clamp(min=LEAST * deviation.mean().item()))

    def error(self, told: Tensor, true: Tensor, mirrored: Tensor, face: Tensor) -> Tensor:
        """Mean square over the examples with a face (`face` float[B] of 0 and 1); about 1 where the mean face is told.

        `told` and `true` float[B, K + E]; where `mirrored` (bool[B]), the mirror image of the true face is meant.
        """
        parts = []
        pairs = zip(self._displacements(told), self._displacements(true), self._deviations, strict=True)
        for mine, wanted, deviation in pairs:
            wanted = torch.where(mirrored[:, None, None], wanted[:, self._mirror] * self._flip, wanted)
            parts.append(((mine - wanted) / deviation).square().mean(dim=(1, 2)))
        return (sum(parts) / 2 * face).sum() / face.sum().clamp(min=1)

    def _displacements(self, coefficients: Tensor) -> list[Tensor]:
        """By identity and by expression, float[B, N, 3] in mm."""
        split = coefficients.split([self._count, coefficients.shape[1] - self._count], dim=1)
        return [(part @ basis).unflatten(1, (-1, 3)) for part, basis in zip(split, self._bases, strict=True)]
