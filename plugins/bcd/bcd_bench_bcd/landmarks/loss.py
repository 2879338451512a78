"""The loss of positions, and the schedule of the learning rate."""

from __future__ import annotations

from torch import Tensor

from bcd_bench_bcd.landmarks.config import LandmarkTrainConfig
from bcd_bench_bcd.training.schedules import warm_cosine

__all__ = ["point_distance", "rate_factor"]


def point_distance(points: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Mean distance of `points` [N, P, 2] from `targets`, weighted by `weights` [N, P]."""
    distance = ((points - targets).square().sum(-1) + 1e-8).sqrt()
    return (distance * weights).sum() / weights.sum()


def rate_factor(step: int, config: LandmarkTrainConfig) -> float:
    """Factor on the learning rates at `step` (0-based): in both stages warm-up, then a cosine to 1 %."""
    first, last = (0, config.free_steps) if step < config.free_steps else (config.free_steps, config.steps)
    return warm_cosine(step - first, last - first, config.warmup, 0.01)
