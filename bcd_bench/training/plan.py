"""Estimates for `--plan`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

__all__ = ["count_parameters", "seconds_per_step"]


def count_parameters(module: nn.Module) -> int:
    """Number of parameters of `module`, with shared parameters counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def seconds_per_step(train_step: Callable[[int], object], *, steps: int = 3) -> float:
    """Fastest of the steps 1 to `steps` - 1, in seconds; step 0 is a warm-up. The steps are real and update the
    model."""
    times = []
    for step in range(steps):
        began = time.monotonic()
        train_step(step)
        times.append(time.monotonic() - began)
    return min(times[1:])
