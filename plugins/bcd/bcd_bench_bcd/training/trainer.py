"""`bcd-bench train bcd`: the loop, its checkpoints, log, sample grids and guards.

Every random number of a step comes from (seed, step, process), so a run that was stopped continues exactly as if it
had not been: the step count is all that has to be kept of the random state.
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
from bcd_bench_bcd.extensions.base import Batch, Keypoints
from bcd_bench_bcd.extensions.canonical_features import CanonicalFeatures
from bcd_bench_bcd.extensions.keypoint_supervision import KeypointSupervision
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.patch_skipping import SKIP_UNTIL, PatchSkipping, keep_probabilities
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.inference.weights import Description, save_model
from bcd_bench_bcd.latents.frame_codec import FrameCodec
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.presets.registry import PRESETS, resolve_preset
from bcd_bench_bcd.training.checkpoint import CHECKPOINT, LOG, WEIGHTS, read_checkpoint, start_from
from bcd_bench_bcd.training.collapse import CollapseGuard, condition_contributions
from bcd_bench_bcd.training.data import fit_to_data, needs_patch_occupancy, open_training_clips, patch_occupancy
from bcd_bench_bcd.training.dataset import DeviceClips
from bcd_bench_bcd.training.log import append_means, sentence
from bcd_bench_bcd.training.optimizers import Optimizers
from bcd_bench_bcd.training.rng import step_generator
from bcd_bench_bcd.training.sharding import Batches, check_parts
from bcd_bench_bcd.training.stages import FINISHED, Limits, Stage, copy_result, stages_of, started
from bcd_bench_bcd.training.step import TrainingStep, gradients_of_batch, gradients_of_parts

__all__ = ["Trainer", "train"]

CALIBRATION_BATCH, CALIBRATION_BATCHES = 32, 16
"""Clips from which the grid of rounded content is measured: 512, in parts that fit any memory."""
PREVIEW_STEPS = 16
"""Most steps in which grids of latents are sampled: what the paper's 128 steps show, in a thirtieth of the time."""
CODES, CALIBRATION, GRID, CONTRIBUTION = -1, -3, -2, "contribution"
"""Keys of random numbers that belong to no step."""


def train(request: TrainRequest) -> None:
    """Train BCD. Writes model.safetensors (moving average), config.json, log.jsonl, grids/ and checkpoint.pt; those of
    a stage into a folder of its name.
    """
    overrides = dict(request.overrides)
    preset = PRESETS.get(request.preset)
    if request.max_steps is not None and not (preset and (preset.train.stages or preset.train.epochs)):
        overrides["train.steps"] = overrides.get("train.steps", request.max_steps)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    if request.plan_only:
        from bcd_bench_bcd.training.plan import plan

        known = preset.model.latent is None or request.data
        print(plan(preset, request, open_training_clips(preset, request) if known else None))
        return
    clips = open_training_clips(preset, request)
    stages = stages_of(preset, len(clips), request.out)
    done = started(stages)
    if done and not request.resume:
        raise UsageError(
            f"{done[0]}: holds a training run already", hint="add --resume to continue it, or give another --out"
        )
    if request.resume and not done:
        raise UsageError(f"{request.out}: there is no checkpoint to resume", hint="start without --resume")
    limits = Limits(request.max_steps, request.max_minutes)
    for stage in stages:
        if (stage.folder / FINISHED).exists() and stage.folder != stages[-1].folder:
            continue
        allowed = limits.steps(stage.steps_before)
        if allowed is not None and allowed <= 0:
            break
        trainer = Trainer(stage, clips, request.device)
        trainer.start(resume=stage.folder in done)
        if not trainer.run(max_steps=allowed, max_minutes=limits.minutes):
            return
    else:
        copy_result(stages[-1].folder, request.out)


@dataclass
class _Progress:
    step: int = 0
    seconds: float = 0.0
    window: list[dict[str, float]] = field(default_factory=list)
    """Losses of the steps since the last line of the log."""


class Trainer:
    """One stage of a training run in one folder."""

    def __init__(self, stage: Stage, clips: TrainingClips, device: str) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        self.stage, self.preset, self.clips, self.out = stage, stage.preset, clips, stage.folder
        preset = stage.preset
        place = resolve_device(device)
        if place.index is not None:
            torch.cuda.set_device(place)
        keep_freed_memory(place.type)
        precision = preset.train.precision
        if precision == "auto":
            precision = "bf16" if fast_bf16(place.type) else "fp32"
        self.precision = precision
        AcceleratorState._reset_state()  # else the precision of the process's first training would hold for all
        self.accelerator = Accelerator(cpu=place.type == "cpu", mixed_precision="no" if precision == "fp32" else "bf16")
        self.processes = self.accelerator.num_processes
        check_parts(preset, self.processes)
        self.store = DeviceClips(clips, self.accelerator.device)
        self.batches = Batches(len(clips), preset.train, self.processes, self.accelerator.process_index)
        torch.manual_seed(preset.train.seed)
        self._build(clips)
        self.average.to(self.accelerator.device)
        self.pipeline = Pipeline(self.average, preset.inference.window)
        self.codec = FrameCodec(self.average, self.description.autoencoder_sha256)
        if preset.train.compile == "auto" and place.type == "cuda":
            for block in (*self.model.decoder.transformer_blocks(), self.model.encoder.t5):
                block.compile()
        self.wrapped: nn.Module = self.module
        if self.processes > 1:  # gradients are averaged over the processes
            self.wrapped = self.accelerator.prepare_model(self.module)
        self.optimizers = Optimizers(self.model, preset.train, preset.extensions)
        self.earlier: dict[str, Any] | None = None
        self.progress = _Progress()
        self.guard = CollapseGuard(preset.objective.target_bits)

    def _build(self, clips: TrainingClips) -> None:
        """The model, its moving average, and what of them depends on the training clips."""
        preset = self.preset
        occupancy = None
        if needs_patch_occupancy(preset):
            occupancy = patch_occupancy(clips, preset.model.decoder.patch)
        fitted = fit_to_data(preset, occupancy)
        self.model = fitted.build().train()
        latent = getattr(clips, "latent", None)
        if latent is not None:
            self.model.set_latent_statistics(latent.mean, latent.std)
        self.description = Description(
            model=fitted.config,
            extensions=preset.extensions,
            inference=preset.inference,
            sampler=preset.sampler,
            active_patches=fitted.active_patches,
            autoencoder_sha256="" if latent is None else latent.sha256,
        )
        self.model.decoder.activation_checkpointing = preset.train.activation_checkpointing
        self.keep_probabilities: Tensor | None = None
        skipping = preset.extensions.get(PatchSkipping)
        if skipping is not None and skipping.min_keep_prob < 1 and occupancy is not None:
            active = torch.from_numpy(occupancy).float()[list(fitted.active_patches or ())]
            self.keep_probabilities = keep_probabilities(active, skipping.min_keep_prob)
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.module = TrainingStep(self.model, preset).to(self.accelerator.device)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Prepare the folder: continue from its checkpoint, or begin. Raises `UsageError` if that is not possible."""
        if resume:
            self._load(self.out / CHECKPOINT)
            return
        if self.accelerator.is_main_process:
            try:
                (self.out / "grids").mkdir(parents=True, exist_ok=True)
                (self.out / LOG).write_text("")
                write_json_atomic(self.out / "config.json", self._run())
            except OSError as error:
                text = f"{self.out}: cannot be written ({error.strerror})"
                raise UsageError(text, hint="give another --out") from None
        if self.preset.train.init is not None:
            path = Path(self.preset.train.init)
            self.earlier = start_from(path, self.model, self.description, self.accelerator.device)
            self.average.load_state_dict(self.model.state_dict())
        elif self.preset.model.quantizer.codes_from_data:
            self._start_codes()
            self.average.load_state_dict(self.model.state_dict())

    def _start_codes(self) -> None:
        """Place the codebook on motion latents of training clips, the same ones in every process."""
        generator = step_generator(self.preset.train.seed, CODES)
        clips = self._batch(generator, max(self.preset.train.batch, 64)).clips
        with torch.no_grad(), self.accelerator.autocast():
            values = self.model.values(clips)
            if isinstance(self.model, ExtendedBCD):
                latents = self.model.latents_of_motion(values)
            else:
                latents = self.model.encode(values)[1]
        self.model.quantizer.start_codes_from(latents, generator)
        if self.processes > 1:  # to the last bit, since only gradients are exchanged from here on
            from accelerate.utils import broadcast

            for tensor in (*self.model.quantizer.parameters(), *self.model.quantizer.buffers()):
                tensor.data.copy_(broadcast(tensor.data))

    def _run(self) -> dict[str, Any]:
        """What identifies the run; a checkpoint of another one is refused."""
        return {
            "what": "BCD training run",
            "version": __version__,
            "recipe": list(self.preset.recipe),
            "preset": self.preset.model_dump(mode="json"),
            "model": self.description.model_dump(mode="json"),
            "stage": self.stage.name,
            "precision": self.precision,
            "device": str(self.accelerator.device.type),
            "torch": str(torch.__version__),
        }

    def _load(self, path: Path) -> None:
        state = read_checkpoint(path, self.accelerator.device, self._run())
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
            "run": self._run(),
        }
        with writing_checkpoint(self.out, self.progress.step):
            save_torch(self.out / CHECKPOINT, state)
            self._calibrate()
            save_model(self.out / WEIGHTS, self.average, self.description, self.card())

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Fit the grid of the averaged model's rounded content to it, on whole training clips."""
        if not isinstance(self.average, ExtendedBCD) or self.average.bottleneck is None:
            return
        generator = step_generator(self.preset.train.seed, CALIBRATION)
        batches = (self._batch(generator, CALIBRATION_BATCH).clips for _ in range(CALIBRATION_BATCHES))
        with self.accelerator.autocast():
            tokens = [self.average.encode(self.average.values(batch))[0].float() for batch in batches]
        self.average.calibrate(torch.cat(tokens))

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
            "train": train.model_dump(mode="json", exclude={"init"}),
            "started_from": self.earlier,
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, *, max_steps: int | None = None, max_minutes: float | None = None) -> bool:
        """Train to the preset's last step or to the limits; whether it reached the preset's end. Interrupted or limited
        runs leave a checkpoint.
        """
        train, main = self.preset.train, self.accelerator.is_main_process
        last = min(train.steps, max_steps or train.steps)
        began = time.monotonic()
        name = f"train bcd{f' ({self.stage.name})' if self.stage.name else ''}"
        progress = open_progress() if main else NoProgress()
        with (
            stopping(insist=True) as stop,
            progress.task(name, total=last, done=self.progress.step, unit="steps") as task,
        ):
            while self.progress.step < last:
                tick = time.monotonic()
                values = self.step()
                step = self.progress.step
                if step % train.log_every == 0 or step == last:
                    values |= self._contributions()
                self.progress.window.append(values)
                self.progress.seconds += time.monotonic() - tick
                task.advance()
                self.guard.check(step, values)
                if main and (step % train.log_every == 0 or step == last):
                    task.message(self._log())
                    warning = self.guard.warning(step, _only_contributions(values))
                    if warning is not None:
                        task.message(warning)
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
        """Whether `flag` is true in any process, so that all stop after the same step."""
        if self.processes == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flags, "sum") > 0)

    def step(self) -> dict[str, float]:
        """One optimiser step; returns the losses by name and the gradient norm before it was clipped."""
        train, step = self.preset.train, self.progress.step
        if step > 0 and step in [extension.codebook_start() for extension in self.preset.extensions]:
            self._start_codes()
            self.average.quantizer.load_state_dict(self.model.quantizer.state_dict())
        rate = self.optimizers.set_rates(step)
        keep = self.keep_probabilities if step < SKIP_UNTIL * train.steps else None
        if train.order == "random":
            generator = step_generator(train.seed, step)
            batch = self._batch(generator, train.batch, keypoints=True)
            losses = gradients_of_batch(
                self.accelerator, self.module, batch, step, self._tau(step), generator, keep
            )
        else:
            parts = self.batches.parts(step)
            batches = [self.store.batch(part.indices, step) for part in parts]
            losses = gradients_of_parts(
                self.accelerator, self.wrapped, self.module, batches, parts, step, self._tau(step)
            )
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), train.gradient_clip)
        losses = {**losses, "gradient_norm": norm.detach().float()}
        stacked = torch.stack([value.to(norm.device) for value in losses.values()])
        numbers = (self.accelerator.reduce(stacked, "mean") if self.processes > 1 else stacked).tolist()
        values = dict(zip(losses, numbers, strict=True))
        if not all(math.isfinite(number) for number in numbers):
            raise BcdBenchError(
                f"step {step}: the loss is not finite (loss {values['loss']:g}, gradient norm "
                f"{values['gradient_norm']:g}); nothing was updated",
                hint=f"resume from the last checkpoint in {self.out} with a lower --set train.lr (now {rate:.1e})",
            )
        self.optimizers.step()
        self._update_average(step)
        self.progress.step += 1
        return values

    def _contributions(self) -> dict[str, float]:
        """How much the decoder uses content and motion at this step, see `condition_contributions`."""
        generator = step_generator(self.preset.train.seed, self.progress.step, CONTRIBUTION)
        canonical = self.preset.extensions.get(CanonicalFeatures)
        if canonical is not None and self.progress.step < canonical.denoise_start:
            return {}  # the transformer does not train yet
        clips = self._batch(generator, min(self.preset.train.batch, 16)).clips
        with self.accelerator.autocast():
            return condition_contributions(self.model, clips, generator)

    def _batch(self, generator: torch.Generator, size: int, *, keypoints: bool = False) -> Batch:
        """Clips drawn with replacement, prepared by the extensions; with `keypoints`, if the recipe learns from them."""
        extensions = self.preset.extensions
        indices = torch.randint(len(self.clips), (size,), generator=generator).tolist()
        batch = Batch(self.store.batch(indices))
        if keypoints and extensions.get(KeypointSupervision) is not None:
            frames = torch.from_numpy(self.clips.keypoints(indices)).to(batch.clips.device)  # type: ignore[attr-defined]
            rest = torch.from_numpy(self.clips.rest_keypoints).to(batch.clips.device)  # type: ignore[attr-defined]
            batch.keypoints = Keypoints(frames, rest.expand(size, -1, -1))
        for extension in extensions:
            batch = extension.prepare_batch(batch, generator)
        return batch

    def _tau(self, step: int) -> float:
        """Gumbel temperature: by a factor per step, or exponential from tau_start to tau_end over the run (Sec. 3.2)."""
        quantizer = self.preset.model.quantizer
        if quantizer.tau_decay is not None:
            steps = self.stage.steps_before + step
            return max(quantizer.tau_start * quantizer.tau_decay**steps, quantizer.tau_end)
        return quantizer.tau_start * (quantizer.tau_end / quantizer.tau_start) ** (step / self.preset.train.steps)

    @torch.no_grad()
    def _update_average(self, step: int) -> None:
        """Moving average of the weights, with a short memory at the start and when new parts begin to train."""
        restarts = [start for extension in self.preset.extensions for start in extension.average_restarts()]
        age = step - max(start for start in (0, *restarts) if start <= step)
        decay = min(self.preset.train.ema, (1 + age) / (10 + age))
        torch._foreach_lerp_(list(self.average.parameters()), [p.detach() for p in self.model.parameters()], 1 - decay)
        for mine, theirs in zip(self.average.buffers(), self.model.buffers(), strict=True):
            mine.copy_(theirs)

    def _log(self) -> str:
        step, window = self.progress.step, self.progress.window
        self.progress.window = []
        rate = self.preset.train.batch * step / max(self.progress.seconds, 1e-9)
        means = append_means(self.out / LOG, window, step, self._tau(step - 1))
        return sentence(step, means, rate)

    @torch.no_grad()
    def write_grid(self) -> None:
        """Four swaps of training clips by the averaged weights: rows of content, motion and result."""
        from bcd_bench_bcd.training.sample_grid import swap_grid

        if not self.accelerator.is_main_process:
            return
        try:
            self.codec.open()
        except (MissingAssetError, UsageError) as error:  # training itself needs latents only
            print(f"no grid: {error}")
            return
        sampler = self.preset.sampler
        if self.preset.model.latent is not None and sampler.steps > PREVIEW_STEPS:
            sampler = SamplerConfig(name="dpmpp-2m", steps=PREVIEW_STEPS, guidance=sampler.guidance)
        generator = step_generator(self.preset.train.seed, GRID)
        clips = self._batch(generator, 8).clips
        with self.accelerator.autocast():
            image = swap_grid(self.pipeline, self.codec, clips[:4], clips[4:], sampler, generator)
        path = self.out / "grids" / f"step-{self.progress.step:07d}.png"
        with atomic_path(path) as temporary:
            image.save(temporary, format="PNG")


def _only_contributions(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if name.endswith("_contribution")}
