"""Training on latents: a few real steps of a preset at full size, what caching saves, and how fast arithmetic runs.

    python benchmarks/latents.py lrs3 [--device cuda] [--batch 2 --accumulate 2] [--steps 2]
    python benchmarks/latents.py reached --preset heads-small

`lrs3` trains on a made-up cache in the true shapes, saves, resumes in a new trainer, and goes on; it times the encoder
of an autoencoder of SD 2.0's size (random weights) for what encoding online would add to a step. On a CPU, seconds are
those of the processor, so that a busy machine does not count.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from safetensors.torch import save_file

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.util.devices import fast_bf16, resolve_device
from bcd_bench_bcd.extensions.frame_subset import FrameSubset
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.latents.autoencoders import random_autoencoder
from bcd_bench_bcd.latents.cache import CACHE, SHARDS, CacheIndex, LatentClips, MeasuredLatents, Shard, Video
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training.data import fit_to_data, needs_patch_occupancy, open_training_clips, patch_occupancy
from bcd_bench_bcd.training.plan import forward_flops, matmul_flops
from bcd_bench_bcd.training.stages import Stage, stages_of
from bcd_bench_bcd.training.trainer import Trainer


def clock(device: torch.device) -> float:
    """Seconds of the processor, or on a GPU those on the clock."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        return time.perf_counter()
    return time.process_time() / torch.get_num_threads()


def timed(device: torch.device, work: Callable[[], Any]) -> float:
    began = clock(device)
    work()
    return clock(device) - began


def made_up_cache(folder: Path, preset: Preset, videos: int) -> LatentClips:
    """Unit-normal latents in the shapes of `preset`."""
    model, train = preset.model, preset.train
    assert model.latent is not None
    frames = train.clip_frames or 50
    (folder / SHARDS).mkdir(parents=True)
    path = folder / SHARDS / "00000.safetensors"
    save_file({f"v{n}": torch.randn(frames, model.channels, *model.grid).bfloat16() for n in range(videos)}, path)
    shard = Shard(
        file=path.name,
        sources="",
        sha256="",
        size=path.stat().st_size,
        videos=tuple(Video(id=f"v{n}", frames=frames) for n in range(videos)),
        left_out=(),
        count=1,
        sums=(),
        squares=(),
    )
    index = CacheIndex(
        suite=train.suite,
        latent=MeasuredLatents(
            vae=model.latent.vae, sha256="0", mean=(0.0,) * model.channels, std=(1.0,) * model.channels
        ),
        channels=model.channels,
        frame_size=model.frame_size,
        frame_step=train.frame_step,
        fps=12.5,
        shards=(shard,),
    )
    (folder / CACHE).write_text(index.model_dump_json())
    return LatentClips(folder, preset)


def lrs3(
    name: str, device: torch.device, batch: int, accumulate: int, steps: int, checkpointing: bool, eager: bool
) -> dict[str, Any]:
    """Steps of the last stage (with temporal blocks), the checkpoint between them, and the cost of encoding online."""
    overrides = {"train.batch": batch, "train.accumulate": accumulate, "train.activation_checkpointing": checkpointing}
    preset = resolve_preset(name, overrides | ({"train.compile": "no"} if eager else {}))
    result: dict[str, Any] = {"preset": name, "device": device.type, "batch": batch, "accumulate": accumulate}
    with tempfile.TemporaryDirectory() as scratch:
        clips = made_up_cache(Path(scratch) / "latents", preset, batch * (steps + 1))
        stage = stages_of(preset, len(clips), Path(scratch))[-1]
        alone = stage.preset.train.model_copy(update={"init": None})
        stage = replace(stage, preset=stage.preset.model_copy(update={"train": alone}), folder=Path(scratch) / "run")
        seconds = []
        for part, count in (("began", steps), ("resumed", 1)):
            AcceleratorState._reset_state(reset_partial_state=True)
            trainer = Trainer(stage, clips, str(device))
            trainer.start(resume=part == "resumed")
            values: list[dict[str, float]] = []
            before = trainer.loop.step
            for _ in range(count):
                now = trainer.loop.step
                seconds.append(timed(device, lambda done=values, t=trainer, at=now: done.append(t.train_step(at))))
                trainer.loop.step += 1
            result[part] = [
                {"step": number, "loss": v["loss"], "bits": v["bits"], "norm": v["gradient_norm"]}
                for number, v in enumerate(values, before + 1)
            ]
            print(part, result[part], file=sys.stderr, flush=True)
            trainer.save()
            precision, parameters = trainer.precision, sum(p.numel() for p in trainer.model.parameters())
            del trainer  # so that one at a time is in memory
        result["checkpoint_bytes"] = (Path(scratch) / "run" / "checkpoint.pt").stat().st_size
        operations = forward_flops(fit_to_data(stage.preset), clips.length) * (4 if checkpointing else 3) * batch
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
    step = min(seconds)
    result |= {"parameters": parameters, "seconds_a_step": step, "peak_gib": peak / 2**30}
    result |= reached(operations, step, device, precision)
    vae = random_autoencoder(preset.model.channels).to(device)
    some = torch.randint(0, 256, (1, *preset.model.frame_size, 3), dtype=torch.uint8)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast_bf16(device.type)):
        a_frame = min(timed(device, lambda: vae.encode(some)) for _ in range(2))
    online = step + a_frame * clips.length * batch
    result |= {"seconds_to_encode_a_frame": a_frame, "online_over_cached": online / step}
    return result


def reached(operations: float, seconds: float, device: torch.device, precision: str) -> dict[str, float]:
    """Operations a second of a step beside those of a large matrix product."""
    if device.type == "cuda":
        product = matmul_flops(device, precision)
    else:
        side = 1024
        a, b = (torch.randn(side, side, dtype=torch.bfloat16 if precision == "bf16" else torch.float32) for _ in "ab")
        product = 2 * side**3 / min(timed(device, lambda: a @ b) for _ in range(4))
    return {"tflops_reached": operations / seconds / 1e12, "tflops_of_a_product": product / 1e12,
            "share": operations / seconds / product}  # fmt: skip


def of_a_preset(name: str, device: torch.device, steps: int) -> dict[str, Any]:
    """Operations a second that whole steps of a preset on pixels reach."""
    preset = resolve_preset(name)
    if "canonical_features" in preset.extensions.names:
        starts = {f"extensions.canonical_features.{start}": 0 for start in ("warp_start", "denoise_start")}
        preset = resolve_preset(name, starts)
    request = TrainRequest(name, {}, Path(tempfile.gettempdir()), False, None, None, str(device), {}, False)
    clips = open_training_clips(preset, request)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(Stage(preset, Path(scratch) / "run"), clips, str(device))  # type: ignore[arg-type]
        trainer.start(resume=False)
        trainer.train_step(0)
        seconds = min(timed(device, lambda at=step: trainer.train_step(at)) for step in range(1, steps + 1))
        subset, halves = preset.extensions.get(FrameSubset), preset.extensions.get(SymmetricHalves)
        frames = 2 * (subset.frames if subset else clips.clips([0]).shape[1] // 2)  # type: ignore[union-attr]
        both = 2 if halves is not None and halves.mode == "both" else 1
        occupied = patch_occupancy(clips, preset.model.decoder.patch) if needs_patch_occupancy(preset) else None  # type: ignore[arg-type]
        operations = 3 * both * preset.train.batch * forward_flops(fit_to_data(preset, occupied), frames)
        return {"preset": name, "seconds_a_step": seconds, **reached(operations, seconds, device, trainer.precision)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("lrs3", "reached"))
    parser.add_argument("--preset")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--accumulate", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--activation-checkpointing", action="store_true")
    parser.add_argument("--eager", action="store_true", help="do not compile")
    given = parser.parse_args()
    device = resolve_device(given.device)
    if given.what == "lrs3":
        name = given.preset or "lrs3"
        result = lrs3(
            name, device, given.batch, given.accumulate, given.steps, given.activation_checkpointing, given.eager
        )
    else:
        result = of_a_preset(given.preset or "heads-small", device, given.steps)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
