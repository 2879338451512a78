"""A folder of latents of videos, encoded once: shards in safetensors, read memory-mapped, and what is known of them.

cache.json               what the latents are, their statistics, every shard with its hash, what was left out; last
shards/00000.safetensors one tensor a video: bfloat16 [T, C, h, w], the means of the latents
shards/00000.json        the shard's hash, its videos, those left out and why, and its share of the statistics
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from bcd_bench.plugin.settings import first_error
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.paper.config import LatentConfig
from bcd_bench_bcd.presets.base import Preset

__all__ = [
    "CACHE",
    "SHARDS",
    "CacheIndex",
    "LatentClips",
    "LeftOut",
    "MeasuredLatents",
    "Shard",
    "Video",
    "read_index",
]

CACHE = "cache.json"
SHARDS = "shards"
FORMAT: Literal["bcd-latents-1"] = "bcd-latents-1"
OPEN_SHARDS = 64
"""Files that are mapped at once; others are opened again when they are needed."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Video(_Record):
    """One video in a shard."""

    id: str
    frames: int


class LeftOut(_Record):
    """A video that could not be used, and why."""

    id: str
    reason: str


class Shard(_Record):
    """What one file of latents holds."""

    file: str
    sources: str
    """Hash over the videos it was to hold, by name and content, and over how they are encoded."""
    sha256: str
    size: int
    videos: tuple[Video, ...]
    left_out: tuple[LeftOut, ...]
    count: int
    """Latent values a channel, over which `sums` and `squares` (by channel) run."""
    sums: tuple[float, ...]
    squares: tuple[float, ...]


class MeasuredLatents(LatentConfig):
    """A latent space with what was measured of it over all videos."""

    sha256: str
    """Of the autoencoder."""
    mean: tuple[float, ...]
    """Mean of every channel."""
    std: tuple[float, ...]
    """Standard deviation of every channel."""


class CacheIndex(_Record):
    """The whole of a cache, as in `cache.json`."""

    format: Literal["bcd-latents-1"] = FORMAT
    suite: str
    latent: MeasuredLatents
    channels: int
    frame_size: tuple[int, int]
    frame_step: int
    fps: float
    """Frames a second of what is kept: the videos' divided by `frame_step`."""
    shards: tuple[Shard, ...]
    unusable: tuple[str, ...] = ()
    """Files that no shard was to hold, a line each with the reason: what the suite could not read."""

    @property
    def videos(self) -> int:
        return sum(len(shard.videos) for shard in self.shards)

    @property
    def frames(self) -> int:
        return sum(video.frames for shard in self.shards for video in shard.videos)


def read_index(folder: Path) -> CacheIndex:
    """The index of a cache. Raises `UsageError` if there is none, if it is unfinished or of another format."""
    path = folder / CACHE
    try:
        return CacheIndex.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        begun = (folder / SHARDS).is_dir()
        why = "is not finished" if begun else f"holds no latents ({error.strerror})"
        hint = "the command that made it, again" if begun else "bcd-bench prepare bcd makes such a folder"
        raise UsageError(f"{folder}: {why}", hint=hint) from None
    except ValidationError as error:
        raise UsageError(f"{path}: damaged or of another version: {first_error(error)}") from None


class LatentClips:
    """Training clips of `clip_frames` frames out of a cache, without overlap; shorter videos give none.

    Raises `UsageError` if the cache is of another autoencoder, size or frame step than the preset needs, if a shard is
    missing or cut short, and if no video is long enough.
    """

    def __init__(self, folder: Path, preset: Preset) -> None:
        self.folder, self.index = folder, read_index(folder)
        self.fps = self.index.fps
        self._check(preset)
        self.length = preset.train.clip_frames or min(v.frames for s in self.index.shards for v in s.videos)
        self._where: list[tuple[int, str, int, int]] = []
        """Of each clip: shard, video, first frame, and how far it may be moved on."""
        self.too_short = 0
        for number, shard in enumerate(self.index.shards):
            for video in shard.videos:
                count = video.frames // self.length
                self.too_short += not count
                slack = video.frames - count * self.length
                self._where += [(number, video.id, place * self.length, slack) for place in range(count)]
        if not self._where:
            raise UsageError(
                f"{folder}: no video has {self.length} frames at {self.fps:g} a second",
                hint="--set train.clip_frames=N",
            )
        self._open: OrderedDict[int, Any] = OrderedDict()

    @property
    def latent(self) -> MeasuredLatents:
        """The latent space with what was measured of it."""
        return self.index.latent

    def __len__(self) -> int:
        return len(self._where)

    def latents(self, indices: Sequence[int], step: int = 0) -> Tensor:
        """bfloat16 [B, T, C, h, w] of B clips. What a video has beyond whole clips lets their frames differ by step."""
        return torch.stack([self._latents(index, step) for index in indices])

    def _latents(self, index: int, step: int) -> Tensor:
        number, video, start, slack = self._where[index]
        start += (index * 7919 + step * 104729) % (slack + 1)
        part: Tensor = self._shard(number).get_slice(video)[start : start + self.length]
        return part

    def _shard(self, number: int) -> Any:
        from safetensors import SafetensorError, safe_open

        if number not in self._open:
            path = self._path(number)
            try:
                self._open[number] = safe_open(path, "pt")
            except (SafetensorError, OSError) as error:
                raise UsageError(f"{path}: cannot be read ({error})", hint=self._repair) from None
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(number)
        return self._open[number]

    def _path(self, number: int) -> Path:
        return self.folder / SHARDS / self.index.shards[number].file

    @cached_property
    def _repair(self) -> str:
        return "run the command that made the cache again with --verify: it encodes damaged shards again"

    def _check(self, preset: Preset) -> None:
        wanted, index = preset.model.latent, self.index
        assert wanted is not None
        facts = [
            ("autoencoder", index.latent.vae, wanted.vae),
            ("pixels a latent", index.latent.factor, wanted.factor),
            ("channels", index.channels, preset.model.channels),
            ("frame size", list(index.frame_size), list(preset.model.frame_size)),
            ("frame step", index.frame_step, preset.train.frame_step),
        ]
        for what, found, needed in facts:
            if found != needed:
                raise UsageError(
                    f"{self.folder}: latents of another {what}: {json.dumps(found)}, the preset needs "
                    f"{json.dumps(needed)}",
                    hint="bcd-bench prepare bcd with this preset, into another --out",
                )
        for number, shard in enumerate(index.shards):
            path = self._path(number)
            size = path.stat().st_size if path.is_file() else None
            if size != shard.size:
                why = "is missing" if size is None else f"is cut short or altered ({size} of {shard.size} bytes)"
                raise UsageError(f"{path}: {why}", hint=self._repair)
