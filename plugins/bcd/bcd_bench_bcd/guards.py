"""Stops a training run that has gone wrong, in words a user can act on."""

from __future__ import annotations

from collections import deque

import numpy as np

from bcd_bench.errors import BcdBenchError

__all__ = ["CollapseGuard"]

WINDOW = 200
GRACE = 600
"""Steps before the code has to carry anything."""
LEAST_SHARE = 0.1
"""Share of the target rate that the code must say about its frame."""


class CollapseGuard:
    """Watches what the code says about a frame: H(code) - H(code | frame), in bits.

    A rate alone does not show a collapse: a code that is uniform noise meets any target and says nothing.
    """

    def __init__(self, target_bits: float) -> None:
        self.target_bits = target_bits
        self._said: deque[float] = deque(maxlen=WINDOW)

    def check(self, step: int, values: list[float]) -> None:
        """`values` as `Trainer.step` returns them. Raises `BcdBenchError` once the codebook has collapsed."""
        self._said.append(values[2] - values[3])
        if step < GRACE or len(self._said) < WINDOW:
            return
        said = float(np.mean(self._said))
        if said < LEAST_SHARE * self.target_bits:
            raise BcdBenchError(
                f"step {step}: the codebook has collapsed: a code says {said:.2f} bits about its frame "
                f"({values[2]:.2f} bits of rate, {values[3]:.2f} of them noise), target {self.target_bits:g}",
                hint="try --set model.quantizer.normalize=batch, model.quantizer.codes_from_data=true or more alpha",
            )
