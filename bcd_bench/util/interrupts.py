"""Ctrl-C and SIGTERM as a wish to stop: looked at between steps, or breaking in where nothing can be lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

__all__ = ["Stop", "held", "note_interrupt", "raise_on_terminate", "stopping", "user_interrupted"]

_active: list[Stop] = []
"""The blocks of `stopping` that are open, the innermost last."""


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
    _active.append(stop)
    try:
        yield stop
    finally:
        _active.remove(stop)
        for number, handler in before.items():
            signal.signal(number, handler)


def user_interrupted() -> bool:
    """Whether a `KeyboardInterrupt` that has just come up is the user's: not if signals are noted by a `Stop` that none
    has reached, so that code of a plugin must have raised it by itself."""
    return not _active or any(stop() for stop in _active)


@contextmanager
def held() -> Iterator[None]:
    """Where no signal breaks in: it is noted, and counts at the next look at the `Stop`; a second one breaks in."""
    breakable = [stop for stop in _active if stop._breakable]
    for stop in breakable:
        stop._breakable = False
    try:
        yield
    finally:
        for stop in breakable:
            stop._breakable = True


def note_interrupt() -> None:
    """Count as asked to stop: somebody else's handler has taken the signal."""
    for stop in _active:
        stop._asked = True


def _on_terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def raise_on_terminate() -> None:
    """Let SIGTERM end the program as cleanly as Ctrl-C does."""
    signal.signal(signal.SIGTERM, _on_terminate)


_blocked: list[set[int | signal.Signals]] = []
"""The signals that were blocked before each fork that is under way."""


def _before_fork() -> None:
    """Hold signals back: one that reaches the child before it has its own handlers would be lost."""
    _blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)))


def _after_fork_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _blocked.pop())


def _after_fork_in_child() -> None:
    """A process that a plugin forks ends by signals as any other does: it is not ours to finish anything."""
    defaults: list[tuple[signal.Signals, Any]] = [
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ]
    for number, default in defaults:
        handler = signal.getsignal(number)
        if handler is _on_terminate or isinstance(getattr(handler, "__self__", None), Stop):
            with contextlib.suppress(ValueError):  # not in the main thread of this child
                signal.signal(number, default)
    _active.clear()
    signal.pthread_sigmask(signal.SIG_SETMASK, _blocked.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
