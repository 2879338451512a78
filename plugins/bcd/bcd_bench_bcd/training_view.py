"""What a training run sees of a suite's training split: how many clips, which frames; kept in memory once drawn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.errors import UsageError
from bcd_bench.specs import TrainingClips
from bcd_bench_bcd.configs import TrainConfig

__all__ = ["KEPT_BYTES", "DeviceClips", "TrainingView", "some_of_each_half", "training_view"]

KEPT_BYTES = 3 << 30
"""Memory for clips that have been looked at, and of a GPU as well: they are kept until it is full."""


def training_view(clips: TrainingClips, config: TrainConfig, *, points: bool = False) -> TrainingClips:
    """`clips` as `config` wants them, or `clips` itself where it wants nothing; with `points`, those of its takes.

    Raises `UsageError` where the split has fewer clips than asked for, no takes, or no points.
    """
    if config.clips is None and config.take_frames is None:
        return clips
    if points and not hasattr(clips, "take_points"):
        raise UsageError(
            f"--set objective.guide: the training split of {config.suite!r} does not say where points are",
            hint="train without guidance: --set objective.guide=0 --set objective.canvas_from=0",
        )
    return TrainingView(clips, config)


def some_of_each_half(frames: int, count: int, generator: torch.Generator) -> Tensor:
    """Indices int64 [2 * count] of `count` frames drawn from each half of `frames` frames, in order."""
    half = frames // 2
    first, second = (torch.randperm(half, generator=generator)[:count].sort().values for _ in range(2))
    return torch.cat([first, half + second])


class TrainingView:
    """The first clips of a training split, or two takes of each of its subjects."""

    def __init__(self, clips: TrainingClips, config: TrainConfig) -> None:
        if config.clips is not None and config.clips > len(clips):
            raise UsageError(
                f"--set train.clips={config.clips}: suite {config.suite!r} has {len(clips)} training clips"
            )
        if config.take_frames is not None and not hasattr(clips, "takes"):
            raise UsageError(
                f"--set train.take_frames={config.take_frames}: the training split of {config.suite!r} has no takes",
                hint="train on halves of one clip with --set train.take_frames=null",
            )
        self.fps = clips.fps / config.take_stride if config.take_frames else clips.fps
        self._clips: Any = clips
        self._config = config
        self._count = config.clips or len(clips)
        self._kept: dict[int, npt.NDArray[np.uint8]] = {}
        self._points: dict[int, npt.NDArray[np.float32]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def clips(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8[B, T, H, W, 3]: whole clips, or both takes of each subject behind one another."""
        for index in indices:
            if not 0 <= index < self._count:
                raise IndexError(f"training clip {index}: {self._count} are used")
        return np.stack([self._one(int(index)) for index in indices])

    def points(self, indices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Where the suite's points are in `clips` of the same indices, float32[B, T, P, 2] in -1..1; NaN: not seen."""
        for index in indices:
            if index not in self._points:
                frames, stride = self._config.take_frames, self._config.take_stride
                self._points[index] = self._clips.take_points([index], frames, stride)[0]
        return np.stack([self._points[index] for index in indices])

    @property
    def rest_points(self) -> npt.NDArray[np.float32]:
        """Where the points are on the canvas, float32[P, 2]."""
        rest: npt.NDArray[np.float32] = self._clips.rest_points
        return rest

    def _one(self, index: int) -> npt.NDArray[np.uint8]:
        if index in self._kept:
            return self._kept[index]
        frames, stride = self._config.take_frames, self._config.take_stride
        found = self._clips.clips([index]) if frames is None else self._clips.takes([index], frames, stride)
        clip: npt.NDArray[np.uint8] = found[0]
        if self._bytes + clip.nbytes <= KEPT_BYTES:
            self._kept[index] = clip
            self._bytes += clip.nbytes
        return clip


class DeviceClips:
    """The clips of a step on a device; on a GPU, those of pixels that have been looked at are kept there."""

    def __init__(self, clips: Any, device: torch.device) -> None:
        self._clips, self._device = clips, device
        self._kept: dict[int, Tensor] = {}
        self._bytes = 0

    def batch(self, indices: Sequence[int], step: int = 0) -> Tensor:
        """uint8 [B, T, H, W, 3], or latents [B, T, C, h, w] of a cache (which may choose another range of frames in
        another step).
        """
        if hasattr(self._clips, "latents"):
            latents: Tensor = self._clips.latents(indices, step)
            return latents.to(self._device)
        if self._device.type == "cpu":
            return torch.from_numpy(self._clips.clips(indices))
        fetched: dict[int, Tensor] = {}
        if missing := sorted({index for index in indices if index not in self._kept}):
            made = torch.from_numpy(self._clips.clips(missing)).to(self._device)
            fetched = dict(zip(missing, made, strict=True))
        for index, clip in fetched.items():
            if self._bytes + clip.nbytes <= KEPT_BYTES:
                self._kept[index] = clip.clone()  # of its own, or the whole batch would stay
                self._bytes += clip.nbytes
        return torch.stack([self._kept[index] if index in self._kept else fetched[index] for index in indices])
