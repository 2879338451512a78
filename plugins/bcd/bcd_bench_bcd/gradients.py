"""The gradients of one step: of a batch in one go, or of one that is shared among parts and processes."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from bcd_bench_bcd.batches import Part
from bcd_bench_bcd.configs import Preset
from bcd_bench_bcd.model import BCD
from bcd_bench_bcd.objective import ContentAdversary, Guide, Losses, code_histogram, training_loss
from bcd_bench_bcd.randomness import Draws

if TYPE_CHECKING:
    from accelerate import Accelerator

__all__ = ["TrainingStep", "gradients_of_batch", "gradients_of_parts"]


class TrainingStep(nn.Module):
    """Model, adversary and loss as one module, so that data-parallel wrappers see one forward call."""

    def __init__(self, model: BCD, adversary: ContentAdversary | None, preset: Preset) -> None:
        super().__init__()
        self.model, self.adversary, self.preset = model, adversary, preset

    def forward(
        self,
        clips: Tensor,
        step: int,
        tau: float,
        generator: torch.Generator | Draws,
        patch_chances: Tensor | None = None,
        histogram: Tensor | None = None,
        guide: Guide | None = None,
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
            histogram=histogram,
            guide=guide,
        )


def gradients_of_batch(
    accelerator: Accelerator,
    module: TrainingStep,
    batch: Tensor,
    step: int,
    tau: float,
    generator: torch.Generator,
    patch_chances: Tensor | None,
    guide: Guide | None,
) -> Tensor:
    """Add up the gradients of clips in one process and one part; returns the values of `Losses` in their order."""
    with accelerator.autocast():
        losses = module(batch, step, tau, generator, patch_chances, guide=guide)
    accelerator.backward(losses.total)
    return _values(losses)


def gradients_of_parts(
    accelerator: Accelerator,
    wrapped: nn.Module,
    module: TrainingStep,
    batches: Sequence[Tensor],
    parts: Sequence[Part],
    step: int,
    tau: float,
) -> Tensor:
    """Add up the gradients of a step's whole batch, of which this process computes `parts` one after the other.

    `wrapped` is `module` as data parallelism has it. The rate is that of the whole batch: its histogram is counted
    first, over all parts and processes, by the encoder alone. Returns the values of `Losses`, averaged over `parts`.
    """
    processes, direction = accelerator.num_processes, module.preset.train.direction
    histogram = None
    if len(parts) * processes > 1:
        with accelerator.autocast():
            counted = [
                code_histogram(module.model, clips, direction, part.draws())
                for clips, part in zip(batches, parts, strict=True)
            ]
        histogram = torch.stack(counted).mean(0)
        if processes > 1:
            histogram = accelerator.reduce(histogram, "mean")
    values = []
    for number, (clips, part) in enumerate(zip(batches, parts, strict=True)):
        unfinished = processes > 1 and number < len(parts) - 1  # gradients meet after the last part
        with accelerator.no_sync(wrapped) if unfinished else contextlib.nullcontext():
            with accelerator.autocast():
                losses = wrapped(clips, step, tau, part.draws(), None, histogram)
            accelerator.backward(losses.total / len(parts))
        values.append(_values(losses))
    return torch.stack(values).mean(0)


def _values(losses: Losses) -> Tensor:
    return torch.stack([value.detach().float() for value in vars(losses).values()])
