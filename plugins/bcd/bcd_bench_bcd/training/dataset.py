"""The training split of a suite as used by a run: its number of clips and frames; cached in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.keypoint_supervision import KeypointSupervision
from bcd_bench_bcd.extensions.same_identity_pairs import SameIdentityPairs
from bcd_bench_bcd.presets.base import Preset

__all__ = ["KEPT_BYTES", "DeviceClips", "TrainingView", "codebook_clips", "training_view"]

KEPT_BYTES = 3 << 30
"""Memory for cached clips, in RAM and likewise on a GPU; clips are cached until it is full."""


def training_view(clips: TrainingClips, preset: Preset) -> TrainingClips:
    """`clips` as the preset needs them, or `clips` itself if no change is needed.

    Raises `UsageError` if the split has fewer clips than requested, no same-identity clip pairs, or no keypoints.
    """
    pairs = preset.extensions.get(SameIdentityPairs)
    if preset.extensions.get(KeypointSupervision) is not None and not hasattr(clips, "take_points"):
        raise UsageError(
            f"extension keypoint_supervision: the training split of {preset.train.suite!r} has no keypoints",
            hint="train without them: --set extensions.keypoint_supervision=null "
            "--set extensions.canonical_features.warp_start=0",
        )
    if preset.train.clips is None and pairs is None:
        return clips
    return TrainingView(clips, preset.train.suite, preset.train.clips, pairs)


def codebook_clips(draw: Callable[[int], Tensor], preset: Preset) -> Tensor:
    """Clips [B, T, ...] to initialise the codebook from: at least 64, and at least as many frames as it has entries.

    `draw(n)` returns n random clips.
    """
    count = max(preset.train.batch, 64)
    clips = draw(count)
    missing = -(-preset.model.quantizer.entries // clips.shape[1]) - count
    return torch.cat([clips, draw(missing)]) if missing > 0 else clips


class TrainingView:
    """The first clips of a training split, or same-identity clip pairs of it."""

    def __init__(
        self, clips: TrainingClips, suite: str, count: int | None = None, pairs: SameIdentityPairs | None = None
    ) -> None:
        if count is not None and count > len(clips):
            raise UsageError(f"--set train.clips={count}: suite {suite!r} has {len(clips)} training clips")
        if pairs is not None and not hasattr(clips, "takes"):
            raise UsageError(
                f"extension same_identity_pairs: the training split of {suite!r} has no same-identity clip pairs",
                hint="train on halves of one clip with --set extensions.same_identity_pairs=null",
            )
        self.fps = clips.fps / pairs.stride if pairs is not None else clips.fps
        self._clips: Any = clips
        self._pairs = pairs
        self._count = count or len(clips)
        self._kept: dict[int, npt.NDArray[np.uint8]] = {}
        self._points: dict[int, npt.NDArray[np.float32]] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return self._count

    def clips(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """uint8[B, T, H, W, 3]: whole clips, or both clips of each pair concatenated over time."""
        for index in indices:
            if not 0 <= index < self._count:
                raise IndexError(f"training clip {index} is out of range: {self._count} are used")
        return np.stack([self._one(int(index)) for index in indices])

    def keypoints(self, indices: Sequence[int]) -> npt.NDArray[np.float32]:
        """Keypoints in `clips` of the same indices, float32[B, T, P, 2] in -1..1; NaN if not visible."""
        assert self._pairs is not None
        for index in indices:
            if index not in self._points:
                self._points[index] = self._clips.take_points([index], self._pairs.frames, self._pairs.stride)[0]
        return np.stack([self._points[index] for index in indices])

    @property
    def rest_keypoints(self) -> npt.NDArray[np.float32]:
        """Keypoints on the canonical map, float32[P, 2]."""
        rest: npt.NDArray[np.float32] = self._clips.rest_points
        return rest

    def _one(self, index: int) -> npt.NDArray[np.uint8]:
        if index in self._kept:
            return self._kept[index]
        pairs = self._pairs
        batch = self._clips.clips([index]) if pairs is None else self._clips.takes([index], pairs.frames, pairs.stride)
        clip: npt.NDArray[np.uint8] = batch[0]
        if self._bytes + clip.nbytes <= KEPT_BYTES:
            self._kept[index] = clip
            self._bytes += clip.nbytes
        return clip


class DeviceClips:
    """The clips of a step on a device; on a GPU, clips of pixels are cached there."""

    def __init__(self, clips: Any, device: torch.device) -> None:
        self._clips, self._device = clips, device
        self._kept: dict[int, Tensor] = {}
        self._bytes = 0

    def batch(self, indices: Sequence[int], step: int = 0) -> Tensor:
        """uint8 [B, T, H, W, 3], or latents [B, T, C, h, w] of a cache (whose range of frames may depend on the
        step)."""
        if hasattr(self._clips, "latents"):
            latents: Tensor = self._clips.latents(indices, step)
            return latents.to(self._device)
        if self._device.type == "cpu":
            return torch.from_numpy(self._clips.clips(indices))
        fetched: dict[int, Tensor] = {}
        if missing := sorted({index for index in indices if index not in self._kept}):
            loaded = torch.from_numpy(self._clips.clips(missing)).to(self._device)
            fetched = dict(zip(missing, loaded, strict=True))
        for index, clip in fetched.items():
            if self._bytes + clip.nbytes <= KEPT_BYTES:
                self._kept[index] = clip.clone()  # a copy, else the whole batch would stay in memory
                self._bytes += clip.nbytes
        return torch.stack([self._kept[index] if index in self._kept else fetched[index] for index in indices])
