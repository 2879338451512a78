"""The training crops of every step of the dense landmark training, from a growing folder of renders."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bcd_bench_faces.dense_landmarks.augment import Example, example
from bcd_bench_faces.dense_landmarks.config import Recipe
from bcd_bench_faces.dense_landmarks.crops import square_around, take
from bcd_bench_faces.dense_landmarks.displacements import Displacements
from bcd_bench_faces.dense_landmarks.network import DenseNet, to_input
from bcd_bench_faces.dense_landmarks.objective import Wanted
from bcd_bench_faces.dense_landmarks.points import DensePoints
from bcd_bench_faces.dense_landmarks.renders import CHECKS, RenderPlan, Renders

__all__ = ["CHECKED", "Batches"]

CHECKED = 64
"""Number of validation renders, which are not trained on."""


class Batches:
    """The renders of a recipe in `folder`, for training and validation."""

    def __init__(self, recipe: Recipe, points: DensePoints, folder: Path) -> None:
        """Open the folder; renders with other settings are re-rendered."""
        self.recipe, self.points = recipe, points
        self.renders = Renders(folder, render_plan(recipe), recipe.workers)
        checks = RenderPlan(CHECKED, recipe.render_side, recipe.points, CHECKS)
        self.checks = Renders(folder / "checks", checks, recipe.workers)
        self._pool = ThreadPoolExecutor(recipe.workers)

    def prepare(self) -> None:
        """Render what the first step and the validation need; takes long and may be interrupted."""
        self.renders.need(self.recipe.first)
        self.checks.need(CHECKED)
        coefficients = np.array(self.renders.coefficients[: self.recipe.first])
        self.displacements = Displacements(self.points, coefficients)

    def is_ready(self, step: int) -> bool:
        """Whether all renders that `step` samples from are available; `prepare_step` renders them."""
        return self.renders.ready >= self.available(step)

    def prepare_step(self, step: int) -> None:
        """Render what `step` samples from and earlier steps did not; takes long and may be interrupted."""
        self.renders.need(self.available(step))

    def available(self, step: int) -> int:
        """Number of renders that `step` samples from."""
        recipe = self.recipe
        return min(recipe.renders, recipe.first + recipe.growth * max(step, 0))

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Wanted]:
        """The crops of `step` [B, 3, side, side] and their targets, on `device`."""
        rng = np.random.default_rng([self.recipe.seed, step])
        indices = rng.integers(0, self.available(step), (self.recipe.batch, 2))

        def prepare(at: int) -> Example:
            picked, cover = indices[at]
            return example(
                self.renders.pictures[picked], np.array(self.renders.points[picked]), self.points.mirror,
                self.renders.pictures[cover], self.recipe.side, [self.recipe.seed, step, at], self.recipe.bend,
            )  # fmt: skip

        examples = list(self._pool.map(prepare, range(self.recipe.batch)))
        coefficients = np.stack([self.renders.coefficients[index] for index, _ in indices])
        codes = self.displacements.codes(coefficients, np.array([example.mirrored for example in examples]))
        targets = Wanted(
            torch.from_numpy(np.stack([example.points for example in examples]).astype(np.float32)),
            torch.tensor([float(example.face) for example in examples]),
            torch.from_numpy(codes.astype(np.float32)),
        )
        crops = to_input(np.stack([example.crop for example in examples]))
        return crops.to(device), Wanted(*(part.to(device) for part in targets))

    def mean_face(self) -> Tensor:
        """Mean positions of the points, float32[N, 2], relative to the square around them."""
        points = np.array(self.renders.points[: min(512, self.recipe.first)])
        squares = [square_around(face_points) for face_points in points]
        shares = [
            (face - (square.x, square.y)) / square.side + 0.5 for face, square in zip(points, squares, strict=True)
        ]  # fmt: skip
        mean = np.mean(shares, axis=0)
        mirrored = mean[self.points.mirror] * (-1, 1) + (1, 0)
        return torch.from_numpy(((mean + mirrored) / 2).astype(np.float32))

    @torch.no_grad()
    def check(self, network: DenseNet, device: torch.device) -> dict[str, float]:
        """The error of `network` on the validation renders, cropped as in the second pass.

        `error` is the mean distance of points in percent of the longer side of the box around the face; `surprise` is
        the root mean square of distances in predicted sigmas (1 if the sigmas are right).
        """
        errors, surprises = [], []
        for start in range(0, CHECKED, 32):
            crops, targets = [], []
            for picture, points in zip(
                self.checks.pictures[start : start + 32], self.checks.points[start : start + 32], strict=True
            ):
                square = square_around(points)
                corner = np.array([square.x, square.y]) - square.side / 2
                crops.append(take(picture, square, self.recipe.side))
                targets.append((points - corner) * (self.recipe.side / square.side))
            prediction = network(to_input(np.stack(crops)).to(device))
            truth = torch.from_numpy(np.stack(targets)).to(device)
            squares = (prediction.points - truth).square().sum(dim=2)
            boxes = (truth.amax(dim=1) - truth.amin(dim=1)).amax(dim=1)
            errors.append(100 * squares.sqrt().mean(dim=1) / boxes)
            surprises.append((squares / 2 * (-2 * prediction.log_sigma).exp()).mean(dim=1))
        return {"error": torch.cat(errors).mean().item(), "surprise": torch.cat(surprises).mean().sqrt().item()}


def render_plan(recipe: Recipe) -> RenderPlan:
    """The training renders of a recipe."""
    return RenderPlan(recipe.renders, recipe.render_side, recipe.points)
