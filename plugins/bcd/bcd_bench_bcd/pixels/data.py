"""Training pairs of the pixel path: what the frozen BCD gives, exact targets, and points of the head.

One file per pair, so that an interrupted preparation continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.io.safetensors import read_weight_file
from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.training import save_tensors
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress
from bcd_bench_bcd.extensions.model import landmarks_of
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.pixels.config import PixelTrainConfig

__all__ = ["CrossedClips", "PixelPair", "crossed_clips", "prepare_pair", "prepare_pairs"]

FORMAT = "bcd-pixel-pair-2"


class CrossedClips(TrainingClips, Protocol):
    """A training split that also renders the target of a transfer between two of its clips."""

    def crossed(
        self, contents: Sequence[int], drivers: Sequence[int], frames: int, stride: int
    ) -> npt.NDArray[np.uint8]:
        """Every content's person with the motion of its driver: uint8 [B, frames, H, W, 3], every `stride`-th frame."""

    def crossed_points(
        self, contents: Sequence[int], drivers: Sequence[int], frames: int, stride: int
    ) -> npt.NDArray[np.float32]:
        """Points of the head in these frames, float32 [B, frames, P, 2]: x and y in -1..1, NaN if turned away."""

    def point_weights(self) -> npt.NDArray[np.float32]:
        """How much expressions move every point, float32 [P] in 0..1."""


@dataclass
class PixelPair:
    """One training pair: S content frames and T driving frames."""

    frames: Tensor
    """Content, uint8 [S, H, W, 3]."""
    content_points: Tensor
    """Points of the head in the content, float16 [S, P, 2], NaN if turned away."""
    tokens: Tensor
    """Content tokens without those of the canonical map, float16 [K, C]."""
    pose: Tensor
    """Pose of the content frames: motion latents, float16 [S, width], or landmarks, float16 [S, N, 2]."""
    codes: Tensor
    """Motion codes of the driving frames, uint8 [T, N]."""
    own: Tensor
    """What the transformer draws for them, uint8 [T, H, W, 3]."""
    target: Tensor
    """The exact target, uint8 [T, H, W, 3]."""
    points: Tensor
    """Points of the head in the target, float16 [T, P, 2]."""


def crossed_clips(clips: TrainingClips, config: PixelTrainConfig) -> CrossedClips:
    """`clips`, if they can render targets and are enough; else raises `UsageError`."""
    if not all(hasattr(clips, name) for name in ("crossed", "crossed_points", "point_weights")):
        raise UsageError(
            f"suite {config.suite!r} has no exact targets for training", hint="use --set train.suite=heads-cross-128"
        )
    if config.clips > len(clips):
        raise UsageError(f"--set train.clips={config.clips}: there are {len(clips)} training clips")
    return clips  # type: ignore[return-value]


def prepare_pairs(bcd: BCD, bcd_sha256: str, clips: CrossedClips, config: PixelTrainConfig, folder: Path) -> list[Path]:
    """One file per pair in `folder`. Files of the same weights and settings that exist are reused.

    Raises `UsageError` for a file of other weights or settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:05d}.safetensors" for number in range(config.clips)]
    header = pair_header(bcd_sha256, config)
    with open_progress().task("prepare pairs", total=len(paths), unit="pairs") as task:
        for number, path in enumerate(paths):
            if path.exists():
                read_pair(path, header)
            else:
                pair = prepare_pair(bcd, clips, config, number)
                save_tensors(
                    path, {field.name: getattr(pair, field.name).contiguous() for field in fields(pair)}, header
                )
            task.advance()
    return paths


def pair_header(bcd_sha256: str, config: PixelTrainConfig) -> dict[str, str]:
    """What a file of pairs depends on."""
    data = {"suite", "clips", "shift", "frames", "stride"}
    return {"format": FORMAT, "bcd": bcd_sha256, "data": config.model_dump_json(include=data)}


def read_pair(path: Path, header: dict[str, str]) -> PixelPair:
    """Read a file of `prepare_pairs`. Raises `UsageError` if it has another header."""
    found, tensors = read_weight_file(path, form=FORMAT, what="training pair", maker="bcd-bench train bcd-pixels")
    if found != header:
        raise UsageError(
            f"{path}: a pair of other weights or settings", hint="use a different --out, or delete the folder `pairs`"
        )
    return PixelPair(**{field.name: tensors[field.name] for field in fields(PixelPair)})


@torch.inference_mode()
def prepare_pair(bcd: BCD, clips: CrossedClips, config: PixelTrainConfig, number: int) -> PixelPair:
    """Render the target of pair `number`, and run the frozen BCD on it."""
    driver = (number + config.shift) % config.clips
    how = ([number], [driver], config.frames, config.stride)
    content, driving = (torch.from_numpy(clips.clips([one])) for one in (number, driver))
    model, device = bcd.model, next(bcd.model.parameters()).device
    values = bcd.codec.values(content.to(device))
    tokens = bcd.pipeline.encode_content(values)
    chosen = slice(0, (config.frames - 1) * config.stride + 1, config.stride)
    quantized = bcd.pipeline.encode_motion(bcd.codec.values(driving.to(device)))
    shape = model.noise_shape(config.frames)
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(number)).to(device)
    reads_pixels = landmarks_of(model) is None
    pose = bcd.pipeline.motion_latents(values) if reads_pixels else bcd.pipeline.landmarks(values)
    own = bcd.pipeline.sample(tokens, quantized.motion[:, chosen], bcd.description.sampler, noise)
    content_how = ([number], [number], content.shape[1], 1)
    return PixelPair(
        frames=content[0],
        content_points=torch.from_numpy(clips.crossed_points(*content_how)[0]).half(),
        tokens=tokens[0, :, : model.content_width].half().cpu(),
        pose=pose[0].half().cpu(),
        codes=quantized.codes[0, chosen].to(torch.uint8).cpu(),
        own=bcd.codec.frames(own)[0].cpu(),
        target=torch.from_numpy(clips.crossed(*how)[0]),
        points=torch.from_numpy(clips.crossed_points(*how)[0]).half(),
    )
