"""The crops of every step of the training of dense landmarks, out of a folder of renders that grows."""

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
"""Renders that the network is measured on, none of which it learns from."""


class Batches:
    """The renders of a recipe in `folder`: those to learn from, and those to measure on."""

    def __init__(self, recipe: Recipe, points: DensePoints, folder: Path) -> None:
        """Opens the folder; renders of other settings are rendered again."""
        self.recipe, self.points = recipe, points
        self.renders = Renders(folder, render_plan(recipe), recipe.workers)
        checks = RenderPlan(CHECKED, recipe.render_side, recipe.points, CHECKS)
        self.checks = Renders(folder / "checks", checks, recipe.workers)
        self._pool = ThreadPoolExecutor(recipe.workers)

    def prepare(self) -> None:
        """Make the renders that the first step and the measurements need: long work, which may be broken off."""
        self.renders.need(self.recipe.first)
        self.checks.need(CHECKED)
        some = np.array(self.renders.coefficients[: self.recipe.first])
        self.displacements = Displacements(self.points, some)

    def is_ready(self, step: int) -> bool:
        """Whether all renders that `step` draws from are there; `prepare_step` makes them."""
        return self.renders.ready >= self.available(step)

    def prepare_step(self, step: int) -> None:
        """Make the renders that `step` draws from and earlier ones did not: long work, which may be broken off."""
        self.renders.need(self.available(step))

    def available(self, step: int) -> int:
        """How many renders `step` draws from."""
        recipe = self.recipe
        return min(recipe.renders, recipe.first + recipe.growth * max(step, 0))

    def batch(self, step: int, device: torch.device) -> tuple[Tensor, Wanted]:
        """The crops of `step` [B, 3, side, side], and what is true of them; on `device`."""
        rng = np.random.default_rng([self.recipe.seed, step])
        chosen = rng.integers(0, self.available(step), (self.recipe.batch, 2))

        def prepare(at: int) -> Example:
            mine, other = chosen[at]
            return example(
                self.renders.pictures[mine], np.array(self.renders.points[mine]), self.points.mirror,
                self.renders.pictures[other], self.recipe.side, [self.recipe.seed, step, at], self.recipe.bend,
            )  # fmt: skip

        made = list(self._pool.map(prepare, range(self.recipe.batch)))
        coefficients = np.stack([self.renders.coefficients[mine] for mine, _ in chosen])
        codes = self.displacements.codes(coefficients, np.array([one.mirrored for one in made]))
        wanted = Wanted(
            torch.from_numpy(np.stack([one.points for one in made]).astype(np.float32)),
            torch.tensor([float(one.face) for one in made]),
            torch.from_numpy(codes.astype(np.float32)),
        )
        crops = to_input(np.stack([one.crop for one in made]))
        return crops.to(device), Wanted(*(part.to(device) for part in wanted))

    def mean_face(self) -> Tensor:
        """float32[N, 2]: where the points are on average, in shares of the square around them."""
        some = np.array(self.renders.points[: min(512, self.recipe.first)])
        squares = [square_around(one) for one in some]
        shares = [
            (one - (square.x, square.y)) / square.side + 0.5 for one, square in zip(some, squares, strict=True)
        ]  # fmt: skip
        mean = np.mean(shares, axis=0)
        mirrored = mean[self.points.mirror] * (-1, 1) + (1, 0)
        return torch.from_numpy(((mean + mirrored) / 2).astype(np.float32))

    @torch.no_grad()
    def check(self, network: DenseNet, device: torch.device) -> dict[str, float]:
        """The error of `network` on renders that are not trained on, cropped as a second look crops them.

        `error` is the mean distance of points in per cent of the longer side of the box around the face; `surprise`
        the root mean square of distances in predicted sigmas (1 where sigmas are right).
        """
        errors, surprises = [], []
        for start in range(0, CHECKED, 32):
            crops, wanted = [], []
            for picture, points in zip(
                self.checks.pictures[start : start + 32], self.checks.points[start : start + 32], strict=True
            ):
                square = square_around(points)
                corner = np.array([square.x, square.y]) - square.side / 2
                crops.append(take(picture, square, self.recipe.side))
                wanted.append((points - corner) * (self.recipe.side / square.side))
            seen = network(to_input(np.stack(crops)).to(device))
            truth = torch.from_numpy(np.stack(wanted)).to(device)
            squares = (seen.points - truth).square().sum(dim=2)
            boxes = (truth.amax(dim=1) - truth.amin(dim=1)).amax(dim=1)
            errors.append(100 * squares.sqrt().mean(dim=1) / boxes)
            surprises.append((squares / 2 * (-2 * seen.log_sigma).exp()).mean(dim=1))
        return {"error": torch.cat(errors).mean().item(), "surprise": torch.cat(surprises).mean().sqrt().item()}


def render_plan(recipe: Recipe) -> RenderPlan:
    """The renders that a recipe learns from."""
    return RenderPlan(recipe.renders, recipe.render_side, recipe.points)
