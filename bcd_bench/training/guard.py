"""Stops training at non-finite values, before they change the weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from bcd_bench.types.errors import BcdBenchError

__all__ = ["check_finite"]


def check_finite(step: int, values: Mapping[str, float], *, rate: float, setting: str) -> None:
    """Call this between `backward` and the optimiser's step, with the losses and the gradient norm.

    `rate` is the learning rate of the run and `setting` its name, both for the hint. Raises `BcdBenchError` that lists
    every value that is NaN or infinite.
    """
    wrong = [f"{name} {value:g}" for name, value in values.items() if not math.isfinite(value)]
    if wrong:
        raise BcdBenchError(
            f"step {step}: the loss or its gradient is not finite ({', '.join(wrong)}); no weights were updated",
            hint=f"retrain with a lower learning rate: a different --out, and --set {setting}={rate / 2:g}",
        )
