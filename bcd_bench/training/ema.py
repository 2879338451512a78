"""Exponential moving average of a model's weights, the result of a training run."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Generic, Literal, TypeVar, cast

if TYPE_CHECKING:
    from torch import nn

__all__ = ["EMA"]

M = TypeVar("M", bound="nn.Module")


class EMA(Generic[M]):
    """`module` contains the average of the weights of a model: in eval mode, without gradients, on the model's device.

    Update number n (from 0) is average = d * average + (1 - d) * weights with

        d = min(decay, (n + a) / (n + b)),    ramp = (a, b)

    so that the average follows the weights quickly at first, since the initial weights are untrained. With the default
    ramp (1, 10), d is 0.1, 0.18, 0.25, ..., and reaches a decay of 0.999 after 8,990 updates. A ramp of (0, b) starts
    with a copy of the weights; a ramp of (1, 1) uses d = decay from the start.

    Buffers (the running statistics of batch norm) are copied, or averaged like weights if `buffers` is "average";
    integer buffers are always copied.
    """

    def __init__(
        self,
        model: M,
        decay: float,
        *,
        ramp: tuple[float, float] = (1, 10),
        buffers: Literal["copy", "average"] = "copy",
    ) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay}: must be at least 0 and below 1")
        if not 0 <= ramp[0] <= ramp[1] or ramp[1] == 0:
            raise ValueError(f"ramp {ramp}: must be (a, b) with 0 <= a <= b and b above 0")
        self.decay, self.ramp, self._buffers = decay, ramp, buffers
        self.module: M = cast("M", copy.deepcopy(model).eval().requires_grad_(False))

    def decay_at(self, update: int) -> float:
        """The decay of update number `update`, counted from 0."""
        a, b = self.ramp
        return min(self.decay, (update + a) / (update + b))

    def update(self, model: M, update: int) -> None:
        """Move the average towards `model`. `update` counts the updates since the average started; a trainer whose
        model gets new parts restarts the count, so that the average follows quickly again."""
        import torch
        from torch.optim.swa_utils import get_ema_multi_avg_fn

        averages = list(self.module.parameters())
        weights = [parameter.detach() for parameter in model.parameters()]
        with torch.no_grad():
            for averaged, current in zip(self.module.buffers(), model.buffers(), strict=True):
                if self._buffers == "average" and averaged.is_floating_point():
                    averages.append(cast("nn.Parameter", averaged))
                    weights.append(current)
                else:
                    averaged.copy_(current)
            get_ema_multi_avg_fn(self.decay_at(update))(averages, weights, None)

    def copy_from(self, model: M) -> None:
        """Restart: set the average to the weights and buffers of `model`."""
        self.module.load_state_dict(model.state_dict())
