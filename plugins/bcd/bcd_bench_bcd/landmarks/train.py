"""`bcd-bench train bcd-landmarks`: train the extension `landmark_motion` on top of frozen BCD weights.

Two stages: without quantiser, then with it. Every random number of a step comes from (seed, step), so an interrupted
run resumes exactly as if it had not been interrupted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcd_bench import training
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import (
    Every,
    Limits,
    Parts,
    RunCheckpoint,
    TrainingLog,
    TrainingLoop,
    check_finite,
    checkpoints_to_resume,
    count_parameters,
    writing_into,
)
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import keep_freed_memory, resolve_device
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.landmark_motion import COMPONENTS, EXTRACTOR, Head, LandmarkMotion, LandmarkNetwork
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.landmarks import landmark_source
from bcd_bench_bcd.inference.weights import Description, save_model
from bcd_bench_bcd.landmarks.codebook import RunningCodebook
from bcd_bench_bcd.landmarks.config import LandmarkPreset
from bcd_bench_bcd.landmarks.data import FILE, Batch, People, PointClips, compute_points, point_clips, prepare_points
from bcd_bench_bcd.landmarks.first_stage import FirstStage
from bcd_bench_bcd.landmarks.loss import point_distance, rate_factor
from bcd_bench_bcd.landmarks.pixel_path import source_of_pixel_path, with_pixel_path
from bcd_bench_bcd.landmarks.plan import plan, shortened
from bcd_bench_bcd.landmarks.presets import NOT_RESULTS, resolve_preset
from bcd_bench_bcd.landmarks.start import FREE, start_network, transform_code
from bcd_bench_bcd.landmarks.translation import prepare_examples, translate
from bcd_bench_bcd.training.rng import step_generator

__all__ = ["Trainer", "extended", "train", "trial"]

WHAT = "BCD landmark motion training run"
WEIGHTS = "model.safetensors"
EXAMPLES = 3072
"""Clips from which components, transform and codebooks are computed."""


def train(request: TrainRequest, others: Sequence[Path] = ()) -> None:
    """Train motion in landmarks. Writes points.safetensors, first-stage.safetensors, translation.safetensors,
    model.safetensors (BCD with the extension), config.json, log.jsonl and checkpoint.pt.

    Points and examples of the translation are copied from the folder of a training in `others` that has the same data,
    and the stage without quantiser is taken over from one that differs only in the code. Results are the same.

    Raises `UsageError` for invalid settings, an unavailable device, weights that are extended already, a pixel path
    that does not fit, a suite without points, or a folder that does not fit.
    """
    overrides = dict(request.overrides)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    if request.plan_only:
        measured = trial(preset, request)
        print(plan(preset, measured.train_step, count_parameters(measured.network), measured.device.type))
        return
    bcd, model, clips, pixel_path = _opened(preset, request)
    resumes = bool(checkpoints_to_resume(request.out, resume=request.resume, prepared=request.out / FILE))
    with writing_into(request.out):
        people = prepare_points(clips, preset.train, request.out, others)
    trainer = Trainer(preset, bcd, model, clips, people, request.device, request.out, pixel_path)
    trainer.start(resume=resumes, others=others)
    if trainer.run(Limits.of(request)):
        trainer.finish(others)


def trial(preset: LandmarkPreset, request: TrainRequest) -> Trainer:
    """A trainer with few people, to measure steps; raises as `train`, and writes nothing."""
    bcd, model, clips, pixel_path = _opened(preset, request)
    short = shortened(preset)
    people = compute_points(clips, short.train)
    return Trainer(short, bcd, model, clips, people, request.device, request.out, pixel_path)


def _opened(preset: LandmarkPreset, request: TrainRequest) -> tuple[BCD, ExtendedBCD, PointClips, ExtendedBCD | None]:
    """The BCD weights, the model that extends them, the clips, and the model whose pixel path the result gets."""
    if preset.bcd is None:
        raise UsageError("landmark motion extends BCD weights, which must be given", hint="--set bcd=PATH")
    clips = point_clips(training.open_training_clips(preset.train.suite, request), preset.train.suite)
    bcd = BCD.from_pretrained(preset.bcd, request.device)
    model = extended(bcd, preset, clips)
    if preset.pixel_path is None:
        return bcd, model, clips, None
    assert model.landmarks is not None
    return bcd, model, clips, source_of_pixel_path(preset.pixel_path, model.landmarks.settings.landmarks)


def extended(bcd: BCD, preset: LandmarkPreset, clips: PointClips) -> ExtendedBCD:
    """The model of `bcd` whose motion is read from landmarks, untrained.

    Raises `UsageError` for weights that are the paper's, or that have one of the extensions that replace parts of them.
    """
    base = bcd.model
    if not isinstance(base, ExtendedBCD) or base.pixels is not None or base.landmarks is not None:
        raise UsageError(
            "landmark motion extends weights with extensions other than pixel_path and landmark_motion",
            hint="use --set bcd=heads-small",
        )
    mean, _, focal = clips.mean_points()
    source = landmark_source()
    motion = LandmarkMotion(
        landmarks=source.points, points=len(mean), focal=focal, network=source.sha256, **preset.landmarks.model_dump()
    )
    torch.manual_seed(preset.train.seed)
    model = Description(
        model=base.config, extensions=Extensions([*base.extensions, motion]), active_patches=base.active_patches
    ).build()
    assert isinstance(model, ExtendedBCD)
    state = {name: value for name, value in base.state_dict().items() if not name.startswith("quantizer.")}
    model.load_state_dict(state, strict=False)
    model.to(next(base.parameters()).device).eval()
    return model


class Trainer:
    """One training run in one folder."""

    def __init__(
        self,
        preset: LandmarkPreset,
        bcd: BCD,
        model: ExtendedBCD,
        clips: PointClips,
        people: People,
        device: str,
        out: Path,
        pixel_path: ExtendedBCD | None = None,
    ) -> None:
        train = preset.train
        self.preset, self.bcd, self.model, self.clips, self.people, self.out = preset, bcd, model, clips, people, out
        self.device = resolve_device(device)
        keep_freed_memory(self.device.type)
        assert model.landmarks is not None
        self.settings = model.landmarks.settings
        self.pixel_path = pixel_path
        self.first_stage = FirstStage(preset, self.settings.landmarks, self.device, out)
        self.weights = 1 + train.part_weight * torch.from_numpy(clips.point_weights())
        torch.manual_seed(train.seed)
        free = self.settings.model_copy(update={"groups": FREE, "dim": 1})
        self.network = LandmarkNetwork(free, transformer=bcd.model.quantizer.out_width)
        self.codebook: RunningCodebook | None = None
        mean, rest, _ = clips.mean_points()
        examples = people.own.points[:EXAMPLES, :, : self.settings.landmarks].float()
        skinning = torch.from_numpy(clips.point_skinning())
        start_network(self.network, torch.from_numpy(mean), torch.from_numpy(rest), skinning, examples)
        self.offsets = torch.cat(
            [
                self.network.offsets(part[:, :, : self.settings.landmarks].float().flatten(0, 1)).unflatten(
                    0, part.shape[:2]
                )
                for part in people.own.points.split(256)
            ]
        )
        self._begin_stage()
        log = TrainingLog(self.out, digits=5, tracker=train.tracker)
        self.loop = TrainingLoop(
            f"train bcd-landmarks {train.suite}", train.steps, log, log_every=train.log_every,
            save_every=train.checkpoint_every,
        )  # fmt: skip
        settings = {
            "preset": preset.model_dump(mode="json", exclude={**NOT_RESULTS, "bcd": True}),
            "bcd": bcd.loaded.sha256,
        }
        self.checkpoint = RunCheckpoint(self.out, WHAT, self.loop, settings, self.device)

    def _begin_stage(self) -> None:
        """A new optimiser for the network, which moves to the device."""
        self.network.to(self.device).train()
        decoder, train = self.network.decoder, self.preset.train
        shapes = [decoder.expression_shapes, decoder.subject_shapes, decoder.detail_out.weight]
        known = {id(parameter) for parameter in shapes}
        others = [parameter for parameter in self.network.parameters() if id(parameter) not in known]
        self.optimizer = torch.optim.AdamW(
            [{"params": others, "factor": 1.0}, {"params": shapes, "factor": train.shape_rate}],
            lr=train.lr,
            betas=(0.9, 0.99),
            weight_decay=1e-5,
        )

    @torch.no_grad()
    def quantize(self) -> None:
        """Switch the quantiser on: transform the latents, and fit the codebooks to them."""
        with writing_into(self.out):
            self.first_stage.save(self.network, self.loop)
        free = self.network.cpu().eval()
        examples = self.offsets[:EXAMPLES]
        latents, subjects = free.encoder(examples)
        subjects = subjects[:, None].expand(-1, latents.shape[1], -1)
        network = LandmarkNetwork(self.settings, transformer=self.bcd.model.quantizer.out_width)
        transform_code(free, network, latents.flatten(0, 1), subjects.flatten(0, 1), self.weights)
        latents = network.encoder(examples)[0].flatten(0, 1)
        self.codebook = self._coded(network)
        self.codebook.start(latents.to(self.device), step_generator(self.preset.train.seed, self.loop.step, "codes"))

    def _coded(self, network: LandmarkNetwork) -> RunningCodebook:
        """Continue with a network whose motion is quantised."""
        self.network = network
        self._begin_stage()
        return RunningCodebook(self.settings.quantizer, self.device)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool, others: Sequence[Path] = ()) -> None:
        """Resume from the folder's checkpoint, or begin; `others` as in `train`. Raises `UsageError` if the folder does
        not fit."""
        if not resume:
            self.checkpoint.begin()
            taken = self.first_stage.take_over(self.network, self.loop, others)
            if taken is not None:
                print(f"steps 1 to {self.loop.step} (without quantiser): as in {taken}")
            return
        state = self.checkpoint.read()
        if state.get("codebook") is not None:
            self.codebook = self._coded(LandmarkNetwork(self.settings, transformer=self.bcd.model.quantizer.out_width))
        self.checkpoint.restore(state, self._parts())

    def save(self) -> None:
        """Write the checkpoint atomically."""
        self.checkpoint.save(self._parts())

    def _parts(self) -> Parts:
        return {"network": self.network, "optimizer": self.optimizer, "codebook": self.codebook}

    def finish(self, others: Sequence[Path] = ()) -> None:
        """Translate the codes for the transformer, and write the weights; `others` as in `train`."""
        assert self.codebook is not None
        assert self.model.landmarks is not None
        network = self.network.cpu().eval()
        self.model.cpu()
        with torch.no_grad():
            network.spread.copy_(network.encoder(self.offsets[:EXAMPLES])[0].flatten(0, 1).std(0).clamp_min(1e-3))
        self.model.landmarks.load_state_dict(network.state_dict())
        self.model.quantizer.load_state_dict(self.codebook.quantizer.cpu().state_dict())
        with writing_into(self.out):
            examples = prepare_examples(self.bcd, self.model, self.clips, self.preset.train, self.out, others)
        left = translate(self.model, examples, self.preset.train)
        print(f"translation: {100 * left:.0f} % of the variance of the transformer's motion is left")
        errors = {"translation_error": left}
        if self.pixel_path is not None:
            points = self.people.own.points[:EXAMPLES, :, : self.settings.landmarks].float()
            self.model, left = with_pixel_path(self.model, self.pixel_path, points)
            errors["pixel_path_error"] = left
            print(f"pixel path: {100 * left:.0f} % of the variance of the code that it was trained with is left")
        with writing_into(self.out):
            save_model(self.out / WEIGHTS, self.model, self.result(), self.card(errors))
        print(f"weights: {self.out / WEIGHTS}")

    def result(self) -> Description:
        """The description of the weights: that of the BCD weights with the extension."""
        return self.bcd.description.model_copy(update={"extensions": self.model.extensions})

    def card(self, errors: Mapping[str, float]) -> dict[str, Any]:
        """The card of the BCD weights, and how they were extended; `errors` are shares of a variance."""
        return {
            **self.bcd.card,
            "landmark_motion": {
                "bcd": self.bcd.loaded.sha256,
                "extractor": EXTRACTOR,
                "suite": self.preset.train.suite,
                "people": self.preset.train.people - self.preset.train.held_out,
                "hours": round(self.loop.seconds / 3600, 3),
                "device": self.device.type,
                **{name: round(value, 4) for name, value in errors.items()},
                "train": self.preset.train.model_dump(mode="json", exclude=NOT_RESULTS["train"]),
            },
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, limits: Limits) -> bool:
        """Train to the preset's last step, or to the limits; returns whether the last step is done. Interrupted or
        limited runs leave a checkpoint."""
        every = Every(self.preset.train.log_every, lambda done: self.held_out_figures())
        return self.loop.run(limits, self.train_step, self.save, validate=every, describe=_in_words)

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the loss, its terms, and the norm of the gradient before clipping."""
        train = self.preset.train
        if step == train.free_steps and self.codebook is None:
            self.quantize()
        generator = step_generator(train.seed, step, "landmarks")
        trained = train.people - train.held_out
        chosen = torch.randperm(trained, generator=generator)[: train.batch]
        batch = self._batch(chosen, generator)
        latents, heads, content = self._decoded(batch)
        facing = nn.functional.binary_cross_entropy_with_logits
        terms = {
            "points": self._error(heads, batch.target, batch.target_facing),
            "content": self._error(content, batch.content, batch.content_facing),
            "facing": facing(heads.facing, batch.target_facing.flatten(0, 1).float())
            + facing(content.facing, batch.content_facing.flatten(0, 1).float()),
        }
        loss = terms["points"] + train.content * terms["content"] + train.facing * terms["facing"]
        if self.codebook is not None:
            entries = self.codebook.quantizer(latents).motion
            terms["commitment"] = (latents - entries.detach()).square().mean()
            loss = loss + train.commitment * terms["commitment"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), train.gradient_clip)
        values = {"loss": loss, **terms, "gradient_norm": norm}
        measured = {name: float(value.detach()) for name, value in values.items()}
        check_finite(step, measured, rate=train.lr, setting="train.lr")
        for group in self.optimizer.param_groups:
            group["lr"] = train.lr * group["factor"] * rate_factor(step, train)
        self.optimizer.step()
        if self.codebook is not None:
            self.codebook.follow(latents.detach(), step, train, generator)
        return measured

    def _batch(self, chosen: Tensor, generator: torch.Generator | None = None) -> Batch:
        """The points of people, and with a `generator` also simulated errors, and sometimes one content frame only."""
        train, own, crossed = self.preset.train, self.people.own, self.people.crossed
        content, driver = self.offsets[chosen], self.offsets[(chosen + train.shift) % train.people]
        points, facing = own.points[chosen].float(), own.facing[chosen]
        if generator is not None:
            spread = train.noise * self.network.components.norm(dim=1).cpu()

            def with_errors(offsets: Tensor) -> Tensor:
                shape = (*offsets.shape[:2], COMPONENTS)
                errors = torch.randn(shape, generator=generator)
                errors = spread * (errors + torch.randn((shape[0], 1, COMPONENTS), generator=generator))
                return torch.cat([offsets[..., :-COMPONENTS], offsets[..., -COMPONENTS:] + errors], -1)

            content, driver = with_errors(content), with_errors(driver)
            alone, which = torch.rand(2, generator=generator).tolist()
            if alone < train.single:
                frame = int(which * points.shape[1])
                one = slice(frame, frame + 1)
                content, points, facing = content[:, one], points[:, one], facing[:, one]
        target, target_facing = crossed.points[chosen].float(), crossed.facing[chosen]
        parts = (points, facing, target, target_facing, content, driver)
        return Batch(*(part.to(self.device) for part in parts))

    def _decoded(self, batch: Batch) -> tuple[Tensor, Head, Head]:
        """Motion latents [B, T, C], the heads of the targets, and those of the content."""
        encoder = self.network.encoder
        of_content, subject = encoder(batch.content_offsets)
        latents = encoder(batch.driver_offsets)[0]
        motion = latents
        if self.codebook is not None:
            motion = latents + (self.codebook.quantizer(latents).motion - latents).detach()

        def heads(motions: Tensor) -> Head:
            subjects = subject[:, None].expand(-1, motions.shape[1], -1)
            return self.network.decode(motions.flatten(0, 1), subjects.flatten(0, 1))

        return latents, heads(motion), heads(of_content)

    def _error(self, heads: Head, points: Tensor, facing: Tensor) -> Tensor:
        weights = self.weights.to(self.device) * torch.where(facing.flatten(0, 1), 1.0, self.preset.train.hidden_weight)
        return point_distance(heads.points, points.flatten(0, 1), weights)

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """Mean distance in pixels of a frame of 128 of the points of held-out people with others' motion, weighted as
        in the loss; and the entropy of the codes in bits per frame."""
        train = self.preset.train
        # the last ones are driven by people that were trained on
        chosen = torch.arange(train.people - train.held_out, train.people)
        batch = self._batch(chosen)
        latents, heads, content = self._decoded(batch)
        figures = {
            "held_out_points": 64 * float(self._error(heads, batch.target, batch.target_facing)),
            "held_out_content": 64 * float(self._error(content, batch.content, batch.content_facing)),
        }
        if self.codebook is not None:
            codes = self.codebook.quantizer(latents).codes.flatten(0, 1)
            shares = nn.functional.one_hot(codes, self.settings.entries).float().mean(0)
            figures["bits"] = float(-(shares * (shares + 1e-9).log2()).sum())
        return figures


def _in_words(line: Mapping[str, float]) -> str:
    coded = f", {line['bits']:.1f} bits per frame" if "bits" in line else ", not quantised yet"
    return f"loss {line['loss']:.4f}, held-out people off by {line['held_out_points']:.2f} pixels of 128{coded}"
