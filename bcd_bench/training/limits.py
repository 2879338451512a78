"""Limits of one training command: `--max-steps` and `--max-minutes`."""

from __future__ import annotations

import time
from collections.abc import Callable

from bcd_bench.plugin.specs import TrainRequest

__all__ = ["Limits"]


class Limits:
    """Limits of one command, over all stages of a training run; the minutes count from the creation of this object."""

    def __init__(
        self,
        max_steps: int | None = None,
        max_minutes: float | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_steps, self.max_minutes = max_steps, max_minutes
        self._clock = clock
        self._began = clock()

    @classmethod
    def of(cls, request: TrainRequest) -> Limits:
        """The limits passed to `bcd-bench train`."""
        return cls(request.max_steps, request.max_minutes)

    def last_step(self, steps: int, before: int = 0) -> int:
        """The step at which a stage of `steps` steps ends, given that earlier stages took `before` steps. 0 or less
        means that the stage does not start."""
        return steps if self.max_steps is None else min(steps, self.max_steps - before)

    def time_is_over(self) -> bool:
        """Whether `max_minutes` have passed."""
        return self.max_minutes is not None and self._clock() - self._began >= 60 * self.max_minutes

    @property
    def reason(self) -> str:
        """Description of the time limit, for training runs that reached it."""
        return f"--max-minutes {self.max_minutes or 0:g} is over"
