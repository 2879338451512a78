"""The scheduling policy of this thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["policy_kept"]


@contextmanager
def policy_kept() -> Iterator[None]:
    """Restore the scheduling policy of the calling thread.

    SVT-AV1 gives the thread that opens it real-time priority if it may (as root), and never takes it back: everything
    else that the process computes would then stop all other processes.
    """
    if not hasattr(os, "sched_getscheduler"):  # not Linux
        yield
        return
    before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != before[0]:
            os.sched_setscheduler(0, *before)
