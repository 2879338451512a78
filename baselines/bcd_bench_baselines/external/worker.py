"""A process that answers requests as JSON lines, one at a time, with a timeout; stopped with all its child
processes."""

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
"""Maximum bytes of an answer; a longer line is an error."""
TAIL_LINES = 3
TAIL_CHARS = 300
"""Amount of a worker's last output that is quoted in the reason of a failure."""
FOLDERS = re.compile(r"(?<![\w:/.])/(?:[^\s/:\"']+/)+")
"""The folders of an absolute path: reasons are stored in records, which must not contain local folders."""
GRACE = 3.0
"""Seconds to wait for a worker after closing its input, and again after SIGTERM, before it is killed."""


class WorkerFailed(Exception):
    """The worker did not answer: it died, hung, or wrote something else. The message ends with its last output."""


class Worker:
    """Starts `command` (no shell) in a separate process group and communicates over stdin and stdout.

    Requests and answers are JSON objects, one per line. Lines on stdout that are not JSON objects are treated as log
    output of some library. Raises `UsageError` if the command cannot be started.
    """

    def __init__(self, command: Sequence[str], *, cwd: Path | None = None) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}  # a buffered answer would look like a hang
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
        self._threads = [  # they hold no reference to this object, so that it can be collected
            threading.Thread(target=_listen, args=(self._process.stdout, self._answers), daemon=True),
            threading.Thread(target=_overhear, args=(self._process.stderr, self._tail), daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        self._finalize = weakref.finalize(self, _end, self._process, self._threads)

    def ask(self, request: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        """Send a request and wait at most `timeout` seconds for the answer.

        The answer repeats the request's `pair`. Raises `WorkerFailed`, after which the worker is stopped.
        """
        self._tail.clear()
        self._chatter.clear()
        try:
            return self._ask(request, timeout)
        except WorkerFailed as failure:
            self.close(at_once=True)
            last_output = " | ".join(self._tail or self._chatter)
            raise WorkerFailed(f"{failure}: {last_output[-TAIL_CHARS:]}" if last_output else str(failure)) from None
        except BaseException:
            self.close(at_once=True)
            raise

    def close(self, *, at_once: bool = False) -> None:
        """Stop the worker and every process it started, after closing its input unless `at_once`."""
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
        except (OSError, ValueError):  # it has ended; the reason is reported below
            raise WorkerFailed(self._ending()) from None
        while True:
            try:
                line = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise WorkerFailed(f"the worker did not answer within {timeout:g} s") from None
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
                quoted = printable(line.decode(errors="replace"))[:TAIL_CHARS]
                raise WorkerFailed(f"the worker answered for another pair: {quoted}")
            return answer

    def _ending(self) -> str:
        try:
            code = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "the worker closed its output"
        self._threads[1].join(GRACE)  # its last output; child processes may hold the pipe open
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
    """Stop the process group, first by SIGTERM, then by SIGKILL; leaves no processes and no open files."""
    with contextlib.suppress(OSError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)
    with contextlib.suppress(OSError):  # remaining processes, including children of an ended worker
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):  # unsent requests
            process.stdin.close()
    for thread in threads:
        thread.join(GRACE)
