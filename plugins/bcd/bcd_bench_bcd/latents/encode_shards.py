"""Encode videos into shards of latents: the work of one process on one shard."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bcd_bench.assets.hashing import hash_json, sha256_file
from bcd_bench.io.atomic import write_bytes_atomic, write_json_atomic
from bcd_bench.io.video import READER, resize_frame
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import BcdBenchError, one_line, printable
from bcd_bench.util.devices import fast_bf16
from bcd_bench_bcd.latents.autoencoders import Autoencoder, open_autoencoder
from bcd_bench_bcd.latents.cache import SHARDS, LeftOut, Shard, Video
from bcd_bench_bcd.paper.config import ModelConfig

__all__ = ["Recipe", "ShardJob", "finished_shard", "make_shard", "totals"]


@dataclass(frozen=True)
class Recipe:
    """How frames become latents; together with the videos it determines a shard."""

    model: ModelConfig
    frame_step: int
    autoencoder_sha256: str

    def describe(self) -> dict[str, Any]:
        return {
            "vae": self.autoencoder_sha256,
            "frame_size": list(self.model.frame_size),
            "frame_step": self.frame_step,
        }


@dataclass(frozen=True)
class ShardJob:
    """One shard to encode, written below `folder`."""

    number: int
    videos: tuple[ClipRef, ...]
    recipe: Recipe
    folder: Path

    @property
    def path(self) -> Path:
        return self.folder / SHARDS / f"{self.number:05d}.safetensors"

    @property
    def sources(self) -> str:
        return hash_json([READER, self.recipe.describe(), *(video.describe() for video in self.videos)])


def finished_shard(job: ShardJob, *, verify: bool = False) -> Shard | None:
    """The shard if it was already encoded from exactly these videos and is complete; `verify` also checks its hash."""
    try:
        shard = Shard.model_validate_json(job.path.with_suffix(".json").read_text(encoding="utf-8"))
        complete = shard.sources == job.sources and job.path.stat().st_size == shard.size
        if complete and verify:
            complete = sha256_file(job.path) == shard.sha256
    except (OSError, ValueError):
        return None  # missing or damaged: encoded again
    return shard if complete else None


@lru_cache(maxsize=1)
def _autoencoder(recipe: Recipe, device: str) -> Autoencoder:
    return open_autoencoder(recipe.model, recipe.autoencoder_sha256, device)


def make_shard(job: ShardJob, device: str, threads: int | None = None) -> Shard:
    """Decode, resize and encode the videos of a shard and write it; videos that cannot be used are skipped.

    Raises `OSError` if it cannot be written; no partial file is left.
    """
    import hashlib

    from safetensors.torch import save

    if threads is not None:
        torch.set_num_threads(threads)
    autoencoder = _autoencoder(job.recipe, device)
    tensors: dict[str, torch.Tensor] = {}
    left_out: list[LeftOut] = []
    for ref in job.videos:
        try:
            frames = _frames(ref.load(), job.recipe)
        except (BcdBenchError, ValueError, OSError, RuntimeError) as error:
            reason = str(error) if isinstance(error, BcdBenchError) else one_line(error, place=False)
            left_out.append(LeftOut(id=ref.id, reason=printable(reason)))
            continue
        kind = torch.device(device).type
        with torch.autocast(kind, torch.bfloat16, enabled=fast_bf16(kind)):
            tensors[ref.id] = autoencoder.encode(frames).to(torch.bfloat16).cpu().contiguous()
    sums, squares, count = np.zeros(autoencoder.channels), np.zeros(autoencoder.channels), 0
    for latents in tensors.values():
        values = latents.double().transpose(0, 1).flatten(1)
        sums += values.sum(1).numpy()
        squares += values.square().sum(1).numpy()
        count += values.shape[1]
    data = save(tensors, {"sources": job.sources})
    job.path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(job.path, data)
    shard = Shard(
        file=job.path.name,
        sources=job.sources,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
        videos=tuple(Video(id=name, frames=len(latents)) for name, latents in tensors.items()),
        left_out=tuple(left_out),
        count=count,
        sums=tuple(sums.tolist()),
        squares=tuple(squares.tolist()),
    )
    write_json_atomic(job.path.with_suffix(".json"), json.loads(shard.model_dump_json()))  # last: marks it as complete
    return shard


def _frames(clip: Clip, recipe: Recipe) -> torch.Tensor:
    """uint8 [T, H, W, 3] in the size that the autoencoder takes."""
    frames: npt.NDArray[np.uint8] = clip.frames[:: recipe.frame_step]
    if frames[0].shape[:2] != recipe.model.frame_size:
        height, width = recipe.model.frame_size
        if frames[0].shape[0] * width != frames[0].shape[1] * height:
            raise ValueError(
                f"frames of {frames[0].shape[:2]} do not have the aspect ratio of {recipe.model.frame_size}"
            )
        frames = np.stack([resize_frame(frame, (height, width)) for frame in frames])
    return torch.tensor(frames)


def totals(shards: Sequence[Shard]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of every channel over all shards."""
    count = sum(shard.count for shard in shards)
    sums = np.sum([shard.sums for shard in shards], axis=0) / count
    squares = np.sum([shard.squares for shard in shards], axis=0) / count
    deviation = np.sqrt(np.maximum(squares - sums**2, 1e-12))
    return tuple(sums.tolist()), tuple(deviation.tolist())
