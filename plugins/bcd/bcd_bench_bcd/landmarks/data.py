"""Training data of motion in landmarks: positions of points of rendered heads, which need no rendering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress
from bcd_bench_bcd.landmarks.config import LandmarkTrainConfig
from bcd_bench_bcd.landmarks.prepared import prepared

__all__ = ["FILE", "Batch", "People", "PointClips", "Points", "compute_points", "point_clips", "prepare_points"]

FORMAT = "bcd-points-1"
FILE = "points.safetensors"


class PointClips(TrainingClips, Protocol):
    """A training split that gives positions of points of its heads in motion."""

    def random_points(
        self, people: Sequence[int], motions: Sequence[int], frames: int
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Positions float32 [B, frames, P, 2] of the points of people in motions (any numbers), in random frames that
        depend on the motion only, x and y in -1..1; and whether they face the camera."""

    def mean_points(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
        """The points of the mean head, float32 [P, 3] in mm relative to the joint of head and neck, the position [3] of
        this joint at rest relative to the camera, and the focal length in half sides."""

    def point_skinning(self) -> npt.NDArray[np.float32]:
        """Shares float32 [P, 2] by which the points turn with the head and with the neck; the rest does not turn."""

    def point_weights(self) -> npt.NDArray[np.float32]:
        """How much expressions move every point, float32 [P] in 0..1."""


@dataclass
class Points:
    """Positions of P points in the frames of N clips."""

    points: Tensor
    """float16 [N, T, P, 2]"""
    facing: Tensor
    """bool [N, T, P]"""


@dataclass
class People:
    """N people, each in a motion of their own and in that of another."""

    own: Points
    crossed: Points


@dataclass
class Batch:
    """Positions of the points of B people: content [B, S, P, 2], and with another motion [B, T, P, 2]."""

    content: Tensor
    content_facing: Tensor
    target: Tensor
    target_facing: Tensor
    content_offsets: Tensor
    driver_offsets: Tensor


def point_clips(clips: TrainingClips, suite: str) -> PointClips:
    """`clips`, if they give points; else raises `UsageError`."""
    if not all(hasattr(clips, name) for name in ("random_points", "mean_points", "point_skinning", "point_weights")):
        raise UsageError(
            f"suite {suite!r} has no points of heads for training", hint="use --set train.suite=heads-cross-128"
        )
    return clips  # type: ignore[return-value]


def prepare_points(clips: PointClips, config: LandmarkTrainConfig, folder: Path, others: Sequence[Path] = ()) -> People:
    """Compute the points, or read those of an earlier call from `folder`, or of a training in one of `others`.

    Raises `UsageError` for a file of other settings.
    """
    header = {"format": FORMAT, "data": config.model_dump_json(include={"suite", "people", "shift", "frames"})}

    def compute() -> dict[str, Tensor]:
        people = compute_points(clips, config)
        own, crossed = people.own, people.crossed
        return {
            "own": own.points, "own_facing": own.facing, "crossed": crossed.points, "crossed_facing": crossed.facing
        }  # fmt: skip

    tensors = prepared(folder / FILE, header, "points", compute, others)
    return People(
        Points(tensors["own"], tensors["own_facing"].bool()),
        Points(tensors["crossed"], tensors["crossed_facing"].bool()),
    )


def compute_points(clips: PointClips, config: LandmarkTrainConfig) -> People:
    """The points of all people of `config`, each in a motion of their own and in that of another."""
    parts: list[list[Tensor]] = [[], [], [], []]
    with open_progress().task("compute points", total=config.people, unit="people") as task:
        for person in range(config.people):
            other = (person + config.shift) % config.people
            for motion, into in ((person, parts[:2]), (other, parts[2:])):
                points, facing = clips.random_points([person], [motion], config.frames)
                into[0].append(torch.from_numpy(points).half())
                into[1].append(torch.from_numpy(facing))
            task.advance()
    own, own_facing, crossed, crossed_facing = (torch.cat(part) for part in parts)
    return People(Points(own, own_facing), Points(crossed, crossed_facing))
