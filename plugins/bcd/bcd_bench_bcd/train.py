"""`bcd-bench train bcd`: the loop, its checkpoints, log, sample grids and guards.

Every random number of a step comes from (seed, step, process), so a run that was stopped continues exactly as if it
had not been: nothing but the step count has to be remembered of the random state.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bcd_bench.atomic import atomic_path, write_json_atomic
from bcd_bench.errors import BcdBenchError, UsageError
from bcd_bench.identity import sha256_file
from bcd_bench.progress import open_progress
from bcd_bench.specs import TrainingClips, TrainRequest
from bcd_bench.stopping import stopping
from bcd_bench_bcd import __version__
from bcd_bench_bcd.configs import ModelConfig, Preset
from bcd_bench_bcd.data import fitted_model_config, lit_shares, measures_light, open_training_clips
from bcd_bench_bcd.devices import fast_bf16, resolve_device
from bcd_bench_bcd.guards import CollapseGuard
from bcd_bench_bcd.model import BCD, load_model, save_model, to_unit
from bcd_bench_bcd.objective import ContentAdversary, Losses, training_loss
from bcd_bench_bcd.optimizers import Optimizers
from bcd_bench_bcd.presets import resolve_preset
from bcd_bench_bcd.training_view import some_of_each_half, training_view

__all__ = ["Trainer", "step_generator", "train"]

CHECKPOINT = "checkpoint.pt"
WEIGHTS = "model.safetensors"
LOG = "log.jsonl"
CALIBRATION_BATCH, CALIBRATION_BATCHES = 32, 16
"""Clips from which the grid of rounded content is measured: 512, in parts that fit any memory."""


def train(request: TrainRequest) -> None:
    """Train BCD as `request` says. Writes model.safetensors (EMA), config.json, log.jsonl, grids/ and checkpoint.pt."""
    overrides = dict(request.overrides)
    if request.max_steps is not None:
        overrides["train.steps"] = overrides.get("train.steps", request.max_steps)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    clips = training_view(open_training_clips(preset.train.suite, request), preset.train)
    trainer = Trainer(preset, clips, request.out, request.device)
    if request.plan_only:
        print(trainer.plan())
        return
    trainer.start(resume=request.resume)
    trainer.run(max_steps=request.max_steps, max_minutes=request.max_minutes)


def step_generator(seed: int, step: int, process: int = 0) -> torch.Generator:
    """The random numbers of one step of one process, on the CPU."""
    digest = hashlib.sha256(f"bcd-train/{seed}/{step}/{process}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)


class TrainingStep(nn.Module):
    """Model, adversary and loss as one module, so that data-parallel wrappers see one forward call."""

    def __init__(self, model: BCD, adversary: ContentAdversary | None, preset: Preset) -> None:
        super().__init__()
        self.model, self.adversary, self.preset = model, adversary, preset

    def forward(
        self, clips: Tensor, step: int, tau: float, generator: torch.Generator, patch_chances: Tensor | None = None
    ) -> Losses:
        return training_loss(
            self.model,
            self.adversary,
            clips,
            self.preset.objective,
            tau=tau,
            step=step,
            direction=self.preset.train.direction,
            generator=generator,
            patch_chances=patch_chances,
        )


@dataclass
class _Progress:
    step: int = 0
    seconds: float = 0.0
    window: list[list[float]] = field(default_factory=list)
    """Values of the steps since the last line of the log."""


class Trainer:
    """One training run in one folder."""

    def __init__(self, preset: Preset, clips: TrainingClips, out: Path, device: str) -> None:
        from accelerate import Accelerator

        self.preset, self.clips, self.out = preset, clips, out
        place = resolve_device(device)
        if place.index is not None:
            torch.cuda.set_device(place)
        precision = preset.train.precision
        if precision == "auto":
            precision = "bf16" if fast_bf16(place.type) else "fp32"
        self.precision = precision
        self.accelerator = Accelerator(cpu=place.type == "cpu", mixed_precision="no" if precision == "fp32" else "bf16")
        torch.manual_seed(preset.train.seed)
        shares = lit_shares(clips, preset.model.decoder.patch) if measures_light(preset) else None
        self.model = BCD(fitted_model_config(preset, shares)).train()
        self.model.decoder.recompute = preset.train.recompute
        self.patch_chances: Tensor | None = None
        if preset.train.patch_floor < 1 and shares is not None:
            drawn = torch.from_numpy(shares).float()[self.model.decoder.drawn]
            self.patch_chances = drawn.sqrt().clamp(preset.train.patch_floor, 1)
            self.patch_chances[drawn.argmax()] = 1  # at least one patch in every step
        config = self.model.config
        self.adversary = None
        if preset.objective.adversary:
            values = config.encoder.content_tokens * config.encoder.width
            self.adversary = ContentAdversary(values, config.quantizer.groups, config.quantizer.entries)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.module = TrainingStep(self.model, self.adversary, preset).to(self.accelerator.device)
        self.average.to(self.accelerator.device)
        self.optimizers = Optimizers(self.model, self.adversary, preset.train)
        self.earlier: dict[str, Any] | None = None
        self.progress = _Progress()
        self.guard = CollapseGuard(preset.objective.target_bits)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Prepare the folder: continue from its checkpoint, or begin. Raises `UsageError` where that does not fit."""
        path = self.out / CHECKPOINT
        if resume and path.exists():
            self._load(path)
            return
        if resume:
            raise UsageError(f"{self.out}: there is no checkpoint to resume", hint="start without --resume")
        if path.exists():
            raise UsageError(
                f"{self.out}: holds a training run already", hint="add --resume to continue it, or give another --out"
            )
        try:
            (self.out / "grids").mkdir(parents=True, exist_ok=True)
            (self.out / LOG).write_text("")
        except OSError as error:
            raise UsageError(f"{self.out}: cannot be written ({error.strerror})", hint="give another --out") from None
        write_json_atomic(self.out / "config.json", self._description())
        if self.preset.train.init is not None:
            self._start_from(Path(self.preset.train.init))
        elif self.preset.model.quantizer.codes_from_data:
            generator = step_generator(self.preset.train.seed, -1)
            batch = self._batch(generator, max(self.preset.train.batch, 64))
            with torch.no_grad(), self.accelerator.autocast():
                latents = self.model.features(to_unit(batch))[1]
            self.model.quantizer.start_codes_from(latents, generator)
            self.average.load_state_dict(self.model.state_dict())

    def _start_from(self, path: Path) -> None:
        """Take the weights of an earlier stage; its card travels on in ours."""
        earlier, card = load_model(path, str(self.accelerator.device))
        old, new = (_architecture(model.config) for model in (earlier, self.model))
        if old != new:
            difference = _first_difference(old, new)
            raise UsageError(f"{path}: weights of another architecture: {difference}")
        self.model.load_state_dict(earlier.state_dict())
        self.average.load_state_dict(earlier.state_dict())
        self.earlier = {"sha256": sha256_file(path), **card}

    def _description(self) -> dict[str, Any]:
        return {
            "what": "BCD training run",
            "version": __version__,
            "preset": self.preset.model_dump(mode="json"),
            "model": self.model.config.model_dump(mode="json"),
            "precision": self.precision,
            "device": str(self.accelerator.device.type),
            "torch": str(torch.__version__),
        }

    def _load(self, path: Path) -> None:
        try:
            state = torch.load(path, map_location=self.accelerator.device, weights_only=True)
        except Exception as error:  # noqa: BLE001 (torch raises many kinds for a damaged file)
            raise UsageError(
                f"{path}: cannot be read ({str(error).splitlines()[0]})", hint="train again with another --out"
            ) from None
        description = json.loads(json.dumps(self._description()))
        for part in ("preset", "model", "precision"):
            if state["description"][part] != description[part]:
                difference = _first_difference(state["description"][part], description[part])
                raise UsageError(
                    f"{path}: was made with another {part}: {difference}",
                    hint="resume with the settings it was started with (see config.json beside it)",
                )
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizers.load_state_dicts(state["optimizers"])
        self.earlier = state["earlier"]
        self.progress = _Progress(state["step"], state["seconds"], state["window"])
        log = self.out / LOG
        kept = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= self.progress.step]
        log.write_text("".join(f"{line}\n" for line in kept))

    def save(self) -> None:
        """Write checkpoint.pt and model.safetensors, each whole or not at all."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": self.optimizers.state_dicts(),
            "step": self.progress.step,
            "earlier": self.earlier,
            "seconds": self.progress.seconds,
            "window": self.progress.window,
            "description": self._description(),
        }
        with atomic_path(self.out / CHECKPOINT) as temporary:
            torch.save(state, temporary)
        self._calibrate()
        save_model(self.out / WEIGHTS, self.average, self.card())

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Fit the grid of the averaged model's rounded content to it, on whole training clips."""
        if self.average.bottleneck is None:
            return
        generator = step_generator(self.preset.train.seed, -3)
        batches = [self._batch(generator, CALIBRATION_BATCH) for _ in range(CALIBRATION_BATCHES)]
        with self.accelerator.autocast():
            tokens = [self.average.features(to_unit(batch))[0].float() for batch in batches]
        self.average.bottleneck.calibrate(torch.cat(tokens))

    def card(self) -> dict[str, Any]:
        """What the weights were trained on, how, and for how long; travels in the weight file."""
        train = self.preset.train
        return {
            "suite": train.suite,
            "step": self.progress.step,
            "clips": self.progress.step * train.batch * self.accelerator.num_processes,
            "hours": round(self.progress.seconds / 3600, 3),
            "device": str(self.accelerator.device.type),
            "precision": self.precision,
            "objective": self.preset.objective.model_dump(mode="json"),
            "sampler": self.preset.sampler.model_dump(mode="json"),
            "train": train.model_dump(mode="json", exclude={"init"}),
            "started_from": self.earlier,
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, *, max_steps: int | None = None, max_minutes: float | None = None) -> None:
        """Train to the preset's last step, or to the limits. Interrupted or limited runs leave a checkpoint."""
        train = self.preset.train
        last = min(train.steps, max_steps or train.steps)
        began = time.monotonic()
        with (
            stopping(insist=True) as stop,
            open_progress().task("train bcd", total=last, done=self.progress.step, unit="steps") as task,
        ):
            while self.progress.step < last:
                tick = time.monotonic()
                values = self.step()
                self.progress.window.append(values)
                self.progress.seconds += time.monotonic() - tick
                task.advance()
                step = self.progress.step
                self.guard.check(step, values)
                if step % train.log_every == 0 or step == last:
                    task.message(self._log())
                if step % train.checkpoint_every == 0:
                    self.save()
                if step % train.grid_every == 0 or step == last:
                    self.write_grid()
                spent = (time.monotonic() - began) / 60
                if stop() or (max_minutes is not None and spent >= max_minutes):
                    break
        self.save()
        if self.progress.step < last:
            why = "stopped" if stop() else f"--max-minutes {max_minutes:g} is over"
            message = f"{why} at step {self.progress.step} of {last}; everything is saved"
            if stop():
                from bcd_bench.errors import Interrupted

                raise Interrupted(message, hint="run the same command with --resume")
            print(message + "; the same command with --resume continues")
        print(f"weights: {self.out / WEIGHTS}")

    def step(self) -> list[float]:
        """One optimiser step; returns the values of `Losses` in their order, then the gradient norm."""
        train, step = self.preset.train, self.progress.step
        rate = self.optimizers.set_rates(step)
        generator = step_generator(train.seed, step, self.accelerator.process_index)
        batch = self._batch(generator, train.batch)
        with self.accelerator.autocast():
            chances = self.patch_chances if step < train.patches_until * train.steps else None
            losses = self.module(batch, step, self._tau(step), generator, chances)
        self.accelerator.backward(losses.total)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.gradient_clip)
        values = [*vars(losses).values(), norm]
        numbers = torch.stack([v.detach().float() for v in values]).tolist()
        if not all(math.isfinite(n) for n in numbers):
            raise BcdBenchError(
                f"step {step}: the loss is not finite (loss {numbers[0]:g}, gradient norm {numbers[-1]:g}); "
                "nothing was updated",
                hint=f"resume from the last checkpoint in {self.out} with a lower --set train.lr (now {rate:.1e})",
            )
        self.optimizers.step()
        self._average(step)
        self.progress.step += 1
        return numbers

    def _batch(self, generator: torch.Generator, size: int) -> Tensor:
        indices = torch.randint(len(self.clips), (size,), generator=generator).tolist()
        clips = torch.from_numpy(self.clips.clips(indices))
        half = self.preset.train.half_frames
        if half is not None and 2 * half < clips.shape[1]:
            clips = clips[:, some_of_each_half(clips.shape[1], half, generator)]
        if self.preset.train.mirror:
            mirrored = torch.rand(size, generator=generator) < 0.5
            clips = torch.where(mirrored.view(-1, 1, 1, 1, 1), clips.flip(3), clips)
        return clips.to(self.accelerator.device)

    def _tau(self, step: int) -> float:
        """Gumbel temperature: exponential from tau_start to tau_end over the run (Sec. 3.2)."""
        quantizer = self.preset.model.quantizer
        return quantizer.tau_start * (quantizer.tau_end / quantizer.tau_start) ** (step / self.preset.train.steps)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Exponential moving average of the weights, with a short memory at the start."""
        decay = min(self.preset.train.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.average.parameters()), [p.detach() for p in self.model.parameters()], 1 - decay)
        for mine, theirs in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)

    def _log(self) -> str:
        if not self.accelerator.is_main_process:
            return ""
        means = np.mean(self.progress.window, axis=0).tolist()
        loss, diffusion, bits, conditional, content, adversary, cycle, cycle_content, norm = means
        self.progress.window = []
        step = self.progress.step
        line = {
            "step": step,
            "loss": loss,
            "diffusion": diffusion,
            "bits": bits,
            "conditional_bits": conditional,
            "content_bits": content,
            "adversary": adversary,
            "cycle": cycle,
            "cycle_content": cycle_content,
            "gradient_norm": norm,
            "tau": self._tau(step - 1),
        }
        with (self.out / LOG).open("a") as file:
            file.write(json.dumps(line) + "\n")
        rate = self.preset.train.batch * self.accelerator.num_processes * step / max(self.progress.seconds, 1e-9)
        return (
            f"step {step}: diffusion {diffusion:.4f}, {bits:.2f} bits per frame ({conditional:.2f} undecided), "
            f"content {content:.1f} bits, "
            f"gradient norm {norm:.2f}, {rate:.1f} clips/s"
        )

    @torch.no_grad()
    def write_grid(self) -> None:
        """Four swaps of training clips by the averaged weights: rows of content, motion and result."""
        from bcd_bench_bcd.grids import swap_grid

        if not self.accelerator.is_main_process:
            return
        generator = step_generator(self.preset.train.seed, -2)
        batch = self._batch(generator, 8)
        with self.accelerator.autocast():
            image = swap_grid(self.average, batch[:4], batch[4:], self.preset.sampler, generator)
        path = self.out / "grids" / f"step-{self.progress.step:07d}.png"
        with atomic_path(path) as temporary:
            image.save(temporary, format="PNG")

    # ---- what would be done --------------------------------------------------------------------------------------
    def plan(self) -> str:
        """Parameters, clips and an estimate of the time from real steps on this device; trains nothing."""
        train = self.preset.train
        count = sum(p.numel() for p in self.model.parameters())
        times = []
        for _ in range(3):
            tick = time.monotonic()
            self.step()
            times.append(time.monotonic() - tick)
        seconds = min(times[1:])
        clips = train.steps * train.batch
        quantizer = self.preset.model.quantizer
        capacity = quantizer.groups * math.log2(quantizer.entries)
        hours = seconds * train.steps / 3600
        parts = {
            name: sum(p.numel() for p in getattr(self.model, name).parameters())
            for name in ("encoder", "quantizer", "decoder")
        }
        return "\n".join(
            [
                f"suite: {train.suite} ({len(self.clips)} training clips)",
                f"parameters: {count / 1e6:.1f} M ({', '.join(f'{k} {v / 1e6:.1f} M' for k, v in parts.items())})",
                f"capacity: {capacity:.1f} bits per frame, target {self.preset.objective.target_bits:g}",
                f"work: {train.steps} steps of {train.batch} clips = {clips} clips "
                f"= {clips / len(self.clips):.1f} epochs",
                f"speed here ({self.accelerator.device.type}, {self.precision}): {seconds:.2f} s a step, "
                f"{train.batch / seconds:.1f} clips/s, {hours:.2f} h in all",
            ]
        )


def _architecture(config: ModelConfig) -> dict[str, Any]:
    """The configuration without what only training looks at: noise levels, loss weight, Gumbel temperature."""
    only_training = {"diffusion": {"p_mean", "p_std", "weight_max"}, "quantizer": {"tau_start", "tau_end"}}
    return config.model_dump(mode="json", exclude=only_training)


def _first_difference(old: Any, new: Any, where: str = "") -> str:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{where}.{key}".lstrip("."))
    return f"{where} was {old!r}, is {new!r}" if where else f"{old!r} is not {new!r}"
