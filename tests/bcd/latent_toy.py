"""A small cache of made-up latents and a tiny model on them; as a script, one process of a training run on it."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench_bcd.latents.cache import CACHE, SHARDS, CacheIndex, LatentClips, MeasuredLatents, Shard, Video
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training.stages import stages_of
from bcd_bench_bcd.training.trainer import Trainer
from tests.bcd.conftest import take_step, train_request

TINY: dict[str, Any] = {
    "model.frame_size": [32, 32],
    "model.channels": 4,
    "model.latent.vae": "sd2-vae",
    "model.encoder": {"layers": 1, "width": 32, "heads": 2, "feed_forward": 64, "content_tokens": 3},
    "model.quantizer.groups": 4,
    "model.quantizer.entries": 8,
    "model.quantizer.dim": 4,
    "model.decoder": {"depth": 2, "width": 32, "heads": 2, "patch": 2, "temporal_blocks": [1]},
    "objective.target_bits": 6,
    "train.clip_frames": 6,
    "train.frame_step": 1,
    "train.batch": 4,
    "train.precision": "fp32",
    "train.log_every": 1,
    "train.warmup": 0,
    "train.checkpoint_every": 100,
    "train.grid_every": 100,
    "train.stages": [
        {"name": "frames", "epochs": 1, "temporal": False},
        {"name": "video", "epochs": 2, "temporal": True, "lr": 5e-4},
    ],
}


def make_cache(folder: Path, *, sha256: str = "a" * 64, frames: int = 14, mean: float = 0.0) -> Path:
    """Ten videos in two shards: a content by video, a motion by frame, and some noise."""
    generator = torch.Generator().manual_seed(5)
    (folder / SHARDS).mkdir(parents=True)
    shards = []
    for number in range(2):
        videos = {}
        for row in range(5):
            content = torch.randn(1, 4, 4, 4, generator=generator)
            motion = torch.randn(frames, 4, 1, 1, generator=generator)
            videos[f"v{number}{row}"] = (content + motion).bfloat16()
        data = save(videos)
        name = f"{number:05d}.safetensors"
        (folder / SHARDS / name).write_bytes(data)
        shards.append(
            Shard(
                file=name,
                sources="s",
                sha256=hashlib.sha256(data).hexdigest(),
                size=len(data),
                videos=tuple(Video(id=key, frames=frames) for key in videos),
                left_out=(),
                count=1,
                sums=(0.0,) * 4,
                squares=(2.0,) * 4,
            )
        )
    index = CacheIndex(
        suite="toy",
        latent=MeasuredLatents(sha256=sha256, mean=(mean, 0.1, 0.0, 0.0), std=(1.4, 1.5, 1.4, 1.3)),
        channels=4,
        frame_size=(32, 32),
        frame_step=1,
        fps=12.5,
        shards=tuple(shards),
    )
    (folder / CACHE).write_text(index.model_dump_json())
    return folder


def toy_preset(**overrides: Any) -> Preset:
    return resolve_preset("lrs3-tiny", {**TINY, **{key.replace("__", "."): value for key, value in overrides.items()}})


def toy_request(cache: Path, out: Path, **changes: Any) -> TrainRequest:
    overrides = {**TINY, **changes.pop("overrides", {})}
    return train_request("lrs3-tiny", overrides, out, **{"data": {"latents": cache}, **changes})


def some_steps(cache: Path, out: Path, accumulate: int, count: int = 2) -> dict[str, torch.Tensor]:
    """Losses and gradients of the first steps of the stage with temporal blocks."""
    preset = toy_preset(train__accumulate=accumulate)
    clips = LatentClips(cache, preset)
    stage = stages_of(preset, len(clips), out)[1]
    alone = stage.preset.train.model_copy(update={"init": None})
    stage = replace(stage, preset=stage.preset.model_copy(update={"train": alone}), folder=out)
    trainer = Trainer(stage, clips, "cpu")
    trainer.start(resume=False)
    found: dict[str, torch.Tensor] = {}
    original = trainer.optimizers.step

    def kept() -> None:
        step = trainer.loop.step
        found.update({f"{step}/{n}": p.grad.clone() for n, p in trainer.model.named_parameters()})
        original()

    trainer.optimizers.step = kept  # type: ignore[method-assign]
    for _ in range(count):
        step = trainer.loop.step
        found |= {f"{step}/{name}": torch.tensor(value) for name, value in take_step(trainer).items()}
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    made = some_steps(Path(sys.argv[1]), Path(sys.argv[2]), accumulate=int(sys.argv[3]))
    torch.save(made, Path(sys.argv[2]) / f"steps-{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()
