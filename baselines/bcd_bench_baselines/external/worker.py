"""A process that answers JSON lines: asked one at a time, with a limit on its time, and ended with all its children."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from bcd_bench.types.errors import UsageError, printable

__all__ = ["Worker", "WorkerFailed"]

LONGEST_LINE = 1 << 20
"""Bytes of an answer; a longer line is no answer."""
TAIL_LINES = 3
TAIL_CHARS = 300
"""How much of what a worker said at the end stands in the reason of a failure."""
FOLDERS = re.compile(r"(?<![\w:/.])/(?:[^\s/:\"']+/)+")
"""The folders of an absolute path: reasons enter records, which name no folder of this machine."""
GRACE = 3.0
"""Seconds that a worker has to end after the end of its input, and again after SIGTERM, before it is killed."""


class WorkerFailed(Exception):
    """The worker gave no answer: it died, hung, or said something else. The message ends with the last that it said."""


class Worker:
    """Starts `command` (no shell) in a process group of its own and talks to it over stdin and stdout.

    Requests and answers are JSON objects, one a line. Lines on stdout that are no JSON object are taken for chatter of
    some library. Raises `UsageError` where the command cannot be started.
    """

    def __init__(self, command: Sequence[str], *, cwd: Path | None = None) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # an answer that waits in a buffer is a hang
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                cwd=cwd,
                env=environment,
                start_new_session=True,
            )
        except OSError as error:
            raise UsageError(f"the command {command[0]!r} cannot be started: {error.strerror or error}") from None
        self._answers: queue.Queue[bytes | None] = queue.Queue()
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._chatter: deque[str] = deque(maxlen=TAIL_LINES)
        self._threads = [  # they hold nothing of this object, so that it can be collected
            threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True),
            threading.Thread(target=_overhear, args=(self._process.stderr, self._tail), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._finalize = weakref.finalize(self, _end, self._process, self._threads)

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and wait at most `timeout` seconds for the answer.

        The answer repeats the request's `pair`. Raises `WorkerFailed`, after which the worker has been ended.
        """
        self._tail.clear()
        self._chatter.clear()
        try:
            return self._ask(request, timeout)
        except WorkerFailed as failure:
            self.close(at_once=True)
            said = " | ".join(self._tail or self._chatter)
            raise WorkerFailed(f"{failure}: {said[-TAIL_CHARS:]}" if said else str(failure)) from None
        except BaseException:
            self.close(at_once=True)
            raise

    def close(self, *, at_once: bool = False) -> None:
        """End the worker and every process it started, after the end of its input unless `at_once`."""
        if not self._finalize.alive:
            return
        if not at_once:
            with contextlib.suppress(OSError):
                self._stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE)
        self._finalize()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self._process.stdin is not None
        return self._process.stdin

    def _ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        deadline = time.monotonic() + timeout
        try:
            self._stdin.write(json.dumps(request, ensure_ascii=False).encode() + b"\n")
            self._stdin.flush()
        except (OSError, ValueError):  # it is gone; how it ended is told below
            raise WorkerFailed(self._ending()) from None
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise WorkerFailed(f"the worker gave no answer in {timeout:g} s") from None
            if line is None:
                raise WorkerFailed(self._ending())
            if len(line) >= LONGEST_LINE:
                raise WorkerFailed(f"the worker wrote a line of more than {LONGEST_LINE} bytes")
            try:
                answer = json.loads(line)
            except ValueError:
                answer = None
            if not isinstance(answer, dict):
                _note(self._chatter, line)
                continue
            if answer.get("pair") != request["pair"]:
                shown = printable(line.decode(errors="replace"))[:TAIL_CHARS]
                raise WorkerFailed(f"the worker answered for another pair: {shown}")
            return answer

    def _ending(self) -> str:
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "the worker closed its output"
        self._threads[1].join(GRACE)  # the last words; children may hold the pipe open
        if code < 0:
            return f"the worker was killed by {signal.Signals(-code).name}"
        return f"the worker ended with exit code {code}"


def _note(tail: deque[str], line: bytes) -> None:
    text = printable(FOLDERS.sub("", line[:4096].decode(errors="replace")))
    if text:
        tail.append(text)


def _listen(stream: IO[bytes], answers: queue.Queue[bytes | None]) -> None:
    with stream:
        for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
            answers.put(line)
    answers.put(None)


def _overhear(stream: IO[bytes], tail: deque[str]) -> None:
    with stream:
        for line in iter(lambda: stream.readline(LONGEST_LINE), b""):
            _note(tail, line)


def _end(process: subprocess.Popen[bytes], threads: Sequence[threading.Thread]) -> None:
    """End the process group, politely and then for good; nothing of it is left, and nothing is left open."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with contextlib.suppress(OSError):  # whoever is left, children of an ended worker too
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # what was not sent any more
            process.stdin.close()
    for thread in threads:
        thread.join(GRACE)
