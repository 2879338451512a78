"""Ctrl-C and SIGTERM as a wish to stop: looked at between steps, or breaking in where nothing can be lost."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stop", "stopping"]


class Stop:
    """Whether somebody asked to stop. Made by `stopping`; call it to ask: `while not stop(): step()`."""

    def __init__(self, *, insist: bool = False) -> None:
        self._insist = insist
        self._asked = False
        self._breakable = False

    def __call__(self) -> bool:
        return self._asked

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a stop was asked for, even where other code has swallowed it."""
        if self._asked:
            raise KeyboardInterrupt

    @contextmanager
    def into(self) -> Iterator[None]:
        """Where a signal breaks in at once, as `KeyboardInterrupt`; what goes on here is done again after a stop.

        It breaks in once: a second signal leaves whatever cleans up alone.
        """
        self._breakable = True  # before the look, so that a signal between the two is not missed
        try:
            self.check()
            yield
        finally:
            self._breakable = False

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        again, self._asked = self._asked, True
        if self._breakable or (again and self._insist):
            self._breakable = False
            raise KeyboardInterrupt


@contextmanager
def stopping(*, insist: bool = False) -> Iterator[Stop]:
    """Turn Ctrl-C and SIGTERM into a `Stop` for the time of the block.

    Inside `Stop.into` a signal breaks in, elsewhere it is only noted. With `insist` a second one raises
    `KeyboardInterrupt` anywhere, for loops that look at the `Stop` rarely. Outside the main thread, which no signal
    reaches, the `Stop` is never asked.
    """
    stop = Stop(insist=insist)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
