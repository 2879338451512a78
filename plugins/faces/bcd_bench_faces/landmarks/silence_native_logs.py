"""Suppress the messages that native libraries always print while they load."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_chatter"]

CHATTER = re.compile(
    rb"[WI]\d{4} \d\d:|WARNING: Logging before InitGoogle|WARNING: All log messages before|INFO: Created T"
)
"""Lines below error level, which MediaPipe's logger prints regardless of the environment."""


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back output to file descriptor 2, then write everything except the suppressed messages.

    The library does not use `sys.stderr`, so the descriptor itself must be redirected. Keep the block short: lines from
    other threads are delayed as well.
    """
    sys.stderr.flush()
    try:
        terminal = os.dup(2)
    except OSError:  # a process without stderr needs no suppression
        yield
        return
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            captured.seek(0)
            for line in captured:
                if not CHATTER.match(line):
                    os.write(2, line)
