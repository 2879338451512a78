"""A head of twelve points, its landmarks in block clips, and settings, for the tests of motion in landmarks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from bcd_bench_bcd.extensions.head_pose import projected, rotation_of
from tests.bcd.conftest import BlockClips

HEAD = np.random.default_rng(0).normal(0, 60, (12, 3)).astype(np.float32)
REST = np.array([0, 0, 1000], np.float32)
KNOWN = 8
TINY: dict[str, Any] = {
    "train.people": 24, "train.held_out": 8, "train.frames": 4, "train.shift": 5, "train.free_steps": 4,
    "train.steps": 8, "train.batch": 6, "train.warmup": 2, "train.log_every": 4, "train.checkpoint_every": 3,
    "train.translation_clips": 4, "train.translation_steps": 5, "landmarks.groups": 3, "landmarks.entries": 8,
    "landmarks.dim": 2, "landmarks.subject": 4,
}  # fmt: skip


class HeadClips(BlockClips):
    """Block clips, and points of a head whose size is the person and whose turn and place are the motion."""

    def random_points(self, people: Any, motions: Any, frames: int) -> tuple[np.ndarray, np.ndarray]:
        found = []
        for person, motion in zip(people, motions, strict=True):
            rng = np.random.default_rng(motion)
            turn = rotation_of(torch.from_numpy(rng.normal(0, 0.2, (frames, 6)).astype(np.float32)))
            place = torch.from_numpy(REST + rng.normal(0, 30, (frames, 3)).astype(np.float32))
            shape = torch.from_numpy(HEAD * (1 + 0.02 * (person % 7)))
            found.append(projected(shape, turn, place, 7.0).numpy())
        points = np.stack(found)
        return points, points[..., 0] < 0.3

    def mean_points(self) -> tuple[np.ndarray, np.ndarray, float]:
        return HEAD, REST, 7.0

    def point_skinning(self) -> np.ndarray:
        return np.array([[1.0, 0.0]] * len(HEAD), np.float32)

    def point_weights(self) -> np.ndarray:
        return np.linspace(0, 1, len(HEAD), dtype=np.float32)


class BlockLandmarks:
    """An extractor: the corners of the lit block and of its half; NaN in black frames."""

    identity: ClassVar = {"weights": "toy"}
    offsets = np.array([[x * s, y * s] for s in (4, 2) for x in (-1, 1) for y in (-1, 1)], np.float32)

    def load(self, device: str) -> None:
        del device

    def extract(self, clips: Any) -> list[dict[str, np.ndarray]]:
        return [{"points": np.stack([self.points(frame) for frame in clip.frames])} for clip in clips]

    def points(self, frame: np.ndarray) -> np.ndarray:
        rows, columns = np.nonzero(frame.max(-1))
        if not len(rows):
            return np.full((KNOWN, 2), np.nan, np.float32)
        return self.offsets + np.array([columns.mean() + 0.5, rows.mean() + 0.5], np.float32)
