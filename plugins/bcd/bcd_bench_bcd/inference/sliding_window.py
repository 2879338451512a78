"""Clips longer than the training clips: overlapping windows whose results are averaged, and subsets for content.

A window has the model's training length; windows overlap by half, and their results for a frame are averaged with
weights that fall towards a window's ends, so that no frame is next to a border. The computation is deterministic, and
the result of a clip does not depend on other clips.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["overlap_add", "strided_subsets", "window_starts"]


def window_starts(frames: int, window: int) -> list[int]:
    """First frames of the windows over a clip: half a window apart, the last one at the end of the clip."""
    if frames <= window:
        return [0]
    hop = max(1, window // 2)
    return [*range(0, frames - window, hop), frames - window]


def triangular_window(window: int) -> Tensor:
    """Triangular weights float32 [window], without zeros."""
    ramp = torch.arange(1, window + 1, dtype=torch.float32)
    return torch.minimum(ramp, ramp.flip(0))


def overlap_add(frames: int, window: int | None, part: Callable[[slice], Tensor]) -> Tensor:
    """Average `part(frames of a window)` [B, T', ...] over all windows of `frames` frames, to [B, frames, ...].

    Only one window is computed at a time. For clips that fit into one window (or `window=None`), `part` is called once.
    """
    if window is None or frames <= window:
        return part(slice(0, frames))
    weight = triangular_window(window)
    total, weights = None, torch.zeros(frames)
    for start in window_starts(frames, window):
        selection = slice(start, start + window)
        result = part(selection).float()
        if total is None:
            total = result.new_zeros((result.shape[0], frames, *result.shape[2:]))
        total[:, selection] += result * weight.to(result).view(1, -1, *[1] * (result.ndim - 2))
        weights[selection] += weight
    assert total is not None
    return total / weights.to(total).view(1, -1, *[1] * (total.ndim - 2))


def strided_subsets(frames: int, window: int | None) -> list[slice]:
    """Deal the frames of a clip in turn to the smallest number of subsets with at most `window` frames each.

    Every subset spans the whole clip; neighbouring frames show the same content.
    """
    count = 1 if window is None else -(-frames // window)
    return [slice(first, None, count) for first in range(count)]
