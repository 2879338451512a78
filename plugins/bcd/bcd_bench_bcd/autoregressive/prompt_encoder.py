"""Prompts of one or a few frames: a copy of BCD's encoder that is adapted to them (ours).

BCD's encoder learns from whole clips. From a single frame, its content and its code can differ from those of the clip
that the frame is taken from, so that the generated clip shows other clothes, or the motion model continues a code that
it has hardly seen. Here the transformer of the encoder (T5 and the content queries) is trained a little longer, by
distillation: from the first k frames alone it should give the content and the motion latents that the unchanged encoder
gives with the whole clip. It needs no labels and no decoder, and the BCD weights stay as they are.

Measured on 592 continuations of one frame: the content is kept in 100 % of the clips of both Sprites suites, instead of
91 and 95 %.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from bcd_bench.training import (
    CHECKPOINT,
    Limits,
    Parts,
    RunCheckpoint,
    TrainingLog,
    TrainingLoop,
    check_finite,
    writing_into,
)
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.autoregressive.config import MotionPreset, PromptEncoderConfig
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.pipeline import Pipeline
from bcd_bench_bcd.paper.model import BCD as BCDModel
from bcd_bench_bcd.training.dataset import DeviceClips
from bcd_bench_bcd.training.rng import step_generator

__all__ = ["PromptEncoderTraining", "adapt_encoder", "adapted_names", "prompt_pipeline"]

WHAT = "BCD prompt encoder training run"
STATISTICS_CLIPS = 128
"""Training clips whose content and latents give the scale of the error."""


def adapted_names(encoder: nn.Module) -> list[str]:
    """Names of the parameters of BCD's encoder that are adapted: the content queries and T5."""
    return [name for name, _ in encoder.named_parameters() if name == "queries" or name.startswith("t5.")]


def prompt_pipeline(bcd: BCD, tensors: Mapping[str, Tensor] | None) -> Pipeline:
    """The pipeline that encodes prompts: that of `bcd`, with the parameters `tensors` of its encoder replaced.

    Raises `ValueError` if `tensors` are not those of `adapted_names`, or have other shapes.
    """
    if tensors is None:
        return bcd.pipeline
    model = _with_own_encoder(bcd.model)
    if set(tensors) != set(adapted_names(model.encoder)):
        raise ValueError("the prompt encoder belongs to another architecture of BCD's encoder")
    parameters = dict(model.encoder.named_parameters())
    for name, value in tensors.items():
        if value.shape != parameters[name].shape:
            raise ValueError(f"the prompt encoder has another shape: {name}")
        parameters[name].data.copy_(value)
    return Pipeline(model, bcd.pipeline.window)


def _with_own_encoder(model: BCDModel) -> BCDModel:
    """A copy of `model` that shares everything but the encoder, which may be changed."""
    own = copy.copy(model)
    own._modules = dict(model._modules)  # a shallow copy of a module shares this dict
    own.encoder = copy.deepcopy(model.encoder)
    return own


def adapt_encoder(
    preset: MotionPreset, bcd: BCD, clips: DeviceClips, count: int, out: Path, limits: Limits, *, resume: bool
) -> dict[str, Tensor] | None:
    """Adapt the encoder in the folder `out`, on the first `count` of `clips` without the held-out ones, or continue.

    Returns the adapted parameters, or None if the limits ended it. Raises `UsageError` if the folder exists and
    `resume` is false, or does not fit.
    """
    if out.exists() and not resume:
        raise UsageError(
            f"{out.parent}: already contains a training run",
            hint="add --resume to continue it, or use a different --out",
        )
    with writing_into(out.parent):
        out.mkdir(parents=True, exist_ok=True)
    used, seed = count - preset.train.held_out, preset.train.seed
    return PromptEncoderTraining(preset.prompt_encoder, bcd, bcd.loaded.sha256, clips, used, out, seed).run(limits)


class _Adapted:
    """The adapted parameters by name, as a part of the checkpoint."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        self._parameters = parameters

    def state_dict(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self._parameters.items()}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(state[name])


class PromptEncoderTraining:
    """Adapts the encoder of `bcd` to prompts, in the folder `out`."""

    def __init__(
        self,
        config: PromptEncoderConfig,
        bcd: BCD,
        bcd_sha256: str,
        clips: DeviceClips,
        count: int,
        out: Path,
        seed: int,
    ) -> None:
        """Trains on the first `count` of `clips`. Raises `UsageError` for weights with a canonical feature map, whose
        content is not that of the transformer alone."""
        if isinstance(bcd.model, ExtendedBCD) and bcd.model.has_canonical:
            raise UsageError(
                "the encoder of weights with canonical_features cannot be adapted to prompts",
                hint="--set prompt_encoder.steps=0",
            )
        self.config, self.bcd, self.out, self.seed = config, bcd, out, seed
        self.clips, self.count = clips, count
        self.model = _with_own_encoder(bcd.model)
        parameters = dict(self.model.encoder.named_parameters())
        self.adapted = {name: parameters[name] for name in adapted_names(self.model.encoder)}
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in self.adapted)
        self.optimizer = torch.optim.AdamW(self.adapted.values(), lr=config.lr, betas=(0.9, 0.99), weight_decay=0.0)
        log = TrainingLog(out, digits=6)
        self.loop = TrainingLoop("adapt the encoder to prompts", config.steps, log, log_every=50, save_every=50)
        settings = {"config": config.model_dump(mode="json"), "bcd": bcd_sha256, "seed": seed}
        self.checkpoint = RunCheckpoint(out, WHAT, self.loop, settings, next(iter(self.adapted.values())).device)

    def run(self, limits: Limits) -> dict[str, Tensor] | None:
        """Train, or resume from the checkpoint in the folder: the adapted parameters, or None if the limits ended
        it."""
        self.checkpoint.start(self._parts(), resume=(self.out / CHECKPOINT).exists())
        if self.loop.step < self.config.steps:
            self._content_scale, self._latent_scale = self._scales()
            if not self.loop.run(limits, self.train_step, self.save):
                return None
        # as the weight file stores them, so that the codes of training and of generation agree
        return {name: parameter.detach().half().float() for name, parameter in self.adapted.items()}

    def train_step(self, step: int) -> dict[str, float]:
        """One optimiser step; returns the errors of content and motion latents in units of their variance."""
        config = self.config
        generator = step_generator(self.seed, step, "prompt encoder")
        indices = torch.randint(self.count, (config.batch,), generator=generator).tolist()
        with torch.no_grad():
            values = self.bcd.model.values(self.clips.batch(indices))
            content, latents = self._encode(self.bcd.model, values)
        # half of the steps take one frame; a whole clip now and then keeps the encoder what it was
        alone = float(torch.rand((), generator=generator)) < 0.5
        frames = 1 if alone else int(torch.randint(1, values.shape[1] + 1, (), generator=generator))
        given_content, given_latents = self._encode(self.model, values[:, :frames])
        errors = {
            "content": ((given_content - content) / self._content_scale).square().mean(),
            "motion": ((given_latents - latents[:, :frames]) / self._latent_scale).square().mean(),
        }
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(errors.values())).sum().backward()
        norm = nn.utils.clip_grad_norm_(self.adapted.values(), 1.0)
        measured = {name: float(error.detach()) for name, error in errors.items()} | {"gradient_norm": float(norm)}
        check_finite(step, measured, rate=config.lr, setting="prompt_encoder.lr")
        warm = min(1.0, (step + 1) / 50)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * warm * (0.5 + 0.5 * math.cos(math.pi * step / config.steps))
        self.optimizer.step()
        return measured

    def _parts(self) -> Parts:
        return {"adapted": _Adapted(self.adapted), "optimizer": self.optimizer}

    def save(self) -> None:
        """Write the checkpoint atomically."""
        self.checkpoint.save(self._parts())

    @torch.no_grad()
    def _scales(self) -> tuple[Tensor, Tensor]:
        """Standard deviations per channel of content and motion latents over the first training clips."""
        indices = list(range(min(STATISTICS_CLIPS, self.count)))
        content, latents = self._encode(self.bcd.model, self.bcd.model.values(self.clips.batch(indices)))
        return content.std((0, 1)).clamp_min(1e-6), latents.std((0, 1)).clamp_min(1e-6)

    @staticmethod
    def _encode(model: BCDModel, values: Tensor) -> tuple[Tensor, Tensor]:
        """Content [B, K, C_c] before it is rounded, and motion latents [B, T, C_m]."""
        content = model.content_mean(values) if isinstance(model, ExtendedBCD) else model.encode_content(values)
        return content, model.latents_of_motion(values)
