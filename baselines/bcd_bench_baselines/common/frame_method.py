"""What native methods share: settings, loading, and frames in batches. A method adds its networks and its transfer."""

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
from bcd_bench.types.pair import Pair
from bcd_bench.util.devices import resolve_device

__all__ = ["CommonConfig", "FrameMethod"]

Frames = npt.NDArray[np.uint8]


class CommonConfig(BaseModel):
    """What `run --set` may change of every native method. A subclass adds the method's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seeded: int | None = Field(None, ge=0)
    """Pseudo-random weights of this seed in place of a published file: tries the plumbing and nothing else."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """In which convolutions and matrices are multiplied. Named, never guessed: it is part of a run's identity."""
    compile: bool = False
    """Whether the network is compiled (`torch.compile`) for this machine."""
    batch_frames: int = Field(16, ge=1)
    """Frames that go through the network together."""


class FrameMethod(ABC):
    """Transfers motion by making each frame from the source image (the content's first frame) and a driving frame.

    A subclass names its `Config`, loads its networks in `load_weights` and makes frames in `animate`.
    """

    Config: ClassVar[type[CommonConfig]] = CommonConfig
    name: ClassVar[str]
    how_to: ClassVar[str] = ""
    """How to get the weights, said where they are missing or do not fit."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = validate(self.Config, config, "--set", owner=self.name)

    def load(self, weights: Path | None, device: str) -> None:
        """Load the published file, or fill the networks from the seed of the setting `seeded`, onto `device`.

        Raises `UsageError` where there is neither or the file does not fit.
        """
        if weights is None and self.config.seeded is None:
            raise UsageError(f"method {self.name} needs weights: {self.how_to}", hint="--weights PATH")
        self.device = resolve_device(device)
        self.load_weights(weights)

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip]:
        """One clip a pair, as long as its motion clip and of its size. Pairs are done one by one, frames in batches,
        so that a pair's result does not depend on its company."""
        del seed  # nothing is drawn
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            yield Clip(self.animate(content.frames[0], motion.frames), motion.fps, pair.id)

    def autocast(self) -> torch.autocast:
        """The context of `dtype`, for what `animate` draws; sums, coordinates and samplings stay in float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.dtype == "bfloat16")

    def batches(self, count: int) -> Iterator[slice]:
        """Slices of `batch_frames` over `count` frames; the last may be shorter."""
        for start in range(0, count, self.config.batch_frames):
            yield slice(start, min(start + self.config.batch_frames, count))

    def full(self, batch: Tensor) -> Tensor:
        """A compiled network takes full batches only: a shorter one is filled up with copies of its last entry."""
        lacking = self.config.batch_frames - len(batch)
        if not self.config.compile or lacking <= 0:
            return batch
        return torch.cat([batch, batch[-1:].expand(lacking, *batch.shape[1:])])

    @abstractmethod
    def load_weights(self, weights: Path | None) -> None:
        """Build the networks on `self.device` from the file, or from `self.config.seeded` where there is none."""

    @abstractmethod
    def animate(self, source: Frames, driving: Frames) -> Frames:
        """uint8[H, W, 3] moved as uint8[T, H', W', 3] does: uint8[T, H', W', 3]."""
