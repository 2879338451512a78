"""Detection of failed training: a collapsed codebook, or conditions that the decoder does not use."""

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
"""Number of initial steps in which the code may be empty and conditions unused."""
MIN_INFORMATION = 0.1
"""Fraction of the target rate that the code must carry as information about its frame."""
MIN_CONTRIBUTION = 0.01
"""Relative increase of the loss by a shuffled condition below which the condition counts as unused."""
MEASURED_CLIPS = 16
"""Number of clips of a batch on which contributions are measured."""


@torch.no_grad()
def condition_contributions(model: BCD, clips: Tensor, generator: torch.Generator) -> dict[str, float]:
    """Relative increase of the denoising error when a condition is shuffled within the batch.

    "content_contribution": each clip gets the content of another clip; "motion_contribution": the motion of another
    clip. A value of about 0 means that the decoder does not use the condition, so nothing is transferred, whatever the
    rate. `clips` are as `BCD.values` takes them (empty result for a single one, which cannot be shuffled); the model is
    evaluated as at inference, and its state does not change.
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
    """Monitors the information of the code about a frame, H(code) - H(code | frame) in bits, and the use of conditions.

    The rate alone does not show a collapse: a code that is uniform noise meets any target without carrying information,
    and an informative code may be ignored by the decoder.
    """

    def __init__(self, target_bits: float) -> None:
        self.target_bits = target_bits
        self._information: deque[float] = deque(maxlen=WINDOW)
        self._warned: set[str] = set()

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Raise `BcdBenchError` if the codebook has collapsed. `values` are the losses of `step` by name."""
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
        """A warning the first time that a condition turns out unused, after the first steps; else None.

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
                    f"warning: step {step}: the decoder hardly uses the {condition}: replacing it by another clip's "
                    f"changes the loss by {value:.1%}, so nothing is transferred yet"
                )
        return None
