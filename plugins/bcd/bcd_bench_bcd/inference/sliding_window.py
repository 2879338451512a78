"""Clips longer than a model was trained on: overlapping windows whose results are averaged, and subsets for content.

A window is the model's training length; windows overlap by half, and their results for a frame are averaged with
weights that fall towards a window's ends, so that no frame is next to a border. Nothing here is random, and the result
of a clip depends on no other clip.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["overlap_add", "strided_subsets", "window_starts"]


def window_starts(frames: int, window: int) -> list[int]:
    """First frames of the windows over a clip: half a window apart, the last one at the clip's end."""
    if frames <= window:
        return [0]
    hop = max(1, window // 2)
    return [*range(0, frames - window, hop), frames - window]


def triangular_window(window: int) -> Tensor:
    """Weights float32 [window]: a triangle without zeros."""
    ramp = torch.arange(1, window + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0))


def overlap_add(frames: int, window: int | None, part: Callable[[slice], Tensor]) -> Tensor:
    """`part(frames of a window)` [B, T', ...] for every window over `frames` frames, averaged to [B, frames, ...].

    Only one window is computed at a time. Clips that fit into one window (or `window=None`) are one call of `part`.
    """
    if window is None or frames <= window:
        return part(slice(0, frames))
    weight = triangular_window(window)
    total, weights = None, torch.zeros(frames)
    for start in window_starts(frames, window):
        here = slice(start, start + window)
        found = part(here).float()
        if total is None:
            total = found.new_zeros((found.shape[0], frames, *found.shape[2:]))
        total[:, here] += found * weight.to(found).view(1, -1, *[1] * (found.ndim - 2))
        weights[here] += weight
    assert total is not None
    return total / weights.to(total).view(1, -1, *[1] * (total.ndim - 2))


def strided_subsets(frames: int, window: int | None) -> list[slice]:
    """The frames of a clip dealt out in turn to as few subsets as have at most `window` frames each.

    Every subset spans the whole clip; neighbouring frames show the same content.
    """
    count = 1 if window is None else -(-frames // window)
    return [slice(first, None, count) for first in range(count)]
