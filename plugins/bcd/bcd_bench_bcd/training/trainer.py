"""`bcd-bench train bcd`: the training step, and the files a run writes.

Every random number of a step comes from (seed, step, process), so an interrupted run resumes exactly as if it had not
been interrupted: the step count is the only random state to save.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcd_bench.io.atomic import atomic_path, write_json_atomic
from bcd_bench.plugin.protocols import TrainingClips
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import (
    CHECKPOINT,
    EMA,
    AcceleratedProcesses,
    Every,
    Limits,
    TrainingLog,
    TrainingLoop,
    check_finite,
    checkpoints_to_resume,
    resolve_precision,
    restoring,
    save_torch,
    writing_checkpoint,
    writing_into,
)
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.util.devices import keep_freed_memory, resolve_device
from bcd_bench_bcd import __version__
from bcd_bench_bcd.extensions.base import Batch, Keypoints
from bcd_bench_bcd.extensions.canonical_features import CanonicalFeatures
from bcd_bench_bcd.extensions.keypoint_supervision import KeypointSupervision
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.patch_skipping import SKIP_UNTIL, PatchSkipping, keep_probabilities
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.inference.weights import Description, save_model
from bcd_bench_bcd.latents.cache import LatentClips
from bcd_bench_bcd.latents.frame_codec import FrameCodec
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training.checkpoint import WHAT, matching_checkpoint, start_from
from bcd_bench_bcd.training.collapse import CollapseGuard, condition_contributions
from bcd_bench_bcd.training.data import fit_to_data, needs_patch_occupancy, open_training_clips, patch_occupancy
from bcd_bench_bcd.training.dataset import DeviceClips, codebook_clips
from bcd_bench_bcd.training.log import sentence
from bcd_bench_bcd.training.optimizers import Optimizers
from bcd_bench_bcd.training.rng import step_generator
from bcd_bench_bcd.training.sharding import Batches, check_parts
from bcd_bench_bcd.training.stages import FINISHED, WEIGHTS, Stage, copy_result, stages_of
from bcd_bench_bcd.training.step import TrainingStep, gradients_of_batch, gradients_of_parts

__all__ = ["Trainer", "train"]

CALIBRATION_BATCH, CALIBRATION_BATCHES = 32, 16
"""Clips on which the rounding grid of content is calibrated: 512, in batches that fit any memory."""
PREVIEW_STEPS = 16
"""Maximum sampler steps for grids of latents: what the paper's 128 steps show, in a thirtieth of the time."""
CODES, CALIBRATION, GRID, CONTRIBUTION = -1, -3, -2, "contribution"
"""Keys of random numbers that do not belong to a step."""
NOT_RESULTS = {"train": {"init", "tracker"}}
"""Settings that do not affect results: they may change when a run is resumed."""


def train(request: TrainRequest) -> None:
    """Train BCD. Writes model.safetensors (moving average), config.json, log.jsonl, grids/ and checkpoint.pt; each
    stage writes its files into a folder of its name.
    """
    overrides = dict(request.overrides)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    if request.plan_only:
        from bcd_bench_bcd.training.plan import plan

        available = preset.model.latent is None or request.data
        print(plan(preset, request, open_training_clips(preset, request) if available else None))
        return
    clips = open_training_clips(preset, request)
    stages = stages_of(preset, len(clips), request.out)
    checkpoints = [stage.folder / CHECKPOINT for stage in stages]
    begun = checkpoints_to_resume(request.out, resume=request.resume, checkpoints=checkpoints)
    limits = Limits.of(request)
    for stage in stages:
        if (stage.folder / FINISHED).exists() and stage.folder != stages[-1].folder:
            continue
        if limits.last_step(stage.preset.train.steps, stage.steps_before) <= 0:
            break
        trainer = Trainer(stage, clips, request.device)
        trainer.start(resume=stage.folder / CHECKPOINT in begun)
        if not trainer.run(limits):
            return
    else:
        copy_result(stages[-1].folder, request.out)


class Trainer:
    """One stage of a training run in one folder."""

    def __init__(self, stage: Stage, clips: TrainingClips | LatentClips, device: str) -> None:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState

        self.stage, self.preset, self.out = stage, stage.preset, stage.folder
        self.clips: Any = clips
        train = stage.preset.train
        resolved = resolve_device(device)
        if resolved.index is not None:
            torch.cuda.set_device(resolved)
        keep_freed_memory(resolved.type)
        self.precision = resolve_precision(train.precision, resolved.type)
        AcceleratorState._reset_state()  # else the precision of the process's first training would apply to all
        mixed = "no" if self.precision == "fp32" else "bf16"
        self.accelerator = Accelerator(cpu=resolved.type == "cpu", mixed_precision=mixed)
        self.processes = self.accelerator.num_processes
        check_parts(self.preset, self.processes)
        self.store = DeviceClips(clips, self.accelerator.device)
        self.batches = Batches(len(clips), train, self.processes, self.accelerator.process_index)
        torch.manual_seed(train.seed)
        self._build()
        if train.compile == "auto" and resolved.type == "cuda":
            for block in (*self.model.decoder.transformer_blocks(), self.model.encoder.t5):
                block.compile()
        self.wrapped: nn.Module = self.module
        if self.processes > 1:  # gradients are averaged over the processes
            self.wrapped = self.accelerator.prepare_model(self.module)
        self.optimizers = Optimizers(self.model, train, self.preset.extensions)
        self.earlier: dict[str, Any] | None = None
        self.guard = CollapseGuard(self.preset.objective.target_bits)
        log = TrainingLog(self.out, tracker=train.tracker, write=self.accelerator.is_main_process)
        self.loop = TrainingLoop(
            f"train bcd{f' ({stage.name})' if stage.name else ''}",
            train.steps,
            log,
            log_every=train.log_every,
            save_every=train.checkpoint_every,
            steps_before=stage.steps_before,
            processes=AcceleratedProcesses(self.accelerator),
        )

    def _build(self) -> None:
        """Build the model, its moving average, and the parts of them that depend on the training clips."""
        preset = self.preset
        occupancy = None
        if needs_patch_occupancy(preset):
            occupancy = patch_occupancy(self.clips, preset.model.decoder.patch)
        fitted = fit_to_data(preset, occupancy)
        self.model = fitted.build().train()
        latent = getattr(self.clips, "latent", None)
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
        self.module = TrainingStep(self.model, preset).to(self.accelerator.device)
        self.ema: EMA[BCD] = EMA(self.model, preset.train.ema)
        self.pipeline = Pipeline(self.ema.module, preset.inference.window)
        self.codec = FrameCodec(self.ema.module, self.description.autoencoder_sha256)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Prepare the folder: resume from its checkpoint, or begin. Raises `UsageError` if that is not possible."""
        if resume:
            self._load(self.out / CHECKPOINT)
            return
        if self.accelerator.is_main_process:
            with writing_into(self.out / "grids"):
                self.loop.log.begin()
                write_json_atomic(self.out / "config.json", self._run())
        if self.preset.train.init is not None:
            path, device = Path(self.preset.train.init), self.accelerator.device
            self.earlier = start_from(path, self.model, self.description, device)
            self.ema.copy_from(self.model)
        elif self.preset.model.quantizer.codes_from_data:
            self._start_codes()
            self.ema.copy_from(self.model)

    def _start_codes(self) -> None:
        """Initialise the codebook with motion latents of training clips, the same ones in every process."""
        generator = step_generator(self.preset.train.seed, CODES)
        clips = codebook_clips(lambda number: self._batch(generator, number).clips, self.preset)
        with torch.no_grad(), self.accelerator.autocast():
            latents = self.model.latents_of_motion(self.model.values(clips))
        self.model.quantizer.start_codes_from(latents, generator)
        if self.processes > 1:  # bitwise equal, since only gradients are exchanged from here on
            from accelerate.utils import broadcast

            for tensor in (*self.model.quantizer.parameters(), *self.model.quantizer.buffers()):
                tensor.data.copy_(broadcast(tensor.data))

    def _run(self) -> dict[str, Any]:
        """The description of the run; a checkpoint of a different run is rejected."""
        latent = getattr(self.clips, "latent", None)
        return {
            "what": WHAT,
            "version": __version__,
            "recipe": list(self.preset.recipe),
            "preset": self.preset.model_dump(mode="json", exclude=NOT_RESULTS),
            "model": self.description.model_dump(mode="json"),
            "latents": None if latent is None else [list(latent.mean), list(latent.std)],
            "stage": self.stage.name,
            "precision": self.precision,
            "device": str(self.accelerator.device.type),
            "torch": str(torch.__version__),
        }

    def _load(self, path: Path) -> None:
        state = matching_checkpoint(path, self._run())
        with restoring(path):
            self.module.load_state_dict(state["module"])
            self.ema.module.load_state_dict(state["average"])
            self.optimizers.load_state_dicts(state["optimizers"])
            self.earlier = state["earlier"]
            self.loop.load_state_dict(state)

    def save(self) -> None:
        """Write checkpoint.pt and model.safetensors, each atomically."""
        if not self.accelerator.is_main_process:
            return
        state = {
            "description": self._run(),
            "module": self.module.state_dict(),
            "average": self.ema.module.state_dict(),
            "optimizers": self.optimizers.state_dicts(),
            "earlier": self.earlier,
            **self.loop.state_dict(),
        }
        with writing_checkpoint(self.out, self.loop.step):
            save_torch(self.out / CHECKPOINT, state)
            self._calibrate()
            save_model(self.out / WEIGHTS, self.ema.module, self.description, self.card())

    @torch.no_grad()
    def _calibrate(self) -> None:
        """Fit the rounding grid of the averaged model's content, on whole training clips."""
        average = self.ema.module
        if not isinstance(average, ExtendedBCD) or average.bottleneck is None:
            return
        generator = step_generator(self.preset.train.seed, CALIBRATION)
        batches = (self._batch(generator, CALIBRATION_BATCH).clips for _ in range(CALIBRATION_BATCHES))
        with self.accelerator.autocast():
            tokens = [average.encode(average.values(batch))[0].float() for batch in batches]
        average.calibrate(torch.cat(tokens))

    def card(self) -> dict[str, Any]:
        """Training data, settings and duration of the weights; stored in the weight file."""
        train = self.preset.train
        return {
            "suite": train.suite,
            "step": self.loop.step,
            "clips": self.loop.step * train.batch,
            "hours": round(self.loop.seconds / 3600, 3),
            "stage": self.stage.name,
            "device": str(self.accelerator.device.type),
            "precision": self.precision,
            "objective": self.preset.objective.model_dump(mode="json"),
            "train": train.model_dump(mode="json", exclude=NOT_RESULTS["train"]),
            "started_from": self.earlier,
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, limits: Limits) -> bool:
        """Train to the preset's last step or to the limits; returns whether the preset's end was reached. Interrupted
        or limited runs leave a checkpoint.
        """
        train = self.preset.train
        finished = self.loop.run(
            limits,
            self.train_step,
            self.save,
            validate=Every(train.log_every, self._contributions),
            draw=Every(train.grid_every, lambda done: self.write_grid()),
            derive=lambda line: {"tau": self._tau(self.loop.step - 1)},
            describe=self._in_words,
        )
        if self.accelerator.is_main_process:
            if finished:
                write_json_atomic(self.out / FINISHED, {"step": self.loop.step})
            print(f"weights: {self.out / WEIGHTS}")
        self.accelerator.wait_for_everyone()  # the next stage reads what this one wrote
        return finished

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the losses by name, and the norm of the gradient before clipping."""
        train = self.preset.train
        if step > 0 and step in [extension.codebook_start() for extension in self.preset.extensions]:
            self._start_codes()
            self.ema.module.quantizer.load_state_dict(self.model.quantizer.state_dict())
        rate = self.optimizers.set_rates(step)
        keep = self.keep_probabilities if step < SKIP_UNTIL * train.steps else None
        if train.order == "random":
            generator = step_generator(train.seed, step)
            batch = self._batch(generator, train.batch, keypoints=True)
            losses = gradients_of_batch(self.accelerator, self.module, batch, step, self._tau(step), generator, keep)
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
        values: dict[str, float] = dict(zip(losses, numbers, strict=True))
        check_finite(step, values, rate=rate, setting="train.lr")
        self.optimizers.step()
        self._update_average(step)
        self.guard.check(step + 1, values)
        return values

    def _update_average(self, step: int) -> None:
        """Update the moving average, with a short memory at the start and when new parts begin to train."""
        restarts = [start for extension in self.preset.extensions for start in extension.average_restarts()]
        self.ema.update(self.model, step - max(start for start in (0, *restarts) if start <= step))

    def _contributions(self, done: int) -> dict[str, float]:
        """How much the decoder uses content and motion after `done` steps, see `condition_contributions`."""
        canonical = self.preset.extensions.get(CanonicalFeatures)
        if canonical is not None and done < canonical.denoise_start:
            return {}  # the transformer is not trained yet
        generator = step_generator(self.preset.train.seed, done, CONTRIBUTION)
        clips = self._batch(generator, min(self.preset.train.batch, 16)).clips
        with self.accelerator.autocast():
            measured: dict[str, float] = condition_contributions(self.model, clips, generator)
        return measured

    def _in_words(self, line: Mapping[str, float]) -> str:
        rate = self.preset.train.batch * self.loop.step / max(self.loop.seconds, 1e-9)
        text = sentence(line, rate)
        warning = self.guard.warning(self.loop.step, line)
        return text if warning is None else f"{text}\n{warning}"

    def _batch(self, generator: torch.Generator, size: int, *, keypoints: bool = False) -> Batch:
        """Random clips, drawn with replacement and prepared by the extensions; with `keypoints` if the recipe uses
        them."""
        extensions = self.preset.extensions
        indices = torch.randint(len(self.clips), (size,), generator=generator).tolist()
        batch = Batch(self.store.batch(indices))
        if keypoints and extensions.get(KeypointSupervision) is not None:
            frames = torch.from_numpy(self.clips.keypoints(indices)).to(batch.clips.device)
            rest = torch.from_numpy(self.clips.rest_keypoints).to(batch.clips.device)
            batch.keypoints = Keypoints(frames, rest.expand(size, -1, -1))
        for extension in extensions:
            batch = extension.prepare_batch(batch, generator)
        return batch

    def _tau(self, step: int) -> float:
        """Gumbel temperature: a factor per step, or exponential from tau_start to tau_end over the run (Sec. 3.2)."""
        quantizer = self.preset.model.quantizer
        if quantizer.tau_decay is not None:
            steps = self.stage.steps_before + step
            return float(max(quantizer.tau_start * quantizer.tau_decay**steps, quantizer.tau_end))
        decay: float = (quantizer.tau_end / quantizer.tau_start) ** (step / self.preset.train.steps)
        return quantizer.tau_start * decay

    @torch.no_grad()
    def write_grid(self) -> None:
        """Write four swaps of training clips by the averaged weights: rows of content, motion and result."""
        from bcd_bench_bcd.training.sample_grid import swap_grid

        if not self.accelerator.is_main_process:
            return
        try:
            self.codec.open()
        except (MissingAssetError, UsageError) as error:  # training itself needs latents only
            print(f"no grid written: {error}")
            return
        sampler = self.preset.sampler
        if self.preset.model.latent is not None and sampler.steps > PREVIEW_STEPS:
            sampler = SamplerConfig(name="dpmpp-2m", steps=PREVIEW_STEPS, guidance=sampler.guidance)
        generator = step_generator(self.preset.train.seed, GRID)
        clips = self._batch(generator, 8).clips
        with self.accelerator.autocast():
            image = swap_grid(self.pipeline, self.codec, clips[:4], clips[4:], sampler, generator)
        path = self.out / "grids" / f"step-{self.loop.step:07d}.png"
        with atomic_path(path) as temporary:
            image.save(temporary, format="PNG")
