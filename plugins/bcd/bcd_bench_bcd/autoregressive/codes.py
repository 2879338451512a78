"""Codes and content of training clips: encoded once by BCD, in shards, and reused when a run is resumed."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bcd_bench.io.safetensors import read_weight_file
from bcd_bench.training import save_tensors
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.training.dataset import DeviceClips

__all__ = ["ClipCodes", "encode_training_clips", "missing_shards"]

FORMAT = "bcd-codes-1"
SHARD, BATCH = 64, 16
"""Clips per file, and clips encoded at once."""


@dataclass
class ClipCodes:
    """Codes and content of M clips of T frames."""

    codes: Tensor
    """Motion codes of the whole clips, int64 [M, T, N]."""
    first_codes: Tensor
    """Codes of the first frames, each encoded alone, int64 [M, N]."""
    content: Tensor
    """Content of the whole clips, float32 [M, P, C_c]; P is 1 if the content is pooled."""
    first_content: Tensor
    """Content of the first frames alone, float32 [M, P, C_c]."""

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, index: slice | Tensor) -> ClipCodes:
        return ClipCodes(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def encode_training_clips(
    bcd: BCD,
    bcd_sha256: str,
    clips: DeviceClips,
    count: int,
    folder: Path,
    *,
    pooled: bool,
    prompts: Pipeline | None = None,
) -> ClipCodes:
    """Encode the first `count` of `clips` into shards in `folder`.

    First frames alone are encoded by `prompts` (default: as the clips). Shards of the same weights that exist are
    reused, so an interrupted run continues. Raises `UsageError` for a shard
    of other weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    adapted = {} if prompts is None or prompts is bcd.pipeline else {"prompt_encoder": _fingerprint(prompts)}
    parts = []
    with open_progress().task("encode clips", total=count, unit="clips") as task:
        for start in range(0, count, SHARD):
            indices = list(range(start, min(start + SHARD, count)))
            path = folder / f"{start // SHARD:05d}.safetensors"
            header = {"format": FORMAT, **adapted, "bcd": bcd_sha256, "pooled": str(pooled), "clips": str(len(indices))}
            if path.exists():
                parts.append(_read(path, header))
            else:
                part = _encode(bcd, prompts or bcd.pipeline, clips, indices, pooled=pooled)
                save_tensors(path, {name: getattr(part, name) for name in part.__dataclass_fields__}, header)
                parts.append(part)
            task.advance(len(indices))
    joined = (torch.cat([getattr(part, name) for part in parts]) for name in ClipCodes.__dataclass_fields__)
    return ClipCodes(*joined)


def missing_shards(count: int, folder: Path) -> int:
    """Number of the first `count` clips that are not encoded yet."""
    return sum(
        min(SHARD, count - start)
        for start in range(0, count, SHARD)
        if not (folder / f"{start // SHARD:05d}.safetensors").exists()
    )


def _read(path: Path, header: dict[str, str]) -> ClipCodes:
    found, tensors = read_weight_file(path, form=FORMAT, what="motion codes", maker="bcd-bench train bcd-motion")
    if found != header:
        raise UsageError(
            f"{path}: codes of other weights or settings", hint="use a different --out, or delete the folder `codes`"
        )
    return ClipCodes(*(tensors[name] for name in ClipCodes.__dataclass_fields__))


@torch.inference_mode()
def _encode(bcd: BCD, prompts: Pipeline, clips: DeviceClips, indices: list[int], *, pooled: bool) -> ClipCodes:
    parts = []
    for start in range(0, len(indices), BATCH):
        values = bcd.model.values(clips.batch(indices[start : start + BATCH]))
        content = [bcd.pipeline.encode_content(values), prompts.encode_content(values[:, :1])]
        if pooled:
            content = [tokens.mean(1, keepdim=True) for tokens in content]
        codes = [bcd.pipeline.encode_motion(values).codes, prompts.encode_motion(values[:, :1]).codes]
        parts.append((codes[0], codes[1][:, 0], *content))
    codes, first, content, first_content = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return ClipCodes(codes, first, content.float(), first_content.float())


def _fingerprint(pipeline: Pipeline) -> str:
    """Hash of the encoder's parameters."""
    digest = hashlib.sha256()
    for name, value in sorted(pipeline.model.encoder.state_dict().items()):
        digest.update(name.encode() + value.cpu().numpy().tobytes())
    return digest.hexdigest()
