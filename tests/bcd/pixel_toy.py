"""Clips with exact targets, and settings, for the tests of the pixel path."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bcd.conftest import BlockClips

TINY: dict[str, Any] = {
    "train.clips": 6, "train.held_out": 2, "train.shift": 2, "train.frames": 4, "train.stride": 2, "train.steps": 4,
    "train.batch": 2, "train.log_every": 2, "train.checkpoint_every": 2,
}  # fmt: skip


class CrossedBlocks(BlockClips):
    """Block clips with exact targets: the colour of one with the walk of another."""

    def crossed(self, contents: Any, drivers: Any, frames: int, stride: int) -> np.ndarray:
        walks, colours = self.clips(drivers), self.clips(contents).max((1, 2, 3))
        painted = (walks.max(-1, keepdims=True) > 0) * colours[:, None, None, None]
        return painted[:, ::stride][:, :frames].astype(np.uint8)

    def crossed_points(self, contents: Any, drivers: Any, frames: int, stride: int) -> np.ndarray:
        lit = self.crossed(contents, drivers, frames, stride).max(-1) > 0
        points = np.full((*lit.shape[:2], 2, 2), np.nan, np.float32)
        for index in np.ndindex(lit.shape[:2]):
            rows, columns = np.nonzero(lit[index])
            points[index][0] = (columns.mean() + 0.5) / 16 - 1, (rows.mean() + 0.5) / 16 - 1
        return points

    def point_weights(self) -> np.ndarray:
        return np.array([1.0, 0.0], np.float32)
