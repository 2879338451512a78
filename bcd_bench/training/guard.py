"""Stops a training whose numbers are no longer finite, before its weights are changed by them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bcd_bench.types.errors import BcdBenchError

__all__ = ["check_finite"]


def check_finite(step: int, values: Mapping[str, float], *, rate: float, setting: str) -> None:
    """Call this between `backward` and the optimiser's step, with the losses and the norm of the gradient.

    `rate` is the learning rate of the run and `setting` its name, both for the hint. Raises `BcdBenchError` that names
    every value which is NaN or infinite.
    """
    wrong = [f"{name} {value:g}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise BcdBenchError(
            f"step {step}: the loss is not finite or its gradient is not ({', '.join(wrong)}); nothing was updated",
            hint=f"train again with a lower learning rate: another --out, and --set {setting}={rate / 2:g}",
        )
