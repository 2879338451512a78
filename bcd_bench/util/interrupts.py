"""Ctrl-C and SIGTERM as stop requests: checked between steps, or interrupting immediately when nothing can be lost."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

__all__ = [
    "Stop",
    "held",
    "ignore_interrupts",
    "note_interrupt",
    "raise_on_terminate",
    "stopping",
    "user_interrupted",
]

_active: list[Stop] = []
"""The open blocks of `stopping`, innermost last."""
_ignored = False
"""Whether this process does not receive Ctrl-C."""


class Stop:
    """A stop request, created by `stopping`; call it to check: `while not stop(): step()`."""

    def __init__(self, *, insist: bool = False) -> None:
        self._insist = insist
        self._asked = False
        self._breakable = False

    def __call__(self) -> bool:
        return self._asked

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a stop was requested, even if other code has swallowed it."""
        if self._asked:
            raise KeyboardInterrupt

    @contextmanager
    def into(self) -> Iterator[None]:
        """Context in which a signal raises `KeyboardInterrupt` immediately; its work is repeated after a stop.

        Only the first signal raises, so that a second one does not interrupt cleanup.
        """
        self._breakable = True  # set before the check, so that a signal in between is not missed
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
    """Turn Ctrl-C and SIGTERM into a `Stop` inside the block.

    Inside `Stop.into`, a signal raises immediately; elsewhere it is only recorded. With `insist`, a second signal
    raises `KeyboardInterrupt` anywhere, for loops that rarely check the `Stop`. Outside the main thread, which receives
    no signals, a stop is never requested.
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
    """Whether a `KeyboardInterrupt` that was just raised came from the user: not if Ctrl-C is ignored, or if a `Stop`
    handles signals and has not received any, because plugin code must then have raised it itself."""
    return not _ignored and (not _active or any(stop() for stop in _active))


def ignore_interrupts() -> None:
    """Ignore Ctrl-C in this process for good: a worker, whose main process decides what follows."""
    global _ignored
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _ignored = True


@contextmanager
def held() -> Iterator[None]:
    """Context without immediate interruption: a signal is recorded for the next check of the `Stop`; a second one
    raises."""
    breakable = [stop for stop in _active if stop._breakable]
    for stop in breakable:
        stop._breakable = False
    try:
        yield
    finally:
        for stop in breakable:
            stop._breakable = True


def note_interrupt() -> None:
    """Record a stop request: another handler has received the signal."""
    for stop in _active:
        stop._asked = True


def _on_terminate(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def raise_on_terminate() -> None:
    """Make SIGTERM end the program as cleanly as Ctrl-C."""
    signal.signal(signal.SIGTERM, _on_terminate)


_blocked: list[set[int | signal.Signals]] = []
"""The blocked signals before each fork in progress."""


def _before_fork() -> None:
    """Block signals: a signal that reaches the child before its handlers are installed would be lost."""
    _blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM)))


def _after_fork_in_parent() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _blocked.pop())


def _after_fork_in_child() -> None:
    """Restore default signal handling in a process forked by a plugin: it has no work of ours to finish."""
    defaults: list[tuple[signal.Signals, Any]] = [
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGTERM, signal.SIG_DFL),
    ]
    for number, default in defaults:
        handler = signal.getsignal(number)
        if handler is _on_terminate or isinstance(getattr(handler, "__self__", None), Stop):
            with contextlib.suppress(ValueError):  # not in the main thread of the child
                signal.signal(number, default)
    _active.clear()
    signal.pthread_sigmask(signal.SIG_SETMASK, _blocked.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
