"""`bcd-bench train cdsvae`: the training step, and the files a run writes.

Every random number of a step comes from (seed, step), so an interrupted run resumes exactly as if it had not been
interrupted.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import nn

from bcd_bench.io.atomic import atomic_path
from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import (
    EMA,
    Limits,
    Parts,
    RunCheckpoint,
    TrainingLog,
    TrainingLoop,
    check_finite,
    checkpoints_to_resume,
    count_parameters,
    open_training_clips,
    resolve_precision,
    seconds_per_step,
)
from bcd_bench.util.devices import keep_freed_memory, resolve_device
from bcd_bench_baselines.cdsvae.model import CDSVAE, save_model, to_frames, to_unit
from bcd_bench_baselines.cdsvae.objective import training_loss
from bcd_bench_baselines.cdsvae.presets import NOT_RESULTS, Preset, resolve_preset

__all__ = ["Trainer", "train"]

WHAT = "C-DSVAE training run"
WEIGHTS, SAMPLES = "model.safetensors", "samples.png"


def train(request: TrainRequest) -> None:
    """Train C-DSVAE as requested. Writes model.safetensors, config.json, log.jsonl, samples.png and checkpoint.pt.

    Raises `UsageError` for invalid settings, an unavailable device, or a folder that does not fit.
    """
    overrides = dict(request.overrides)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    trainer = Trainer(preset, open_training_clips(preset.train.suite, request), request)
    if request.plan_only:
        print(trainer.plan())
        return
    trainer.start(resume=request.resume)
    trainer.run(Limits.of(request))


class Trainer:
    """One training run in one folder."""

    def __init__(self, preset: Preset, clips: TrainingClips, request: TrainRequest) -> None:
        train = preset.train
        self.preset, self.clips, self.out = preset, clips, request.out
        self.device = resolve_device(request.device)
        keep_freed_memory(self.device.type)
        self.precision = resolve_precision(train.precision, self.device.type)
        torch.manual_seed(train.seed)
        self.model = CDSVAE(preset.model).to(self.device).train()
        self.ema = EMA(self.model, train.ema, ramp=(0, 10))
        self.model.bf16 = self.precision == "bf16"
        self.optimizer = torch.optim.Adam(self.model.parameters(), train.lr)
        name, log = f"train cdsvae {train.suite}", TrainingLog(self.out, digits=5, tracker=train.tracker)
        self.loop = TrainingLoop(name, train.steps, log, log_every=train.log_every, save_every=train.checkpoint_every)
        settings = {
            "preset": preset.model_dump(mode="json", exclude=NOT_RESULTS),
            "precision": self.precision,
        }
        self.checkpoint = RunCheckpoint(self.out, WHAT, self.loop, settings, self.device)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Resume from the folder's checkpoint, or begin. Raises `UsageError` if the folder does not fit."""
        self.checkpoint.start(self._parts(), resume=bool(checkpoints_to_resume(self.out, resume=resume)))

    def save(self) -> None:
        """Write the checkpoint, the weights and a grid of swaps, each atomically."""
        with self.checkpoint.saving(self._parts()):
            save_model(self.out / WEIGHTS, self.ema.module, self.card())
            self._draw_samples()

    def _parts(self) -> Parts:
        return {"model": self.model, "average": self.ema.module, "optimizer": self.optimizer}

    def card(self) -> dict[str, Any]:
        """Training data, settings and duration of the weights; stored in the weight file."""
        return {
            "suite": self.preset.train.suite,
            "step": self.loop.step,
            "clips": self.loop.step * self.preset.train.batch,
            "hours": round(self.loop.seconds / 3600, 3),
            "device": self.device.type,
            "precision": self.precision,
            "objective": self.preset.objective.model_dump(mode="json"),
            "train": self.preset.train.model_dump(mode="json", exclude=NOT_RESULTS["train"]),
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, limits: Limits) -> None:
        """Train to the preset's last step, or to the limits. Interrupted or limited runs leave a checkpoint."""
        self.loop.run(limits, self.train_step, self.save, derive=self._psnr, describe=self._in_words)
        print(f"weights: {self.out / WEIGHTS}")

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the terms of `Losses` by name, and the norm of the gradient before clipping."""
        train = self.preset.train
        generator = _generator(train.seed, step)
        indices = torch.randint(len(self.clips), (train.batch,), generator=generator).tolist()
        batch = to_unit(torch.from_numpy(self.clips.clips(indices)).to(self.device))
        losses = training_loss(self.model, batch, self.preset.objective, total=len(self.clips), generator=generator)
        self.optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.gradient_clip)
        values = {field.name: float(getattr(losses, field.name).detach()) for field in fields(losses)}
        values["gradient_norm"] = float(norm.detach())
        check_finite(step, values, rate=train.lr, setting="train.lr")
        for group in self.optimizer.param_groups:
            group["lr"] = train.lr * min(1.0, (step + 1) / (train.warmup + 1))
        self.optimizer.step()
        self.ema.update(self.model, step)
        return values

    def _psnr(self, line: Mapping[str, float]) -> dict[str, float]:
        """PSNR of the reconstruction in dB, from its error, which is a sum over the pixels of a clip."""
        frames = int(self.clips.clips([0]).shape[1])
        pixels = 3 * math.prod(self.preset.model.frame_size) * frames
        return {"psnr": round(10 * math.log10(pixels / line["reconstruction"]), 3)}

    def _in_words(self, line: Mapping[str, float]) -> str:
        rate = self.preset.train.batch * self.loop.step / max(self.loop.seconds, 1e-9)
        terms = ", ".join(
            f"{name} {value:.3g}" for name, value in line.items() if name not in ("total", "reconstruction", "psnr")
        )
        return f"loss {line['total']:.1f}, {line['psnr']:.2f} dB, {terms}, {rate:.1f} clips/s"

    @torch.no_grad()
    def _draw_samples(self) -> None:
        """Write four swaps of training clips: rows of content, motion, result, and a separator between blocks."""
        from PIL import Image

        generator = _generator(self.preset.train.seed, -1)
        indices = torch.randint(len(self.clips), (8,), generator=generator).tolist()
        clips = torch.from_numpy(self.clips.clips(indices)).to(self.device)
        content, motion = clips[:4], clips[4:]
        static = self.ema.module.posterior_f(self.ema.module.features(to_unit(content))).mean
        dynamic = self.ema.module.posterior_z(self.ema.module.features(to_unit(motion))).mean
        swapped = to_frames(self.ema.module.decode(static, dynamic))
        rows = []
        for block in zip(content, motion, swapped, strict=True):
            rows += [torch.cat(list(clip), 1) for clip in block]
            rows.append(torch.full((4, rows[-1].shape[1], 3), 128, dtype=torch.uint8, device=self.device))
        with atomic_path(self.out / SAMPLES) as temporary:
            Image.fromarray(torch.cat(rows).cpu().numpy()).save(temporary, format="PNG")

    # ---- what would be done --------------------------------------------------------------------------------------
    def plan(self) -> str:
        """Parameters, clips and an estimate of the time from real steps on this device; writes nothing."""
        train = self.preset.train
        seconds = seconds_per_step(self.train_step)
        parts = {name: count_parameters(part) for name, part in self.model.named_children()}
        clips = train.steps * train.batch
        return "\n".join(
            [
                f"suite: {train.suite} ({len(self.clips)} training clips)",
                f"parameters: {sum(parts.values()) / 1e6:.2f} M "
                f"({', '.join(f'{name} {count / 1e6:.2f} M' for name, count in parts.items())})",
                f"work: {train.steps} steps of {train.batch} clips = {clips} clips "
                f"= {clips / len(self.clips):.1f} epochs",
                f"speed here ({self.device.type}, {self.precision}): {seconds:.2f} s per step, "
                f"{train.batch / seconds:.1f} clips/s, {seconds * train.steps / 3600:.2f} h in total",
            ]
        )


def _generator(seed: int, step: int) -> torch.Generator:
    digest = hashlib.sha256(f"cdsvae-train/{seed}/{step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
