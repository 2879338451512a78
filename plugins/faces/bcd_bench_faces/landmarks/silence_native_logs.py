"""Keeps what native libraries always print while they load off the terminal, and nothing else."""

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
"""Lines below the level of an error, which MediaPipe's logger prints whatever the environment says."""


@contextmanager
def without_chatter() -> Iterator[None]:
    """Hold back what is written to file descriptor 2 meanwhile, and then let through all but the chatter.

    The library writes past `sys.stderr`, so only the descriptor can be turned. Keep the block short: other threads'
    lines wait for its end too.
    """
    sys.stderr.flush()
    try:
        terminal = os.dup(2)
    except OSError:  # a process without stderr has nothing to keep clean
        yield
        return
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            held.seek(0)
            for line in held:
                if not CHATTER.match(line):
                    os.write(2, line)
