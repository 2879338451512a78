"""`bcd-bench train bcd-pixels`: train the extension `pixel_path` on top of frozen BCD weights.

Every random number of a step comes from (seed, step), so an interrupted run resumes exactly as if it had not been
interrupted.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bcd_bench import training
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import (
    EMA,
    Every,
    Limits,
    Parts,
    RunCheckpoint,
    TrainingLog,
    TrainingLoop,
    check_finite,
    checkpoints_to_resume,
    count_parameters,
    seconds_per_step,
    writing_into,
)
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import keep_freed_memory, resolve_device
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.fusion_damping import FusionDamping
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.extensions.pixel_path import Carried, PixelNetwork, PixelPath
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.pixels import pixel_values
from bcd_bench_bcd.inference.weights import Description, save_model
from bcd_bench_bcd.pixels.config import PixelPreset, PixelTrainConfig
from bcd_bench_bcd.pixels.critic import Critic
from bcd_bench_bcd.pixels.data import PixelPair, crossed_clips, pair_header, prepare_pairs, read_pair
from bcd_bench_bcd.pixels.loss import Targets, pixel_loss, psnr
from bcd_bench_bcd.pixels.presets import NOT_RESULTS, resolve_preset
from bcd_bench_bcd.pixels.start import continue_from
from bcd_bench_bcd.training.rng import step_generator
from bcd_bench_bcd.training.schedules import warm_cosine

__all__ = ["Trainer", "extended", "train"]

WHAT = "BCD pixel path training run"
WEIGHTS, PAIRS = "model.safetensors", "pairs"


def train(request: TrainRequest) -> None:
    """Train the pixel path. Writes pairs/, model.safetensors (BCD with the extension), config.json, log.jsonl and
    checkpoint.pt.

    A pixel path that the BCD weights have already is replaced; `train.init` continues it. Raises `UsageError` for
    invalid settings, an unavailable device, weights without a canonical feature map, a suite without exact targets, or
    a folder that does not fit.
    """
    overrides = dict(request.overrides)
    if request.seed is not None:
        overrides["train.seed"] = request.seed
    preset = resolve_preset(request.preset, overrides)
    if preset.bcd is None:
        raise UsageError("the pixel path extends BCD weights, which must be given", hint="--set bcd=PATH")
    bcd = BCD.from_pretrained(preset.bcd, request.device)
    model = extended(bcd, preset)
    if preset.train.init is not None:
        continue_from(model, preset.train.init)
    clips = crossed_clips(training.open_training_clips(preset.train.suite, request), preset.train)
    part_weights = torch.from_numpy(clips.point_weights())
    if request.plan_only:
        print(plan(preset, bcd, model, part_weights, request))
        return
    resumes = bool(checkpoints_to_resume(request.out, resume=request.resume, prepared=request.out / PAIRS))
    sha256 = bcd.loaded.codes_sha256
    with writing_into(request.out):
        paths = prepare_pairs(bcd, sha256, clips, preset.train, request.out / PAIRS)
    header = pair_header(sha256, preset.train)
    pairs = [read_pair(path, header) for path in paths]
    trainer = Trainer(preset, bcd, model, pairs, part_weights, request.device, request.out)
    trainer.start(resume=resumes)
    trainer.run(Limits.of(request))


def extended(bcd: BCD, preset: PixelPreset) -> ExtendedBCD:
    """The model of `bcd` with a new pixel path, whose flow fields are those of its canonical map.

    Raises `UsageError` for weights without a canonical feature map, and for mirror images without `landmark_motion`.
    """
    base = bcd.model
    if not isinstance(base, ExtendedBCD) or not base.has_canonical:
        raise UsageError(
            "the pixel path extends weights with canonical_features",
            hint="use --set bcd=heads-small",
        )
    path = PixelPath(**preset.pixels.model_dump())
    if path.mirrored and base.landmarks is None:
        raise UsageError(
            "--set pixels.mirrored=true requires weights with landmark_motion",
            hint="train them with bcd-bench train bcd-landmarks, then --set bcd=PATH",
        )
    torch.manual_seed(preset.train.seed)
    replaced = (PixelPath, FusionDamping)  # the damping is that of the replaced network
    others = [extension for extension in base.extensions if not isinstance(extension, replaced)]
    model = Description(
        model=base.config, extensions=Extensions([*others, path]), active_patches=base.active_patches
    ).build()
    assert isinstance(model, ExtendedBCD)
    assert model.pixels is not None
    state = {name: value for name, value in base.state_dict().items() if not name.startswith("pixels.")}
    model.load_state_dict(state, strict=False)
    canonical = base.decoder.canonical
    assert canonical is not None
    if model.landmarks is None:
        model.pixels.content_flow = copy.deepcopy(base.encoder.canonical.flow)
        model.pixels.subject = copy.deepcopy(canonical.subject)
        model.pixels.driving_flow = copy.deepcopy(canonical.flow)
    model.to(next(base.parameters()).device).eval()
    return model


class Trainer:
    """One training run in one folder."""

    def __init__(
        self,
        preset: PixelPreset,
        bcd: BCD,
        model: ExtendedBCD,
        pairs: Sequence[PixelPair],
        part_weights: Tensor,
        device: str,
        out: Path,
    ) -> None:
        train = preset.train
        self.preset, self.bcd, self.model, self.out = preset, bcd, model, out
        self.device = resolve_device(device)
        keep_freed_memory(self.device.type)
        self.pairs, self.held_out = pairs[: -train.held_out], pairs[-train.held_out :]
        self.part_weights = part_weights.to(self.device)
        assert model.pixels is not None
        self.network: PixelNetwork = model.pixels.train()
        for parameter in self.network.parameters():
            parameter.requires_grad_(True)
        self.ema: EMA[PixelNetwork] = EMA(self.network, train.ema)
        fusion = list(self.network.fusion.parameters())
        known = {id(parameter) for parameter in fusion}
        flows = [parameter for parameter in self.network.parameters() if id(parameter) not in known]
        groups = [{"params": fusion, "base": train.lr}, {"params": flows, "base": train.field_lr}]
        self.optimizer = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=train.lr,
            betas=(0.9, 0.99),
            weight_decay=train.weight_decay,
        )
        self.critic = Critic(train, self.device) if train.has_critic else None
        log = TrainingLog(self.out, digits=5, tracker=train.tracker)
        self.loop = TrainingLoop(
            f"train bcd-pixels {train.suite}", train.steps, log, log_every=train.log_every,
            save_every=train.checkpoint_every,
        )  # fmt: skip
        settings = {
            "preset": preset.model_dump(mode="json", exclude={**NOT_RESULTS, "bcd": True}),
            "bcd": bcd.loaded.codes_sha256,
        }
        self.checkpoint = RunCheckpoint(self.out, WHAT, self.loop, settings, self.device)

    # ---- start, resume, save -------------------------------------------------------------------------------------
    def start(self, *, resume: bool) -> None:
        """Resume from the folder's checkpoint, or begin. Raises `UsageError` if the folder does not fit."""
        self.checkpoint.start(self._parts(), resume=resume)

    def save(self) -> None:
        """Write the checkpoint and the weights, each atomically."""
        with self.checkpoint.saving(self._parts()):
            whole = copy.copy(self.model)
            whole._modules = {**self.model._modules, "pixels": self.ema.module}
            save_model(self.out / WEIGHTS, whole, self.result(), self.card())

    def _parts(self) -> Parts:
        return {
            "network": self.network,
            "average": self.ema.module,
            "optimizer": self.optimizer,
            "critic": self.critic,
        }

    def result(self) -> Description:
        """The description of the weights: that of the BCD weights with the extension."""
        old = self.bcd.description
        inference = old.inference.model_copy(update={"resize": True})
        return old.model_copy(update={"extensions": self.model.extensions, "inference": inference})

    def card(self) -> dict[str, Any]:
        """The card of the BCD weights, and how they were extended."""
        return {
            **self.bcd.card,
            "pixel_path": {
                "bcd": self.bcd.loaded.codes_sha256,
                "suite": self.preset.train.suite,
                "pairs": len(self.pairs),
                "step": self.loop.step,
                "hours": round(self.loop.seconds / 3600, 3),
                "device": self.device.type,
                "train": self.preset.train.model_dump(mode="json", exclude=NOT_RESULTS["train"]),
            },
        }

    # ---- the loop ------------------------------------------------------------------------------------------------
    def run(self, limits: Limits) -> None:
        """Train to the preset's last step, or to the limits. Interrupted or limited runs leave a checkpoint."""
        every = Every(self.preset.train.log_every, lambda done: self.held_out_figures())
        self.loop.run(limits, self.train_step, self.save, validate=every, describe=_in_words)
        print(f"weights: {self.out / WEIGHTS}")

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the loss, its terms, and the norm of the gradient before clipping."""
        train = self.preset.train
        generator = step_generator(train.seed, step, "pixels")
        chosen = torch.randperm(len(self.pairs), generator=generator)[: train.batch].tolist()
        pairs = [draw_frames(self.pairs[one], train, generator) for one in chosen]
        factors = [jitter_factors(train.jitter, generator) for _ in pairs]
        carried, targets = self.fused(self.network, pairs, factors)
        loss, terms = pixel_loss(carried, targets, self.part_weights, train)
        if self.critic is not None:
            judged = self.critic.terms(carried.picture, targets.frames)
            loss = loss + train.adversarial * judged["adversarial"] + train.features * judged["features"]
            terms |= judged
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), train.gradient_clip)
        if self.critic is not None:
            terms["critic"] = self.critic.learn(carried.picture, targets.frames)
        values = {"loss": loss, **terms, "gradient_norm": norm}
        measured = {name: float(value.detach()) for name, value in values.items()}
        check_finite(step, measured, rate=train.lr, setting="train.lr")
        for group in self.optimizer.param_groups:
            group["lr"] = group["base"] * rate_factor(step, train)
        self.optimizer.step()
        self.ema.update(self.network, step)
        return measured

    def fused(
        self, network: PixelNetwork, pairs: Sequence[PixelPair], factors: Sequence[Tensor] | None = None
    ) -> tuple[Carried, Targets]:
        """The fused pictures of pairs, and what they should be. `factors` change the colours of every pair."""
        clips, sources, source_points, displacements, motions, occupied = [], [], [], [], [], []
        owns, frames, points = [], [], []
        for number, pair in enumerate(pairs):
            colours = None if factors is None else factors[number].to(self.device)
            content, own, target = (
                recoloured(pixel_values(part.to(self.device)), colours) for part in (pair.frames, pair.own, pair.target)
            )
            motion = self.bcd.pipeline.motion_of(pair.codes[None])[0]
            tokens, pose = (part.to(self.device).float() for part in (pair.tokens, pair.pose))
            geometry = self.model.geometry(network, tokens, pose, motion)
            clips.append(content)
            sources.append(geometry.sources)
            content_points = pair.content_points.to(self.device).float()
            if network.settings.mirrored:
                content_points = torch.cat([content_points, self.mirrored(content_points)])
            source_points.append(content_points[geometry.sources])
            displacements.append(geometry.displacements)
            occupied.append(geometry.occupied)
            motions.append(self.model.for_fusion(motion))
            owns.append(own)
            frames.append(target)
            points.append(pair.points.to(self.device).float())
        heads = [head for head in occupied if head is not None]
        carried = network.fuse(
            clips,
            sources,
            torch.cat(displacements),
            torch.cat(motions),
            torch.cat(owns),
            torch.cat(heads) if heads else None,
        )
        return carried, Targets(torch.cat(frames), torch.cat(points), torch.cat(source_points))

    def mirrored(self, points: Tensor) -> Tensor:
        """Labelled points [S, P, 2] in the mirror images of their frames; NaN for those that have no partner."""
        landmarks = self.model.landmarks
        assert landmarks is not None
        known = landmarks.settings.landmarks
        images = torch.full_like(points, torch.nan)
        images[:, :known] = landmarks.mirrored(points[:, :known])
        return images

    @torch.no_grad()
    def held_out_figures(self) -> dict[str, float]:
        """PSNR in dB of the moving average's pictures of the held-out pairs, and of the transformer's alone; the error
        of the fields at labelled points, and the mean weight of the drawn picture."""
        rows = []
        for pair in self.held_out:
            carried, targets = self.fused(self.ema.module, [pair])
            terms = pixel_loss(carried, targets, self.part_weights, self.preset.train)[1]
            rows.append(
                [
                    psnr(carried.picture, targets.frames),
                    psnr(pixel_values(pair.own.to(self.device)), targets.frames),
                    terms["points"],
                    terms["pixels"],
                    carried.weights[:, -1].mean(),
                ]
            )
        names = ("psnr", "psnr_transformer", "held_out_points", "held_out_pixels", "drawn_share")
        means = torch.tensor(rows).mean(0).tolist()
        return dict(zip(names, means, strict=True))


def draw_frames(pair: PixelPair, config: PixelTrainConfig, generator: torch.Generator) -> PixelPair:
    """A random selection of driving frames, and with some probability a single content frame."""
    driving = torch.randperm(len(pair.codes), generator=generator)[: config.batch_frames].sort().values
    content = torch.arange(len(pair.frames))
    alone, which = torch.rand(2, generator=generator).tolist()
    if alone < config.single:
        content = content[int(which * len(content))][None]
    of_content, of_driving = ("frames", "content_points", "pose"), ("codes", "own", "target", "points")
    chosen = {name: getattr(pair, name)[content] for name in of_content}
    return replace(pair, **chosen, **{name: getattr(pair, name)[driving] for name in of_driving})


def jitter_factors(strength: float, generator: torch.Generator) -> Tensor:
    """Random factors of the colour channels, and an offset: float32 [4]."""
    channels, rest = torch.rand(3, generator=generator), torch.rand(2, generator=generator)
    factors = (1 + strength * (2 * channels - 1)) * (1 + 0.8 * strength * (2 * rest[0] - 1))
    return torch.cat([factors, 0.6 * strength * (2 * rest[1:] - 1)])


def recoloured(picture: Tensor, factors: Tensor | None) -> Tensor:
    """Pictures [N, 3, h, w] in -1..1 in the colours of `jitter_factors`."""
    if factors is None:
        return picture
    light = (picture + 1) / 2 * factors[:3, None, None] + factors[3]
    return light.clamp(0, 1) * 2 - 1


def rate_factor(step: int, config: PixelTrainConfig) -> float:
    """Factor on the learning rates at `step` (0-based): warm-up, then a cosine to 2 %."""
    return warm_cosine(step, config.steps, config.warmup, 0.02)


def _in_words(line: Mapping[str, float]) -> str:
    return (
        f"loss {line['loss']:.4f}, held-out pairs {line['psnr']:.2f} dB "
        f"(transformer {line['psnr_transformer']:.2f}), points {line['held_out_points']:.4f}, "
        f"drawn {100 * line['drawn_share']:.0f} %"
    )


def plan(preset: PixelPreset, bcd: BCD, model: ExtendedBCD, part_weights: Tensor, request: TrainRequest) -> str:
    """Parameters, pairs and an estimate of the time from real steps on this device; writes nothing."""
    train, side = preset.train, model.config.frame_size
    points = len(part_weights)
    width = model.config.encoder.width
    pose = (width,) if model.landmarks is None else (model.landmarks.settings.landmarks, 2)
    random = PixelPair(
        frames=torch.zeros(25, *side, 3, dtype=torch.uint8),
        content_points=torch.zeros(25, points, 2, dtype=torch.half),
        tokens=torch.zeros(model.config.encoder.content_tokens, model.content_width, dtype=torch.half),
        pose=torch.zeros(25, *pose, dtype=torch.half),
        codes=torch.zeros(train.frames, model.quantizer.config.groups, dtype=torch.uint8),
        own=torch.zeros(train.frames, *side, 3, dtype=torch.uint8),
        target=torch.zeros(train.frames, *side, 3, dtype=torch.uint8),
        points=torch.zeros(train.frames, points, 2, dtype=torch.half),
    )
    trainer = Trainer(preset, bcd, model, [random] * train.clips, part_weights, request.device, request.out)
    seconds = seconds_per_step(trainer.train_step)
    existing = sum(1 for _ in (request.out / PAIRS).glob("*.safetensors"))
    return "\n".join(
        [
            f"suite: {train.suite} ({train.clips} pairs, {train.held_out} of them held out)",
            f"pairs to prepare: {train.clips - existing}",
            f"parameters: {count_parameters(trainer.network) / 1e6:.2f} M",
            f"work: {train.steps} steps of {train.batch * train.batch_frames} frames",
            f"speed here ({trainer.device.type}): {seconds:.2f} s per step, "
            f"{seconds * train.steps / 3600:.2f} h in total",
        ]
    )
