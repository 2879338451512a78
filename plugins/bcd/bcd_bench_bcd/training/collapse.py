"""Notices a training run that has gone wrong: a collapsed codebook, or conditions that the decoder does not use."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from bcd_bench.types.errors import BcdBenchError
from bcd_bench_bcd.paper.edm import loss_weight, training_sigmas
from bcd_bench_bcd.paper.loss import cross_driven_halves
from bcd_bench_bcd.paper.model import BCD

__all__ = ["CollapseGuard", "condition_contributions"]

WINDOW = 200
GRACE = 600
"""Steps before the code has to carry anything, and before conditions have to be used."""
MIN_INFORMATION = 0.1
"""Share of the target rate that the code must say about its frame."""
MIN_CONTRIBUTION = 0.01
"""Relative rise of the loss by a shuffled condition below which the decoder does not use the condition."""
MEASURED_CLIPS = 16
"""Clips of a batch that contributions are measured on."""


@torch.no_grad()
def condition_contributions(model: BCD, clips: Tensor, generator: torch.Generator) -> dict[str, float]:
    """By how much the denoising error rises if a condition is shuffled within the batch, relative to the error.

    "content_contribution": each clip gets the content of another clip; "motion_contribution": the motion of another
    clip. About 0: the decoder does not use the condition, so nothing is transferred, whatever the rate is. `clips` are
    as `BCD.values` takes them (nothing can be said of a single one: empty); the model is evaluated as at inference, and
    its state does not change.
    """
    if len(clips) < 2:
        return {}
    was_training = model.training
    model.eval()
    try:
        clips = clips[:MEASURED_CLIPS]
        content_half, driving_half = (model.values(half) for half in cross_driven_halves(clips))
        content, motion = model.encode_content(content_half), model.encode_motion(driving_half).motion
        clean = model.decoder.patchify(driving_half)
        sigma = training_sigmas(len(clean), model.config.edm, generator).to(clean.device)
        noise = torch.randn(clean.shape, generator=generator).to(clean.device)
        noisy = clean + sigma.view(-1, 1, 1, 1) * noise

        def error(content: Tensor, motion: Tensor) -> float:
            denoised = model.denoise(noisy, sigma, content, motion)
            squared = (denoised - clean).square().mean((1, 2, 3))
            return float((loss_weight(sigma, model.config.edm) * squared).mean())

        right = max(error(content, motion), 1e-12)
        return {
            "content_contribution": error(content.roll(1, 0), motion) / right - 1,
            "motion_contribution": error(content, motion.roll(1, 0)) / right - 1,
        }
    finally:
        model.train(was_training)


class CollapseGuard:
    """Watches what the code says about a frame, H(code) - H(code | frame) in bits, and whether conditions are used.

    A rate alone does not show a collapse: a code that is uniform noise meets any target and says nothing, and a code
    that is full of information may not be read by the decoder.
    """

    def __init__(self, target_bits: float) -> None:
        self.target_bits = target_bits
        self._information: deque[float] = deque(maxlen=WINDOW)
        self._warned: set[str] = set()

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """`values` are the losses of `step` by name. Raises `BcdBenchError` once the codebook has collapsed."""
        bits, noise = values["bits"], values["conditional_bits"]
        self._information.append(bits - noise)
        if step < GRACE or len(self._information) < WINDOW:
            return
        information = float(np.mean(self._information))
        if information < MIN_INFORMATION * self.target_bits:
            raise BcdBenchError(
                f"step {step}: the codebook has collapsed: a code carries {information:.2f} bits about its frame "
                f"({bits:.2f} bits of rate, {noise:.2f} of them noise), target {self.target_bits:g}",
                hint="try --set extensions.standardized_latents={}, model.quantizer.codes_from_data=true, "
                "model.quantizer.distance=scaled or another model.quantizer.alpha",
            )

    def warning(self, step: int, line: Mapping[str, float]) -> str | None:
        """A line for the terminal the first time that a condition turns out unused, after the first steps.

        `line` is a line of the log, with or without contributions.
        """
        if step < GRACE:
            return None
        contributions = {name: value for name, value in line.items() if name.endswith("_contribution")}
        self._warned -= {name for name, value in contributions.items() if value >= MIN_CONTRIBUTION}
        for name, value in contributions.items():
            if value < MIN_CONTRIBUTION and name not in self._warned:
                self._warned.add(name)
                condition = name.partition("_")[0]
                return (
                    f"warning: step {step}: the decoder hardly uses the {condition}: with that of another clip "
                    f"the loss changes by {value:.1%}, so nothing is transferred yet"
                )
        return None
