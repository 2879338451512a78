"""A folder of latents of videos, encoded once: memory-mapped safetensors shards and their metadata.

cache.json               the latent space, its statistics, every shard with its hash, skipped videos; written last
shards/00000.safetensors one tensor per video: bfloat16 [T, C, h, w], the means of the latents
shards/00000.json        the shard's hash, its videos, skipped videos with the reason, and its sums for the statistics
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
"""Maximum number of mapped files; further ones are reopened when needed."""


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
    """Metadata of one shard file."""

    file: str
    sources: str
    """Hash over the names and contents of its videos and over how they are encoded."""
    sha256: str
    size: int
    videos: tuple[Video, ...]
    left_out: tuple[LeftOut, ...]
    count: int
    """Number of latent values per channel that `sums` and `squares` (per channel) run over."""
    sums: tuple[float, ...]
    squares: tuple[float, ...]


class MeasuredLatents(LatentConfig):
    """A latent space with its statistics over all videos."""

    sha256: str
    """Hash of the autoencoder."""
    mean: tuple[float, ...]
    """Mean of every channel."""
    std: tuple[float, ...]
    """Standard deviation of every channel."""


class CacheIndex(_Record):
    """The index of a cache, as in `cache.json`."""

    format: Literal["bcd-latents-1"] = FORMAT
    suite: str
    latent: MeasuredLatents
    channels: int
    frame_size: tuple[int, int]
    frame_step: int
    fps: float
    """Frames per second of the latents: the videos' rate divided by `frame_step`."""
    shards: tuple[Shard, ...]
    unusable: tuple[str, ...] = ()
    """Files that belong to no shard because the suite could not read them, one line each with the reason."""

    @property
    def videos(self) -> int:
        return sum(len(shard.videos) for shard in self.shards)

    @property
    def frames(self) -> int:
        return sum(video.frames for shard in self.shards for video in shard.videos)


def read_index(folder: Path) -> CacheIndex:
    """The index of a cache. Raises `UsageError` if it is missing, unfinished or of another format."""
    path = folder / CACHE
    try:
        return CacheIndex.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        begun = (folder / SHARDS).is_dir()
        why = "is not finished" if begun else f"does not contain latents ({error.strerror})"
        hint = "rerun the command that created it" if begun else "create such a folder with bcd-bench prepare bcd"
        raise UsageError(f"{folder}: {why}", hint=hint) from None
    except ValidationError as error:
        raise UsageError(f"{path}: damaged or written by another version: {first_error(error)}") from None


class LatentClips:
    """Non-overlapping training clips of `clip_frames` frames from a cache; shorter videos are skipped.

    Raises `UsageError` if the cache has another autoencoder, size or frame step than the preset requires, if a shard is
    missing or truncated, and if no video is long enough.
    """

    def __init__(self, folder: Path, preset: Preset) -> None:
        self.folder, self.index = folder, read_index(folder)
        self.fps = self.index.fps
        self._check(preset)
        self.length = preset.train.clip_frames or min(v.frames for s in self.index.shards for v in s.videos)
        self._where: list[tuple[int, str, int, int]] = []
        """For each clip: shard, video, first frame, and the largest shift of its start."""
        self.too_short = 0
        for number, shard in enumerate(self.index.shards):
            for video in shard.videos:
                count = video.frames // self.length
                self.too_short += not count
                slack = video.frames - count * self.length
                self._where += [(number, video.id, position * self.length, slack) for position in range(count)]
        if not self._where:
            raise UsageError(
                f"{folder}: no video has {self.length} frames at {self.fps:g} frames per second",
                hint="use shorter clips with --set train.clip_frames=N",
            )
        self._open: OrderedDict[int, Any] = OrderedDict()

    @property
    def latent(self) -> MeasuredLatents:
        """The latent space with its statistics."""
        return self.index.latent

    def __len__(self) -> int:
        return len(self._where)

    def latents(self, indices: Sequence[int], step: int = 0) -> Tensor:
        """bfloat16 [B, T, C, h, w] of B clips. Their first frames vary with `step` if a video is longer than its
        clips."""
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
        return "rerun the command that created the cache with --verify to encode damaged shards again"

    def _check(self, preset: Preset) -> None:
        latent, index = preset.model.latent, self.index
        assert latent is not None
        facts = [
            ("autoencoder", index.latent.vae, latent.vae),
            ("downsampling factor", index.latent.factor, latent.factor),
            ("number of channels", index.channels, preset.model.channels),
            ("frame size", list(index.frame_size), list(preset.model.frame_size)),
            ("frame step", index.frame_step, preset.train.frame_step),
        ]
        for setting, cached, needed in facts:
            if cached != needed:
                raise UsageError(
                    f"{self.folder}: the {setting} of the latents is {json.dumps(cached)}, the preset requires "
                    f"{json.dumps(needed)}",
                    hint="run bcd-bench prepare bcd with this preset and a different --out",
                )
        for number, shard in enumerate(index.shards):
            path = self._path(number)
            size = path.stat().st_size if path.is_file() else None
            if size != shard.size:
                why = "is missing" if size is None else f"is truncated or was modified ({size} of {shard.size} bytes)"
                raise UsageError(f"{path}: {why}", hint=self._repair)
