"""The gradients of one step: of a whole batch, or of a batch split into parts and processes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Batch, Keypoints
from bcd_bench_bcd.extensions.loss import extended_code_histogram, extended_loss
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.paper.loss import bcd_loss, code_histogram
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.paper.rng import Rng
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.training.sharding import Part

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TrainingStep", "gradients_of_batch", "gradients_of_parts"]

Losses = dict[str, Tensor]


class TrainingStep(nn.Module):
    """Model and loss as one module, so that data-parallel wrappers see one forward call."""

    def __init__(self, model: BCD, preset: Preset) -> None:
        super().__init__()
        self.model, self.preset = model, preset

    def forward(
        self,
        clips: Tensor,
        step: int,
        tau: float,
        rng: Rng,
        keep_probabilities: Tensor | None = None,
        histogram: Tensor | None = None,
        keypoints: Keypoints | None = None,
    ) -> Losses:
        """The paper's loss, or that of the recipe's extensions."""
        objective, direction = self.preset.objective, self.preset.train.direction
        if not isinstance(self.model, ExtendedBCD):
            return bcd_loss(self.model, clips, objective, tau=tau, rng=rng, direction=direction, histogram=histogram)
        return extended_loss(
            self.model,
            clips,
            objective,
            self.preset.extensions,
            tau=tau,
            step=step,
            rng=rng,
            direction=direction,
            histogram=histogram,
            keep_probabilities=keep_probabilities,
            keypoints=keypoints,
        )

    def histogram(self, clips: Tensor, rng: Rng) -> Tensor:
        """The histogram from which the rate of these clips is computed, float32 [N, J]."""
        direction = self.preset.train.direction
        if not isinstance(self.model, ExtendedBCD):
            return code_histogram(self.model, clips, direction)
        return extended_code_histogram(self.model, clips, self.preset.extensions, rng, direction)


def gradients_of_batch(
    accelerator: Accelerator,
    module: TrainingStep,
    batch: Batch,
    step: int,
    tau: float,
    generator: torch.Generator,
    keep_probabilities: Tensor | None = None,
) -> Losses:
    """Accumulate the gradients of clips in one process and one part; returns the losses by name, detached."""
    with accelerator.autocast():
        losses = module(batch.clips, step, tau, Rng(generator), keep_probabilities, keypoints=batch.keypoints)
    accelerator.backward(losses["loss"])
    return {name: value.detach().float() for name, value in losses.items()}


def gradients_of_parts(
    accelerator: Accelerator,
    wrapped: nn.Module,
    module: TrainingStep,
    batches: Sequence[Tensor],
    parts: Sequence[Part],
    step: int,
    tau: float,
) -> Losses:
    """Accumulate the gradients of a step's whole batch, of which this process computes `parts` one after the other.

    `wrapped` is `module` wrapped for data parallelism. The rate is that of the whole batch: its histogram is computed
    first, over all parts and processes, by the encoder alone. Returns the losses by name, averaged over `parts`.
    """
    processes = accelerator.num_processes
    histogram = None
    if len(parts) * processes > 1:
        with accelerator.autocast():
            histograms = [module.histogram(clips, part.rng()) for clips, part in zip(batches, parts, strict=True)]
        histogram = torch.stack(histograms).mean(0)
        if processes > 1:
            histogram = accelerator.reduce(histogram, "mean")
    all_losses: list[Losses] = []
    for number, (clips, part) in enumerate(zip(batches, parts, strict=True)):
        unfinished = processes > 1 and number < len(parts) - 1  # gradients are exchanged after the last part
        with accelerator.no_sync(wrapped) if unfinished else contextlib.nullcontext():
            with accelerator.autocast():
                losses = wrapped(clips, step, tau, part.rng(), None, histogram)
            accelerator.backward(losses["loss"] / len(parts))
        all_losses.append({name: value.detach().float() for name, value in losses.items()})
    return {name: torch.stack([losses[name] for losses in all_losses]).mean(0) for name in all_losses[0]}
