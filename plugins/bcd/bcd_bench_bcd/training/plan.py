"""`bcd-bench train bcd --dry-run`: estimate data, size, operations, memory and time of a run before training."""

from __future__ import annotations

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from bcd_bench.assets.store import format_size
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import resolve_precision
from bcd_bench.util.devices import resolve_device
from bcd_bench_bcd.extensions.canonical_features import CanonicalFeatures
from bcd_bench_bcd.extensions.frame_subset import FrameSubset
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.training.data import Fitted, fit_to_data, needs_patch_occupancy, patch_occupancy
from bcd_bench_bcd.training.dataset import KEPT_BYTES, TrainingView
from bcd_bench_bcd.training.sharding import check_parts
from bcd_bench_bcd.training.stages import Stage, stages_of

__all__ = ["forward_flops", "matmul_flops", "memory_bytes", "parameters", "plan"]

LRS3_HOURS = 437.0
"""Hours of LRS3's pretrain and trainval clips; assumed if no cache of latents is passed."""
ASSUMED_MFU = 0.4
"""Assumed fraction of peak matmul throughput."""
GPU_PEAKS = {"A100": {"bf16": 312e12, "fp32": 156e12}, "H100": {"bf16": 989e12, "fp32": 494e12}}
"""Operations per second of dense matrix products in NVIDIA's data sheets (SXM; float32 as TF32)."""
GPU_PEAKS["H200"] = GPU_PEAKS["H100"]


def parameters(fitted: Fitted) -> dict[str, int]:
    """Trainable parameters of encoder, quantizer and decoder (and bottleneck, if there is one)."""
    with torch.device("meta"):
        model = fitted.build()
    counts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = name.partition(".")[0]
        counts[part] = counts.get(part, 0) + parameter.numel()
    return counts


def forward_flops(fitted: Fitted, frames: int, *, canonical: bool = True, denoising: bool = True) -> float:
    """Floating-point operations (2 per multiplication and addition) of the forward pass for one clip of `frames`
    frames: encoder over both halves, decoder over one. Counted on the model itself, including attention; embeddings and
    norms are not counted. Steps without the transformer (`denoising`) and without the `canonical` map need fewer.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        model = fitted.build()
        with FlopCounterMode(display=False) as counter:
            _forward(model, 1, frames, canonical=canonical, denoising=denoising)
    return float(counter.get_total_flops())


def mean_forward_flops(fitted: Fitted, frames: int, whole: float) -> float:
    """`forward_flops` of the average step of a run. `whole` is the number for a complete step; steps before the starts
    of `canonical_features` need fewer."""
    steps, canonical = fitted.preset.train.steps, fitted.preset.extensions.get(CanonicalFeatures)
    if canonical is None:
        return whole
    warping = min(canonical.warp_start, steps)
    denoising = min(max(canonical.denoise_start, warping), steps)
    total = (steps - denoising) * whole
    if denoising > warping:
        total += (denoising - warping) * forward_flops(fitted, frames, denoising=False)
    if warping:
        total += warping * forward_flops(fitted, frames, canonical=False, denoising=False)
    return total / steps


def memory_bytes(
    fitted: Fitted, frames: int, clips: int, *, precision: str = "bf16", checkpointing: bool = False
) -> tuple[int, int]:
    """(weights, activations) of a training step in bytes: the approximate device memory for `clips` at once.

    Weights: parameters, gradients and two AdamW moments in float32, the moving average, and autocast's copies.
    Activations: tensors saved by the forward pass for the backward pass in `precision` ("bf16" or "fp32"), counted on
    fake tensors; with activation `checkpointing`, plus one block of the transformer.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    def fixed_and_by_clip() -> tuple[int, int]:
        fixed_and_one, fixed_and_two = (_kept_bytes(model, n, frames, precision) for n in (1, 2))
        return max(0, 2 * fixed_and_one - fixed_and_two), fixed_and_two - fixed_and_one

    with FakeTensorMode():
        model = fitted.build()
        fixed, activations = fixed_and_by_clip()
        if checkpointing:
            all_activations = activations
            model.decoder.activation_checkpointing = True
            fixed, activations = fixed_and_by_clip()
            activations += (all_activations - activations) // len(list(model.decoder.transformer_blocks()))
    return 20 * sum(parameters(fitted).values()) + fixed, clips * activations


def _kept_bytes(model: BCD, clips: int, frames: int, precision: str) -> int:
    """Bytes saved by a forward pass for the backward pass, excluding the parameters."""
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    autocast = torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16")
    with autocast, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        _forward(model, clips, frames, canonical=True, denoising=True)
    for parameter in model.parameters():
        saved.pop(parameter.untyped_storage()._cdata, None)
    return sum(storage.nbytes() for storage in saved.values())


def _forward(model: BCD, clips: int, frames: int, *, canonical: bool, denoising: bool) -> None:
    """The forward pass of a training step in one direction, on zeros."""
    half = torch.zeros(2 * clips, frames // 2, model.config.channels, *model.config.grid)
    motion = torch.zeros(clips, frames // 2, model.quantizer.out_width, requires_grad=True)
    patches = torch.zeros(clips, *model.noise_shape(frames // 2))
    if not isinstance(model, ExtendedBCD):
        content, latents = model.encode(half)
        model.quantizer.into(latents[:clips])
        model.denoise(patches, torch.ones(clips), content[:clips], motion)
        return
    content, latents = model.encode(half, canonical=canonical)
    if model.bottleneck is not None:
        content = model.bottleneck.mean(content)
    model.quantizer.into(latents[:clips])
    warped = model.warp(content[:clips], motion) if canonical else None
    if denoising:
        model.denoise(patches, torch.ones(clips), content[:clips], motion, warped=warped)


def matmul_flops(device: torch.device, precision: str) -> float:
    """Operations per second of a large matrix product on this device, best of three runs."""
    side = 8192 if device.type == "cuda" else 1024
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(4):  # the first one is a warm-up
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        tick = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - tick)
    return 2 * side**3 / best


def plan(preset: Preset, request: TrainRequest, clips: Any = None) -> str:
    """Estimate data, parameters, operations, memory, disk and time of a run, without training or writing anything.

    Without `clips`, a preset of latents is estimated for the whole of LRS3.
    """
    device = resolve_device(request.device)
    processes = int(os.environ.get("WORLD_SIZE", 1))
    check_parts(preset, processes)
    data, count, frames = _data(preset, clips, device)
    precision = resolve_precision(preset.train.precision, device.type)
    speed = matmul_flops(device, precision)
    on_gpus = "fp32" if preset.train.precision == "fp32" else "bf16"
    occupancy = None
    if clips is not None and needs_patch_occupancy(preset):
        occupancy = patch_occupancy(clips, preset.model.decoder.patch)
    lines = [f"recipe: {', '.join(preset.recipe)}", f"data: {data}"]
    seconds = 0.0
    for stage in stages_of(preset, count, request.out):
        largest = fit_to_data(stage.preset, occupancy)
        stage_lines, stage_seconds = _stage(stage, largest, count, frames, precision, processes, speed * ASSUMED_MFU)
        lines += stage_lines
        seconds += stage_seconds
    config, total = largest.config, sum(parameters(largest).values())
    latents = 0 if config.latent is None else 2 * count * frames * config.channels * math.prod(config.grid)
    checkpoints = max(1, len(preset.train.stages)) * total * (16 + 4)
    lines += [
        f"capacity: {config.quantizer.groups * math.log2(config.quantizer.entries):.1f} bits per frame, "
        f"target {preset.objective.target_bits:g}",
        f"disk: {format_size(checkpoints)} for checkpoints and weights"
        + (f", {format_size(latents)} for latents" if latents else "")
        + f"; {format_size(_free(request.out))} are free",
        f"speed here: {speed / 1e12:.3g} TFLOP/s in a large {precision} matrix product on {device.type}, assuming "
        f"{ASSUMED_MFU:.0%} of it, by {processes} process{'es' if processes > 1 else ''}",
        f"total time: about {seconds / 3600:.3g} h",
        f"on {processes} GPU{'s' if processes > 1 else ''}, at {ASSUMED_MFU:.0%} of the data sheet's {on_gpus} peak: "
        + ", ".join(f"{name} {seconds / 3600 * speed / peaks[on_gpus]:.3g} h" for name, peaks in GPU_PEAKS.items()),
    ]
    return "\n".join(lines)


def _data(preset: Preset, clips: Any, place: torch.device) -> tuple[str, int, int]:
    """A description of the training data, the number of clips, and of frames per clip."""
    if clips is None:
        frames = preset.train.clip_frames or 50
        count = int(LRS3_HOURS * 3600 * 25 / preset.train.frame_step // frames)
        data = f"no --data latents=PATH: estimated for the {LRS3_HOURS:g} h of LRS3, {count} clips of {frames} frames"
        return data, count, frames
    first = None if preset.model.latent is not None else clips.clips([0])
    frames = clips.length if first is None else first.shape[1]
    subset = preset.extensions.get(FrameSubset)
    if subset is not None:
        frames = min(frames, 2 * subset.frames)
    count = len(clips)
    data = f"{preset.train.suite} ({count} training clips)"
    if first is not None and (isinstance(clips, TrainingView) or place.type == "cuda"):
        cached = min(count * first.nbytes, KEPT_BYTES)
        data += f", of which {format_size(cached)} of frames are kept in memory"
    return data, count, frames


def _stage(
    stage: Stage, fitted: Fitted, count: int, frames: int, precision: str, processes: int, flops: float
) -> tuple[list[str], float]:
    """Lines about a stage of a run over `count` clips of `frames` frames, and its duration in seconds at `flops`
    operations per second and process."""
    train = stage.preset.train
    counts = parameters(fitted)
    forward = forward_flops(fitted, frames)
    halves = stage.preset.extensions.get(SymmetricHalves)
    directions = 2 if halves is not None and halves.both else 1
    backward = 4 if train.activation_checkpointing else 3
    step = mean_forward_flops(fitted, frames, forward) * backward * train.batch * directions
    seconds = train.steps * step / (flops * processes)
    part = train.batch // (processes * train.accumulate)
    weights, activations = memory_bytes(
        fitted, frames, part, precision=precision, checkpointing=train.activation_checkpointing
    )
    less = " (less with train.activation_checkpointing=true or train.accumulate=N)"
    parts = ", ".join(f"{part} {number / 1e6:.1f} M" for part, number in counts.items())
    name = f"stage {stage.name}" if stage.name else "training"
    lines = [
        f"{name}: {sum(counts.values()) / 1e6:.1f} M parameters ({parts})",
        f"  work: {train.steps} steps of {train.batch} clips = {train.steps * train.batch} clips "
        f"= {train.steps * train.batch / count:.1f} epochs",
        f"  operations: {forward / 1e12:.3g} TFLOP per clip forward, {step / 1e12:.3g} TFLOP per step on average, "
        f"{train.steps * step / 1e18:.3g} EFLOP in total",
        f"  memory per process: about {format_size(weights)} for weights, "
        f"{format_size(activations * directions)} for activations of {part} clips at once"
        + ("" if train.activation_checkpointing else less),
        f"  time: about {seconds / 3600:.3g} h",
    ]
    return lines, seconds


def _free(path: Path) -> int:
    """Free bytes on the disk of `path`, which need not exist yet."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
