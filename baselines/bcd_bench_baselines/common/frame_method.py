"""Common parts of native methods: settings, loading, and frames in batches. A method adds its networks and transfer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from bcd_bench.plugin.settings import validate
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.devices import resolve_device

__all__ = ["CommonConfig", "FrameMethod"]

Frames = npt.NDArray[np.uint8]


class CommonConfig(BaseModel):
    """Settings of every native method that `run --set` may change. A subclass adds method-specific ones."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeded: int | None = Field(None, ge=0)
    """Seed of random weights used instead of a published file, to test the pipeline only."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision of convolutions and matrix products. Set explicitly, since it is part of the run's fingerprint."""
    compile: bool = False
    """Whether to compile the network for this machine (`torch.compile`)."""
    batch_frames: int = Field(16, ge=1)
    """Number of frames per batch."""


class FrameMethod(ABC):
    """Base class of methods that compute each frame from the source image (the content's first frame) and a driving
    frame.

    A subclass sets its `Config`, loads its networks in `load_weights` and computes frames in `animate`.
    """

    Config: ClassVar[type[CommonConfig]] = CommonConfig
    name: ClassVar[str]
    how_to: ClassVar[str] = ""
    """How to get the weights; shown if they are missing or do not fit."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = validate(self.Config, config, "--set", owner=self.name)

    def load(self, weights: Path | None, device: str) -> None:
        """Load the published file, or random weights from the seed in the setting `seeded`, onto `device`.

        Raises `UsageError` if neither is given or the file does not fit.
        """
        if weights is None and self.config.seeded is None:
            raise UsageError(f"method {self.name} needs weights: {self.how_to}", hint="--weights PATH")
        self.device = resolve_device(device)
        self.load_weights(weights)

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """Yield one clip per pair, with the length and size of its motion clip. Pairs are processed one by one, frames
        in batches, so that the result of a pair does not depend on other pairs."""
        del seed  # the method is deterministic
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            yield Clip(self.animate(content.frames[0], motion.frames), motion.fps, pair.id)

    def autocast(self) -> torch.autocast:
        """The context of `dtype`, for computing images in `animate`; sums, coordinates and sampling stay in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def batches(self, count: int) -> Iterator[slice]:
        """Slices of `batch_frames` over `count` frames; the last may be shorter."""
        for start in range(0, count, self.config.batch_frames):
            yield slice(start, min(start + self.config.batch_frames, count))

    def full(self, batch: Tensor) -> Tensor:
        """Pad a batch to full size with copies of its last entry if the network is compiled, which requires full
        batches."""
        lacking = self.config.batch_frames - len(batch)
        if not self.config.compile or lacking <= 0:
            return batch
        return torch.cat([batch, batch[-1:].expand(lacking, *batch.shape[1:])])

    @abstractmethod
    def load_weights(self, weights: Path | None) -> None:
        """Build the networks on `self.device` from the file, or from `self.config.seeded` if there is none."""

    @abstractmethod
    def animate(self, source: Frames, driving: Frames) -> Frames:
        """Animate uint8[H, W, 3] by uint8[T, H', W', 3]: uint8[T, H', W', 3]."""
