"""HyperReenact as a method: landmark-based crops, one code for the source, one set of changed weights per driving
frame.

The original detects 68 landmarks with two separate detectors; here they are the closest points of the extractor
`mediapipe-landmarks`, so that crops differ by a few pixels. There is no relative mode: the pose is always that of the
driving clip.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.devices import resolve_device
from bcd_bench_baselines.common.landmarks import EXTRACTOR, POINTS_68
from bcd_bench_baselines.hyperreenact.geometry import aligned_face, arcface_affine, pose_crop, square_crop
from bcd_bench_baselines.hyperreenact.model import HyperReenact, to_signed

__all__ = ["HyperReenactMethod", "to_uint8"]

SEEN = 0.5
"""Minimum fraction of driving frames that show a face."""
LEVELS = 2 + 1e-5
"""Width of the range -1..1 used by the original when converting to grey levels."""


class HyperReenactMethod:
    """Settings: `batch_frames`, the number of frames per batch; `mean_seed`, the seed of the random codes towards whose
    mean the source's code is truncated (the original samples them again at each start)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._batch, self._seed = config["batch_frames"], config["mean_seed"]
        for name, value, least in (("batch_frames", self._batch, 1), ("mean_seed", self._seed, 0)):
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise UsageError(f"{name}={value!r} must be a whole number of at least {least}")

    def load(self, weights: Path | None, device: str) -> None:
        """Load the five published files from a folder. Raises `UsageError` if they are missing or do not fit."""
        if weights is None:
            raise UsageError(
                "method 'hyperreenact' requires the original's folder pretrained_models", hint="--weights FOLDER"
            )
        self._device = resolve_device(device)
        self._model = HyperReenact.load(weights).to(self._device)
        with torch.inference_mode():
            self._mean = self._model.generator.mean_code(self._seed)

    @torch.inference_mode()
    def transfer(
        self, pairs: Sequence[Pair], *, seed: int, features: Sequence[Mapping[str, Mapping[str, Any]]]
    ) -> Iterator[Clip | Failed]:
        """Process pairs one by one: the first content frame with a face, in the pose of every driving frame."""
        del seed
        for pair, pair_features in zip(pairs, features, strict=True):
            yield self._one(pair, pair_features[EXTRACTOR]["content"], pair_features[EXTRACTOR]["motion"])

    def _one(self, pair: Pair, content: Any, motion: Any) -> Clip | Failed:
        for role, role_features in (("content", content), ("driving clip", motion)):
            if isinstance(role_features, Failed):
                return Failed(f"{role}: {role_features.reason}")
        content_points, driving = _landmarks(content), _landmarks(motion)
        with_face = np.flatnonzero(np.isfinite(content_points).all((1, 2)))
        has_face = np.asarray(np.isfinite(driving).all((1, 2)))
        if not len(with_face):
            return Failed(f"content: none of {len(content_points)} frames shows a face")
        if has_face.mean() < SEEN:
            return Failed(f"driving clip: only {has_face.sum()} of {len(driving)} frames show a face")
        nearest = np.flatnonzero(has_face)[
            np.abs(np.arange(len(has_face))[:, None] - np.flatnonzero(has_face)).argmin(1)
        ]
        first, clip = int(with_face[0]), pair.motion.load()
        try:
            picture, points = square_crop(pair.content.load().frames[first], content_points[first])
            poses = [self._pose(clip.frames[index], driving[index]) for index in nearest]
        except ValueError as error:
            return Failed(str(error))
        source = to_signed(torch.tensor(picture[None])).to(self._device)
        encoded = self._model.source(source, aligned_face(source, arcface_affine(points)), self._mean)
        frames = [
            to_uint8(self._model.frames(encoded, torch.cat(poses[start : start + self._batch])))
            for start in range(0, len(poses), self._batch)
        ]
        return Clip(_resized(np.concatenate(frames), clip.frames.shape[1:3]), clip.fps, pair.id)

    def _pose(self, frame: npt.NDArray[np.uint8], landmarks: npt.NDArray[np.float64]) -> Tensor:
        crop, points = square_crop(frame, landmarks)
        pixels = torch.tensor(crop[None]).to(self._device).permute(0, 3, 1, 2).float() * (2 / LEVELS)
        return pose_crop(pixels, points)


def to_uint8(values: Tensor) -> npt.NDArray[np.uint8]:
    """float[B, 3, H, W] in about -1..1 -> uint8[B, H, W, 3] as in the original: clipped, then rounded down."""
    levels = ((values.clamp(-1, 1) + 1) / LEVELS * 255).to(torch.uint8)
    frames: npt.NDArray[np.uint8] = levels.permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return frames


def _landmarks(features: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """float64[T, 68, 2] in pixels, NaN without a face."""
    return np.asarray(features["points"], np.float64)[:, POINTS_68, :2]


def _resized(frames: npt.NDArray[np.uint8], size: Sequence[int]) -> npt.NDArray[np.uint8]:
    if frames.shape[1:3] == tuple(size):
        return frames
    height, width = size
    kernel = Image.Resampling.BICUBIC
    return np.stack([np.asarray(Image.fromarray(frame).resize((width, height), kernel)) for frame in frames])
