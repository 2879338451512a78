"""`bcd-bench train bcd --plan`: what a run would be and take, before anything is trained."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from bcd_bench.assets import format_size
from bcd_bench.devices import fast_bf16, resolve_device
from bcd_bench.specs import TrainRequest
from bcd_bench_bcd.batches import check_parts
from bcd_bench_bcd.configs import ModelConfig, Preset
from bcd_bench_bcd.data import fitted_model_config, lit_shares, measures_light
from bcd_bench_bcd.model import BCD
from bcd_bench_bcd.stages import stage_presets
from bcd_bench_bcd.training_view import KEPT_BYTES, TrainingView

__all__ = ["forward_flops", "matmul_flops", "memory_bytes", "parameters", "plan"]

LRS3_HOURS = 437.0
"""Hours of LRS3's pretrain and trainval clips: what a plan reckons with where no cache of latents is given."""
REACHED = 0.4
"""Share of a large matrix product's speed that a training step is taken to reach."""


def parameters(config: ModelConfig) -> dict[str, int]:
    """Trainable parameters of encoder, quantizer and decoder (and bottleneck, where there is one)."""
    with torch.device("meta"):
        model = BCD(config)
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def forward_flops(config: ModelConfig, frames: int, *, canvas: bool = True, drawing: bool = True) -> float:
    """Floating-point operations (2 a multiplication and addition) of the forward pass for one clip of `frames` frames:
    encoder over both halves, decoder over one. Counted on the model itself, attention included; embeddings and norms
    are not. Steps in which the transformer is not `drawing` yet, nor the `canvas` painted, take less.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = BCD(config)
        with FlopCounterMode(display=False) as counter:
            _forward(model, 1, frames, canvas=canvas, drawing=drawing)
    return float(counter.get_total_flops())


def mean_forward_flops(preset: Preset, config: ModelConfig, frames: int, whole: float) -> float:
    """`forward_flops` of the average step of a run whose `whole` steps take so many: before `canvas_from` and
    `draw_from`, steps take less."""
    steps, objective = preset.train.steps, preset.objective
    painting = min(objective.canvas_from, steps)
    drawing = min(max(objective.draw_from, painting), steps)
    total = (steps - drawing) * whole
    if drawing > painting:
        total += (drawing - painting) * forward_flops(config, frames, drawing=False)
    if painting:
        total += painting * forward_flops(config, frames, canvas=False, drawing=False)
    return total / steps


def memory_bytes(
    config: ModelConfig, frames: int, clips: int, *, precision: str = "bf16", recompute: bool = False
) -> tuple[int, int]:
    """(weights, activations) of a training step in bytes: about what a device has to hold for `clips` at once.

    Weights: parameters, gradients and two AdamW moments in float32, the average, and what autocast makes of them.
    Activations: what the forward pass of the model itself keeps for its backward pass in `precision` ("bf16" or
    "fp32"), counted on tensors without values; with `recompute`, one block of the transformer more.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    def fixed_and_by_clip() -> tuple[int, int]:
        one, two = (_kept_bytes(model, n, frames, precision) for n in (1, 2))
        return max(0, 2 * one - two), two - one

    with FakeTensorMode():
        model = BCD(config)
        fixed, activations = fixed_and_by_clip()
        if recompute:
            every = activations
            model.decoder.recompute = True
            fixed, activations = fixed_and_by_clip()
            activations += (every - activations) // (config.decoder.depth + len(config.decoder.temporal_blocks))
    return 20 * sum(parameters(config).values()) + fixed, clips * activations


def _kept_bytes(model: BCD, clips: int, frames: int, precision: str) -> int:
    """Bytes that a forward pass keeps for its backward pass, besides the parameters."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _forward(model, clips, frames, canvas=True, drawing=True)
    for parameter in model.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in kept.values())


def _forward(model: BCD, clips: int, frames: int, *, canvas: bool, drawing: bool) -> None:
    """The forward pass of a training step in one direction, on zeros."""
    half = torch.zeros(2 * clips, frames // 2, model.config.channels, *model.config.grid)
    content, latents = model.features(half, canvas=canvas)
    if model.bottleneck is not None:
        content = model.bottleneck.mean(content)
    motion = torch.zeros(clips, frames // 2, model.quantizer.out_width, requires_grad=True)
    model.quantizer.into(latents[:clips])
    placed = model.place(content[:clips], motion) if canvas else None
    if drawing:
        patches = torch.zeros(clips, *model.noise_shape(frames // 2))
        model.denoise(patches, torch.ones(clips), content[:clips], motion, placed=placed)


def matmul_flops(device: torch.device, precision: str) -> float:
    """Operations a second of a large matrix product on this device, the best of three."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(4):  # the first one warms up
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        tick = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - tick)
    return 2 * side**3 / best


def plan(preset: Preset, request: TrainRequest, clips: Any = None) -> str:
    """Data, parameters, operations, memory, disk and time of a run; trains nothing and writes nothing.

    Without `clips`, a preset of latents is reckoned for the whole of LRS3.
    """
    place = resolve_device(request.device)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    check_parts(preset, processes)
    if clips is not None:
        first = None if preset.model.latent is not None else clips.clips([0])
        frames = clips.length if first is None else first.shape[1]
        if preset.train.half_frames is not None:
            frames = min(frames, 2 * preset.train.half_frames)
        count = len(clips)
        data = f"{preset.train.suite} ({count} training clips)"
        if first is not None and (isinstance(clips, TrainingView) or place.type == "cuda"):
            held = min(count * first.nbytes, KEPT_BYTES)
            data += f", of which {format_size(held)} of frames stay in memory"
    else:
        frames = preset.train.clip_frames or 50
        count = int(LRS3_HOURS * 3600 * 25 / preset.train.frame_step // frames)
        data = f"no --data latents=PATH: reckoned for the {LRS3_HOURS:g} h of LRS3, {count} clips of {frames} frames"
    precision = preset.train.precision
    if precision == "auto":
        precision = "bf16" if fast_bf16(place.type) else "fp32"
    measured = matmul_flops(place, precision)
    shares = None
    if clips is not None and measures_light(preset):
        shares = lit_shares(clips, preset.model.decoder.patch)
    lines = [f"data: {data}"]
    seconds = 0.0
    biggest: ModelConfig | None = None
    for stage, _ in stage_presets(preset, count, request.out):
        train = stage.train
        config = fitted_model_config(stage, shares, getattr(clips, "latent", None))
        biggest = config
        name = f"stage {train.stage}" if train.stage else "training"
        counts = parameters(config)
        forward = forward_flops(config, frames)
        directions = 2 if train.direction == "both" else 1
        backward = 4 if train.recompute else 3
        step = mean_forward_flops(stage, config, frames, forward) * backward * train.batch * directions
        took = train.steps * step / (measured * REACHED * processes)
        seconds += took
        part = train.batch // (processes * train.accumulate)
        weights, activations = memory_bytes(config, frames, part, precision=precision, recompute=train.recompute)
        lines += [
            f"{name}: {sum(counts.values()) / 1e6:.1f} M parameters "
            f"({', '.join(f'{part} {n / 1e6:.1f} M' for part, n in counts.items())})",
            f"  work: {train.steps} steps of {train.batch} clips = {train.steps * train.batch} clips "
            f"= {train.steps * train.batch / count:.1f} epochs",
            f"  operations: {forward / 1e12:.3g} TFLOP a clip forward, {step / 1e12:.3g} TFLOP a step on average, "
            f"{train.steps * step / 1e18:.3g} EFLOP in all",
            f"  memory a process: about {format_size(weights)} for weights, "
            f"{format_size(activations * directions)} for activations of {part} clips at once"
            + ("" if train.recompute else " (less with train.recompute=true or train.accumulate=N)"),
            f"  time: about {took / 3600:.3g} h",
        ]
    assert biggest is not None
    quantizer = biggest.quantizer
    total = sum(parameters(biggest).values())
    latents = 0 if biggest.latent is None else 2 * count * frames * biggest.channels * math.prod(biggest.grid)
    stages = max(1, len(preset.train.stages))
    checkpoints = stages * total * (16 + 4)
    lines += [
        f"capacity: {quantizer.groups * math.log2(quantizer.entries):.1f} bits per frame, "
        f"target {preset.objective.target_bits:g}",
        f"disk: {format_size(checkpoints)} for checkpoints and weights"
        + (f", {format_size(latents)} for latents" if latents else "")
        + f"; {format_size(_free(request.out))} are free",
        f"speed here: {measured / 1e12:.3g} TFLOP/s in a large {precision} matrix product on {place.type}, of which "
        f"{REACHED:.0%} are reckoned to be reached, by {processes} process{'es' if processes > 1 else ''}",
        f"time in all: about {seconds / 3600:.3g} h",
    ]
    return "\n".join(lines)


def _free(path: Path) -> int:
    """Bytes free where `path` will be."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
