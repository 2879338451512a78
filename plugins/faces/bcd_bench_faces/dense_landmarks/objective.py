"""The training loss of the dense landmark network."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from torch.nn import functional

from bcd_bench_faces.dense_landmarks.config import Recipe
from bcd_bench_faces.dense_landmarks.network import Seen

__all__ = ["Losses", "Wanted", "likelihood", "training_loss"]


class Wanted(NamedTuple):
    """Training targets of B crops."""

    points: Tensor
    """float32[B, N, 2] in pixels of the crop"""
    face: Tensor
    """float32[B]: 1 if the crop shows a face, else 0"""
    codes: Tensor
    """float32[B, K + E]: its identity and expression codes, see `Displacements`"""


class Losses(NamedTuple):
    """Scalars: the total, and two of its terms before weighting."""

    loss: Tensor
    face: Tensor
    """Cross-entropy of face or no face."""
    shape: Tensor
    """Squared error of identity and expression."""


def training_loss(seen: Seen, wanted: Wanted, recipe: Recipe) -> Losses:
    """The loss of B crops: likelihood of the points, cross-entropy of face or no face, and shape error."""
    face = wanted.face
    cross = functional.binary_cross_entropy_with_logits(seen.face, face)
    distance = (seen.codes - wanted.codes).square().sum(dim=1)
    shape = (distance * face).sum() / face.sum().clamp(min=1)
    points = likelihood(seen, wanted.points, face, recipe.beta)
    return Losses(points + recipe.face_weight * cross + recipe.shape_weight * shape, cross, shape)


def likelihood(seen: Seen, points: Tensor, face: Tensor, beta: float) -> Tensor:
    """Gaussian negative log-likelihood of the points (Wood et al., ECCV 2022, eq. 1) over the examples with a face.

    Points are weighted by their sigma to the power of 2 beta, so that hard points are not given up early.
    """
    squares = (seen.points - points).square().sum(dim=2)
    loss = squares / 2 * (-2 * seen.log_sigma).exp() + 2 * seen.log_sigma
    weighted = loss * (2 * beta * seen.log_sigma.detach()).exp()
    return (weighted.mean(dim=1) * face).sum() / face.sum().clamp(min=1)
