"""The training renders of the dense landmarks, each with a different person, face, head pose, light and backdrop.

Stored as memory-mapped arrays and rendered in blocks, so that an interrupted run can be resumed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bcd_bench.io.atomic import write_json_atomic
from bcd_bench.util.progress import NoProgress, Progress, open_progress
from bcd_bench_faces.dense_landmarks.crop_renderer import WindowActor
from bcd_bench_faces.dense_landmarks.crops import square_around
from bcd_bench_faces.dense_landmarks.points import dense_points, project
from bcd_bench_faces.head_model.face_region import head_model_sha256
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.synthesis.appearance import random_look
from bcd_bench_faces.synthesis.renderer import RENDERER_VERSION
from bcd_bench_faces.synthesis.sampling import IDENTITY_LIMIT, motion_of

__all__ = ["CHECKS", "RenderPlan", "Renders", "Shot", "coefficient_count", "shoot"]

FIRST: Final = 10_000_000
"""First motion number of the training split: none of these motions is in a suite's clips."""
SEED: Final = 20_000
BLOCK: Final = 32
"""Renders that share one painted appearance, and that are written at once."""
CHECKS: Final = 1_000_000
"""First number of the validation renders; training uses smaller numbers.

No training uses as many renders."""
WINDOW: Final = 1.5
"""Side of the picture relative to the square around the face: leaves room to rotate, shift and shrink it."""


@dataclass(frozen=True)
class RenderPlan:
    """A set of renders: their number, size, number of points, and first number (whole blocks)."""

    count: int
    side: int
    points: int
    start: int = 0

    def description(self) -> dict[str, Any]:
        """Everything that determines the bytes of the renders."""
        return {
            **asdict(self),
            "head": head_model_sha256(),
            "renderer": RENDERER_VERSION,
            "window": WINDOW,
            "recipe": 2,
        }


@dataclass(frozen=True)
class Shot:
    """The contents of one render. Arrays as in `synthesis.sampling.Motion`, for one frame."""

    identity: npt.NDArray[np.float32]
    expression: npt.NDArray[np.float32]
    rotation: npt.NDArray[np.float32]
    translation: npt.NDArray[np.float32]


def shoot(number: int) -> Shot:
    """Sample a face by number: mostly as in the suites, occasionally beyond their range."""
    rng = np.random.default_rng([SEED, number, 0])
    names = HeadModel.load().bust_expression_names
    components = len(HeadModel.load().bust_identity)
    identity = rng.standard_normal(components).clip(-IDENTITY_LIMIT, IDENTITY_LIMIT) * rng.uniform(0.8, 1.25)
    motion = motion_of("train", FIRST + number, 12)
    frame = int(rng.integers(len(motion)))
    expression, rotation, shift = motion.expression[frame].copy(), motion.rotation[frame], motion.translation[frame]
    if rng.uniform() < 0.35:
        for action in rng.choice(len(names), int(rng.integers(1, 5)), replace=False):
            if names[action] != "tongueOut":
                expression[action] = max(expression[action], rng.uniform(0, 0.8))
    if rng.uniform() < 0.15:
        for side in ("Left", "Right"):
            expression[names.index("eyeBlink" + side)] = rng.uniform(0.2, 1)
    if rng.uniform() < 0.3:
        more = Rotation.from_euler("yxz", rng.normal(0, (16, 10, 8)), degrees=True).as_matrix()
        turned = more @ rotation
        if turned[2, 2] > 0.55:  # at most about 57 degrees from frontal
            rotation = turned.astype(np.float32)
    if rng.uniform() < 0.4:
        shift = shift * np.array([1, 1, rng.uniform(0.6, 1.6)], np.float32)
    return Shot(identity.astype(np.float32), expression, rotation, shift)


def _block(
    block: int, plan: RenderPlan
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The renders of a block, the positions of their points (pixels), and the coefficients of their faces."""
    count, start = min(BLOCK, plan.count - block * BLOCK), plan.start + block * BLOCK
    vertices = dense_points(plan.points).vertices
    index = HeadModel.load().expression_index
    look = random_look(np.random.default_rng([SEED, start // BLOCK, 1]))
    painted: WindowActor | None = None
    pictures = np.empty((count, plan.side, plan.side, 3), np.uint8)
    points = np.empty((count, len(vertices), 2), np.float32)
    coefficients = np.empty((count, coefficient_count()), np.float32)
    for at in range(count):
        rng = np.random.default_rng([SEED, start + at, 2])
        shot, scene = shoot(start + at), random_look(rng)
        lit = replace(
            look,
            **{name: getattr(scene, name) for name in ("key", "key_colour", "fill", "ambient", "ground", "background")},
        )
        painted = painted or WindowActor(shot.identity, look)
        actor = painted.shaped(shot.identity, lit)
        [projected] = project(
            vertices, shot.identity, shot.expression[None, index], shot.rotation[None], shot.translation[None]
        )
        square = square_around(projected)
        side = square.side * WINDOW
        x, y = np.array([square.x, square.y]) - side / 2 + rng.normal(0, 0.02, 2).clip(-0.04, 0.04) * side
        pictures[at] = actor.window(shot.expression, shot.rotation, shot.translation, plan.side, (x, y, side))
        points[at] = (projected - (x, y)) * (plan.side / side)
        coefficients[at] = np.concatenate([shot.identity, shot.expression[index]])
    return pictures, points, coefficients


def coefficient_count() -> int:
    """Number of identity and expression coefficients of `HeadModel`."""
    head = HeadModel.load()
    return len(head.identity) + len(head.expression)


class Renders:
    """The renders of a plan in a folder, rendered on demand and cached; those of another plan are re-rendered.

    `pictures` uint8[n, side, side, 3], `points` float32[n, N, 2] in their pixels and `coefficients` float32[n, K + E]
    (identity, expression) are memory-mapped; `ready` is the number of available renders.
    """

    def __init__(self, folder: Path, plan: RenderPlan, workers: int = 1) -> None:
        self._state, self._plan, self._workers = folder / "renders.json", plan, workers
        folder.mkdir(parents=True, exist_ok=True)
        mode: Any = "r+" if self._blocks_done() else "w+"
        count = len(dense_points(plan.points).vertices)
        shapes = (plan.count, plan.side, plan.side, 3), (plan.count, count, 2)
        self.pictures = np.lib.format.open_memmap(folder / "pictures.npy", mode, np.uint8, shapes[0])
        self.points = np.lib.format.open_memmap(folder / "points.npy", mode, np.float32, shapes[1])
        self.coefficients = np.lib.format.open_memmap(
            folder / "coefficients.npy", mode, np.float32, (plan.count, coefficient_count())
        )
        self.ready = min(self._blocks_done() * BLOCK, plan.count)

    def need(self, count: int) -> None:
        """Render the missing renders before number `count`; whole blocks survive a Ctrl-C."""
        if count <= self.ready:
            return
        finished, last = self._blocks_done(), -(-min(count, self._plan.count) // BLOCK)
        if last - finished < 4:  # too short for a progress bar
            self._make(finished, last, NoProgress())
        else:
            self._make(finished, last, open_progress())
        self.ready = min(max(finished, last) * BLOCK, self._plan.count)

    def _make(self, done: int, last: int, progress: Progress) -> None:
        total = min(last * BLOCK, self._plan.count)
        with progress.task("render", total=total, done=min(done * BLOCK, total), unit="renders") as task:
            arrays = (self.pictures, self.points, self.coefficients)
            for block, rows_of in self._drawn(range(done, last)):
                some = rows_of[0]
                for array, rows in zip(arrays, rows_of, strict=True):
                    array[block * BLOCK : block * BLOCK + len(some)] = rows
                    array.flush()
                write_json_atomic(self._state, {**self._plan.description(), "blocks": block + 1})
                task.advance(len(some))

    def _blocks_done(self) -> int:
        """Number of blocks of this plan in the folder."""
        if not self._state.is_file():
            return 0
        saved: dict[str, Any] = json.loads(self._state.read_text())
        finished = saved.pop("blocks")
        return int(finished) if saved == self._plan.description() else 0

    def _drawn(self, blocks: range) -> Iterator[tuple[int, tuple[npt.NDArray[Any], ...]]]:
        """Render blocks in order, on as many processes as there are workers."""
        plans = [self._plan] * len(blocks)
        with nullcontext() if self._workers == 1 else ProcessPoolExecutor(self._workers) as pool:
            yield from zip(blocks, (map if pool is None else pool.map)(_block, blocks, plans), strict=True)
