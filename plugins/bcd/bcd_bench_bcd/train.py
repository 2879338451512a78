"""`bcd-bench train bcd`: the loop, its checkpoints, log, sample grids and guards.

Every random number of a step comes from (seed, step, process), so a run that was stopped continues exactly as if it
had not been: nothing but the step count has to be remembered of the random state.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcd_bench.atomic import atomic_path, write_json_atomic
from bcd_bench.devices import fast_bf16, keep_freed_memory, resolve_device
from bcd_bench.errors import BcdBenchError, MissingAssetError, UsageError
from bcd_bench.progress import NoProgress, open_progress
from bcd_bench.specs import TrainingClips, TrainRequest
from bcd_bench.stopping import stopping
from bcd_bench.training import forget_after, save_torch, say_unfinished, writing_checkpoint
from bcd_bench_bcd import __version__
from bcd_bench_bcd.batches import Batches, check_parts
from bcd_bench_bcd.checkpoints import CHECKPOINT, LOG, WEIGHTS, read_checkpoint, start_from
from bcd_bench_bcd.configs import Preset, SamplerConfig
from bcd_bench_bcd.data import fitted_model_config, lit_shares, measures_light, open_training_clips
from bcd_bench_bcd.gradients import TrainingStep, gradients_of_batch, gradients_of_parts
from bcd_bench_bcd.guards import CollapseGuard
from bcd_bench_bcd.latents import FrameCodec
from bcd_bench_bcd.model import BCD, save_model
from bcd_bench_bcd.objective import ContentAdversary, Guide
from bcd_bench_bcd.optimizers import Optimizers
from bcd_bench_bcd.presets import PRESETS, resolve_preset
from bcd_bench_bcd.randomness import step_generator
from bcd_bench_bcd.stages import FINISHED, Limits, begun, keep_result, stage_presets
from bcd_bench_bcd.training_log import append_means
from bcd_bench_bcd.training_view import DeviceClips, some_of_each_half

__all__ = ["Trainer", "step_generator", "train"]

CALIBRATION_BATCH, CALIBRATION_BATCHES = 32, 16
"""Clips from which the grid of rounded content is measured: 512, in parts that fit any memory."""

PREVIEW_STEPS = 16
"""Most steps in which grids of latents are sampled: what the paper's 128 steps show, in a thirtieth of the time."""


def train(request: TrainRequest) -> None:
    """Train BCD as `request` says. Writes model.safetensors (EMA), config.json, log.jsonl, grids/ and checkpoint.pt,
    those of a stage into a folder of its name.
    """
    overrides = dict(request.overrides)
    preset = PRESETS.get(request.preset)
    if request.max_steps is not None and not (preset and (preset.train.stages or preset.train.epochs)):
        overrides["train.steps"] = overrides.get("train.steps", request.max_steps)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    if request.plan_only:
        from bcd_bench_bcd.planning import plan

        known = preset.model.latent is None or request.data
        print(plan(preset, request, open_training_clips(preset, request) if known else None))
        return
    clips = open_training_clips(preset, request)
    stages = stage_presets(preset, len(clips), request.out)
    done = begun(stages)
    if done and not request.resume:
        raise UsageError(
            f"{done[0]}: holds a training run already", hint="add --resume to continue it, or give another --out"
        )
    if request.resume and not done:
        raise UsageError(f"{request.out}: there is no checkpoint to resume", hint="start without --resume")
    limits = Limits(request.max_steps, request.max_minutes)
    for stage, folder in stages:
        if (folder / FINISHED).exists() and folder != stages[-1][1]:
            continue
        allowed = limits.steps(stage.train.steps_before)
        if allowed is not None and allowed <= 0:
            break
        trainer = Trainer(stage, clips, folder, request.device)
        trainer.start(resume=folder in done)
        if not trainer.run(max_steps=allowed, max_minutes=limits.minutes):
            return
    else:
        keep_result(stages[-1][1], request.out)


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
        from accelerate.state import AcceleratorState

        self.preset, self.clips, self.out = preset, clips, out
        place = resolve_device(device)
        if place.index is not None:
            torch.cuda.set_device(place)
        keep_freed_memory(place.type)
        precision = preset.train.precision
        if precision == "auto":
            precision = "bf16" if fast_bf16(place.type) else "fp32"
        self.precision = precision
        AcceleratorState._reset_state()  # else the precision of the process's first training would hold for all of them
        self.accelerator = Accelerator(cpu=place.type == "cpu", mixed_precision="no" if precision == "fp32" else "bf16")
        self.processes = self.accelerator.num_processes
        check_parts(preset, self.processes)
        self.store = DeviceClips(clips, self.accelerator.device)
        self.batches = Batches(len(clips), preset.train, self.processes, self.accelerator.process_index)
        torch.manual_seed(preset.train.seed)
        shares = lit_shares(clips, preset.model.decoder.patch) if measures_light(preset) else None
        self.model = BCD(fitted_model_config(preset, shares, getattr(clips, "latent", None))).train()
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
        self.codec = FrameCodec(self.average)
        if preset.train.compile == "auto" and place.type == "cuda":
            for block in (*self.model.decoder.blocks, *self.model.decoder.temporal.values(), self.model.encoder.t5):
                block.compile()
        self.wrapped: nn.Module = self.module
        if self.processes > 1:  # gradients are averaged over the processes
            self.wrapped = self.accelerator.prepare_model(self.module)
        self.optimizers = Optimizers(self.model, self.adversary, preset.train)
        self.earlier: dict[str, Any] | None = None
        self.progress = _Progress()
        self.guard = CollapseGuard(preset.objective.target_bits)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Prepare the folder: continue from its checkpoint, or begin. Raises `UsageError` where that does not fit."""
        if resume:
            self._load(self.out / CHECKPOINT)
            return
        if self.accelerator.is_main_process:
            try:
                (self.out / "grids").mkdir(parents=True, exist_ok=True)
                (self.out / LOG).write_text("")
                write_json_atomic(self.out / "config.json", self._description())
            except OSError as error:
                text = f"{self.out}: cannot be written ({error.strerror})"
                raise UsageError(text, hint="give another --out") from None
        if self.preset.train.init is not None:
            self.earlier = start_from(Path(self.preset.train.init), self.model, self.accelerator.device)
            self.average.load_state_dict(self.model.state_dict())
        elif self.preset.model.quantizer.codes_from_data:
            self._start_codes()
            self.average.load_state_dict(self.model.state_dict())

    def _start_codes(self) -> None:
        """Place the codebook on motion latents of training clips, the same ones in every process."""
        generator = step_generator(self.preset.train.seed, -1)
        batch = self._batch(generator, max(self.preset.train.batch, 64))
        with torch.no_grad(), self.accelerator.autocast():
            latents = self.model.features(self.model.values(batch), canvas=False)[1]
        self.model.quantizer.start_codes_from(latents, generator)
        if self.processes > 1:  # to the last bit, since gradients alone are exchanged from here on
            from accelerate.utils import broadcast

            for name in ("codebook", "running_mean", "running_std"):
                own = getattr(self.model.quantizer, name)
                own.data.copy_(broadcast(own.data))

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
        state = read_checkpoint(path, self.accelerator.device, self._description())
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizers.load_state_dicts(state["optimizers"])
        self.earlier = state["earlier"]
        self.progress = _Progress(state["step"], state["seconds"], state["window"])
        if self.accelerator.is_main_process:
            forget_after(self.out / LOG, self.progress.step)

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
        with writing_checkpoint(self.out, self.progress.step):
            save_torch(self.out / CHECKPOINT, state)
            self._calibrate()
            save_model(self.out / WEIGHTS, self.average, self.card())

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Fit the grid of the averaged model's rounded content to it, on whole training clips."""
        if self.average.bottleneck is None:
            return
        generator = step_generator(self.preset.train.seed, -3)
        batches = (self._batch(generator, CALIBRATION_BATCH) for _ in range(CALIBRATION_BATCHES))
        with self.accelerator.autocast():
            tokens = [self.average.features(self.average.values(batch))[0].float() for batch in batches]
        self.average.bottleneck.calibrate(torch.cat(tokens))

    def card(self) -> dict[str, Any]:
        """What the weights were trained on, how, and for how long; travels in the weight file."""
        train = self.preset.train
        return {
            "suite": train.suite,
            "step": self.progress.step,
            "clips": self.progress.step * train.batch,
            "hours": round(self.progress.seconds / 3600, 3),
            "device": str(self.accelerator.device.type),
            "precision": self.precision,
            "objective": self.preset.objective.model_dump(mode="json"),
            "sampler": self.preset.sampler.model_dump(mode="json"),
            "train": train.model_dump(mode="json", exclude={"init"}),
            "started_from": self.earlier,
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, *, max_steps: int | None = None, max_minutes: float | None = None) -> bool:
        """Train to the preset's last step, or to the limits; says whether it came to its own end. Interrupted or
        limited runs leave a checkpoint.
        """
        train, main = self.preset.train, self.accelerator.is_main_process
        last = min(train.steps, max_steps or train.steps)
        began = time.monotonic()
        name = f"train bcd{f' ({train.stage})' if train.stage else ''}"
        progress = open_progress() if main else NoProgress()
        with (
            stopping(insist=True) as stop,
            progress.task(name, total=last, done=self.progress.step, unit="steps") as task,
        ):
            while self.progress.step < last:
                tick = time.monotonic()
                values = self.step()
                self.progress.window.append(values)
                self.progress.seconds += time.monotonic() - tick
                task.advance()
                step = self.progress.step
                self.guard.check(step, values)
                if main and (step % train.log_every == 0 or step == last):
                    task.message(self._log())
                if step % train.checkpoint_every == 0:
                    self.save()
                if step % train.grid_every == 0 or step == last:
                    self.write_grid()
                spent = (time.monotonic() - began) / 60
                if self._agreed(stop() or (max_minutes is not None and spent >= max_minutes)):
                    break
        self.save()
        finished = self.progress.step >= train.steps
        if main and finished:
            write_json_atomic(self.out / FINISHED, {"step": self.progress.step})
        self.accelerator.wait_for_everyone()  # the next stage reads what this one wrote
        say_unfinished(self.progress.step, last, stopped=stop(), limit="the time is over", aloud=main)
        if main:
            print(f"weights: {self.out / WEIGHTS}")
        return finished

    def _agreed(self, flag: bool) -> bool:
        """Whether `flag` holds in any process, so that all stop after the same step."""
        if self.processes == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, "sum") > 0)

    def step(self) -> list[float]:
        """One optimiser step; returns the values of `Losses` in their order, then the gradient norm."""
        train, step = self.preset.train, self.progress.step
        if 0 < step == self.preset.objective.quantize_from:
            self._start_codes()
            self.average.quantizer.load_state_dict(self.model.quantizer.state_dict())
        rate = self.optimizers.set_rates(step)
        chances = self.patch_chances if step < train.patches_until * train.steps else None
        if train.order == "random":
            generator = step_generator(train.seed, step)
            batch, guide = self._guided_batch(generator, train.batch)
            losses = gradients_of_batch(
                self.accelerator, self.module, batch, step, self._tau(step), generator, chances, guide
            )
        else:
            parts = self.batches.parts(step)
            batches = [self.store.batch(part.indices, step) for part in parts]
            losses = gradients_of_parts(
                self.accelerator, self.wrapped, self.module, batches, parts, step, self._tau(step)
            )
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.gradient_clip)
        values = torch.cat([losses, norm.detach().float()[None]])
        numbers = (self.accelerator.reduce(values, "mean") if self.processes > 1 else values).tolist()
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
        """Clips drawn with replacement."""
        return self._guided_batch(generator, size, guided=False)[0]

    def _guided_batch(
        self, generator: torch.Generator, size: int, *, guided: bool = True
    ) -> tuple[Tensor, Guide | None]:
        """Clips drawn with replacement, and where points of the head are in them, if that guides the training."""
        train = self.preset.train
        indices = torch.randint(len(self.clips), (size,), generator=generator).tolist()
        clips = self.store.batch(indices)
        guide = None
        if guided and self.preset.objective.guide:
            points = torch.from_numpy(self.clips.points(indices)).to(clips.device)  # type: ignore[attr-defined]
            rest = torch.from_numpy(self.clips.rest_points).to(clips.device)  # type: ignore[attr-defined]
            guide = Guide(points, rest.expand(size, -1, -1))
        half = train.half_frames
        if half is not None and 2 * half < clips.shape[1]:
            chosen = some_of_each_half(clips.shape[1], half, generator)
            clips = clips[:, chosen]
            guide = None if guide is None else Guide(guide.points[:, chosen], guide.rest)
        if train.mirror:
            mirrored = (torch.rand(size, generator=generator) < 0.5).to(clips.device)
            clips = torch.where(mirrored.view(-1, 1, 1, 1, 1), clips.flip(3), clips)
            guide = None if guide is None else guide.mirrored(mirrored)
        return clips, guide

    def _tau(self, step: int) -> float:
        """Gumbel temperature: exponential from tau_start to tau_end over the run, or by a factor a step (Sec. 3.2)."""
        quantizer = self.preset.model.quantizer
        if quantizer.tau_decay is not None:
            steps = self.preset.train.steps_before + step
            return max(quantizer.tau_start * quantizer.tau_decay**steps, quantizer.tau_end)
        return quantizer.tau_start * (quantizer.tau_end / quantizer.tau_start) ** (step / self.preset.train.steps)

    @torch.no_grad()
    def _average(self, step: int) -> None:
        """Exponential moving average of the weights, with a short memory at the start, and where new parts start."""
        objective = self.preset.objective
        age = step - max(start for start in (0, objective.canvas_from, objective.draw_from) if start <= step)
        decay = min(self.preset.train.ema, (1 + age) / (10 + age))
        torch._foreach_lerp_(list(self.average.parameters()), [p.detach() for p in self.model.parameters()], 1 - decay)
        for mine, theirs in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)

    def _log(self) -> str:
        step, window = self.progress.step, self.progress.window
        self.progress.window = []
        rate = self.preset.train.batch * step / max(self.progress.seconds, 1e-9)
        return append_means(self.out / LOG, window, step, self._tau(step - 1), rate)

    @torch.no_grad()
    def write_grid(self) -> None:
        """Four swaps of training clips by the averaged weights: rows of content, motion and result."""
        from bcd_bench_bcd.grids import swap_grid

        if not self.accelerator.is_main_process:
            return
        try:
            self.codec.open()
        except (MissingAssetError, UsageError) as error:  # training needs latents alone
            print(f"no grid: {error}")
            return
        sampler = self.preset.sampler
        if self.preset.model.latent is not None and sampler.steps > PREVIEW_STEPS:
            sampler = SamplerConfig(name="dpmpp-2m", steps=PREVIEW_STEPS, guidance=sampler.guidance)
        generator = step_generator(self.preset.train.seed, -2)
        batch = self._batch(generator, 8)
        with self.accelerator.autocast():
            image = swap_grid(self.average, self.codec, batch[:4], batch[4:], sampler, generator)
        path = self.out / "grids" / f"step-{self.progress.step:07d}.png"
        with atomic_path(path) as temporary:
            image.save(temporary, format="PNG")
