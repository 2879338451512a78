"""log.jsonl of a training run: a line of means every few steps, and the words for whoever watches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bcd_bench.atomic import append_jsonl

__all__ = ["COLUMNS", "append_means"]

COLUMNS = (
    "loss",
    "diffusion",
    "bits",
    "conditional_bits",
    "content_bits",
    "adversary",
    "cycle",
    "cycle_content",
    "picture",
    "guidance",
    "gradient_norm",
)
"""The terms of `objective.Losses` in their order, then the norm of the gradient before it is clipped."""


def append_means(path: Path, window: Sequence[Sequence[float]], step: int, tau: float, rate: float) -> str:
    """Append the means of the steps in `window` (values in the order of `COLUMNS`); returns them as a sentence.

    `tau` is the Gumbel temperature of the last step, `rate` the clips per second so far.
    """
    means = dict(zip(COLUMNS, np.mean(window, axis=0).tolist(), strict=True))
    append_jsonl(path, [{"step": step, **means, "tau": tau}])
    return (
        f"step {step}: diffusion {means['diffusion']:.4f}, {means['bits']:.2f} bits per frame "
        f"({means['conditional_bits']:.2f} undecided), content {means['content_bits']:.1f} bits, "
        f"gradient norm {means['gradient_norm']:.2f}, {rate:.1f} clips/s"
    )
