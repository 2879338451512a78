"""Learning rates over the steps of a training."""

from __future__ import annotations

import math

__all__ = ["warm_cosine"]


def warm_cosine(step: int, steps: int, warmup: int, floor: float) -> float:
    """Factor on the learning rate at `step` (0-based) of `steps`: linear warm-up, then a cosine from 1 to `floor`."""
    warm = min(1.0, (step + 1) / warmup) if warmup else 1.0
    return warm * (floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * step / steps)))
