"""Progress on stderr: a bar with rate and remaining time on a terminal, plain lines elsewhere, or no output."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    import rich.progress

__all__ = [
    "BarProgress",
    "LoggedProgress",
    "NoProgress",
    "PlainProgress",
    "Progress",
    "Task",
    "format_seconds",
    "note_event",
    "note_failures",
    "open_progress",
]


class Task(Protocol):
    """One counted task, created by `Progress.task`."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""

    def message(self, text: str) -> None:
        """Print one line above the bar, such as the reason of a failed pair."""


def note_event(task: Task, kind: str, **details: Any) -> None:
    """Write an event to the log of `--log-json`, if the task has one; nothing is printed."""
    event = getattr(task, "event", None)
    if event is not None:
        event(kind, **details)


def note_failures(task: Task, n: int) -> None:
    """Count `n` of the units done as failed, if the task counts failures."""
    fail = getattr(task, "fail", None)
    if fail is not None and n:
        fail(n)


class Progress(Protocol):
    """Progress reporting: `with progress.task("generate", total=64, done=12) as task: task.advance(4)`."""

    @contextmanager
    def task(self, name: str, *, total: int, done: int = 0, unit: str = "pairs") -> Iterator[Task]:
        """Open a task of `total` units, of which `done` were finished earlier (they are excluded from the rate)."""
        yield NoTask()


def format_seconds(seconds: float) -> str:
    """Format seconds as `42s`, `3m07s` or `2h05m`."""
    total_seconds = max(0, round(seconds))
    if total_seconds < 60:
        return f"{total_seconds}s"
    minutes, remainder = divmod(total_seconds, 60)
    if minutes < 60:
        return f"{minutes}m{remainder:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m"


def describe(done: int, total: int, started_with: int, elapsed: float, unit: str, failed: int = 0) -> str:
    """`32/64 pairs, 2 failed, 8.1 pairs/s, 4s left`: the rate only counts units done since the start."""
    text = f"{done}/{total} {unit}" + (f", {failed} failed" if failed else "")
    worked = done - started_with
    if worked <= 0 or elapsed <= 0:
        return text
    rate = worked / elapsed
    speed = f"{rate:.1f} {unit}/s" if rate >= 1 else f"{1 / rate:.1f} s/{unit.removesuffix('s')}"
    suffix = f", {format_seconds((total - done) / rate)} left" if done < total else f", {format_seconds(elapsed)}"
    return f"{text}, {speed}{suffix}"


class NoTask:
    """A task that reports nothing."""

    def advance(self, n: int = 1) -> None:
        del n

    def message(self, text: str) -> None:
        del text


class NoProgress:
    """No output; for library use and tests."""

    @contextmanager
    def task(self, name: str, *, total: int, done: int = 0, unit: str = "pairs") -> Iterator[Task]:
        del name, total, done, unit
        yield NoTask()


class _PlainTask:
    def __init__(self, stream: TextIO, name: str, total: int, done: int, unit: str, interval: float) -> None:
        self.stream, self.name, self.total, self.done, self.unit = stream, name, total, done, unit
        self.started_with, self.started = done, time.monotonic()
        self.interval, self.printed, self.last = interval, self.started, -1
        self.failed = 0

    def line(self) -> None:
        elapsed = time.monotonic() - self.started
        status = describe(self.done, self.total, self.started_with, elapsed, self.unit, self.failed)
        self.message(f"{self.name}: {status}")
        self.printed, self.last = time.monotonic(), self.done

    def advance(self, n: int = 1) -> None:
        self.done += n
        if time.monotonic() - self.printed >= self.interval:
            self.line()

    def fail(self, n: int) -> None:
        self.failed += n

    def message(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


class PlainProgress:
    """One line at the start, one every `interval` seconds, one at the end: for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, interval: float = 10.0) -> None:
        self.stream = sys.stderr if stream is None else stream
        self.interval = interval

    @contextmanager
    def task(self, name: str, *, total: int, done: int = 0, unit: str = "pairs") -> Iterator[Task]:
        task = _PlainTask(self.stream, name, total, done, unit, self.interval)
        task.line()
        try:
            yield task
        finally:
            if task.done != task.last:
                task.line()


class _BarTask:
    def __init__(self, bar: rich.progress.Progress, name: str, total: int, done: int, unit: str) -> None:
        self.bar, self.done, self.total, self.unit = bar, done, total, unit
        self.started_with, self.started, self.failed = done, time.monotonic(), 0
        self.id = bar.add_task(name, total=total, completed=done, said=describe(done, total, done, 0.0, unit))

    def advance(self, n: int = 1) -> None:
        self.done += n
        elapsed = time.monotonic() - self.started
        status = describe(self.done, self.total, self.started_with, elapsed, self.unit, self.failed)
        self.bar.update(self.id, completed=self.done, said=status)

    def fail(self, n: int) -> None:
        self.failed += n

    def message(self, text: str) -> None:
        self.bar.console.print(text, markup=False, highlight=False)


class BarProgress:
    """A rich progress bar with count, rate and remaining time; needs a terminal."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stderr if stream is None else stream

    @contextmanager
    def task(self, name: str, *, total: int, done: int = 0, unit: str = "pairs") -> Iterator[Task]:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"))
        with Bar(*columns, console=Console(file=self.stream)) as bar:
            yield _BarTask(bar, name, total, done, unit)


class _LoggedTask:
    def __init__(self, task: Task, log: LoggedProgress, name: str, done: int) -> None:
        self.task, self.log, self.name, self.done, self.failed = task, log, name, done, 0

    def advance(self, n: int = 1) -> None:
        self.done += n
        self.task.advance(n)
        self.log.write("progress", task=self.name, done=self.done, failed=self.failed)

    def fail(self, n: int) -> None:
        self.failed += n
        note_failures(self.task, n)

    def message(self, text: str) -> None:
        self.task.message(text)
        self.log.write("message", task=self.name, text=text)

    def event(self, kind: str, **details: Any) -> None:
        self.log.write(kind, task=self.name, **details)


class LoggedProgress:
    """Shows progress as `shown` does, and appends every event to a file as one JSON line (`--log-json`).

    Every line has `time` (seconds since 1970) and `event`: "task_started" (`task`, `total`, `done`, `unit`), "progress"
    (`task`, `done`, `failed` in this session), "message" (`task`, `text`), "task_ended" (`task`, `done`, `seconds`),
    and what workers report. A log that can no longer be written ends with one warning; the work continues. Raises
    `UsageError` if the file cannot be opened.
    """

    def __init__(self, path: Path, shown: Progress) -> None:
        self._path, self._shown = path.absolute(), shown  # plugins can change the working directory
        self._lock = threading.Lock()  # the thread that writes files reports progress too
        self._writable = True
        try:
            path.open("a", encoding="utf-8").close()
        except OSError as error:
            raise UsageError(f"--log-json {path}: {error.strerror}", hint="--log-json FILE") from None

    @contextmanager
    def task(self, name: str, *, total: int, done: int = 0, unit: str = "pairs") -> Iterator[Task]:
        self.write("task_started", task=name, total=total, done=done, unit=unit)
        started = time.monotonic()
        with self._shown.task(name, total=total, done=done, unit=unit) as shown:
            task = _LoggedTask(shown, self, name, done)
            try:
                yield task
            finally:
                self.write("task_ended", task=name, done=task.done, seconds=round(time.monotonic() - started, 3))

    def write(self, event: str, **details: Any) -> None:
        """Append one event."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **details}, ensure_ascii=False)
        with self._lock:
            if not self._writable:
                return
            try:
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.write(line + "\n")
            except OSError as error:
                self._writable = False
                print(f"warning: --log-json {self._path}: {error.strerror}; logging ends", file=sys.stderr)


def open_progress(stream: TextIO | None = None, *, log: Path | None = None) -> Progress:
    """Progress suitable for `stream` (stderr): a bar on a terminal, plain lines elsewhere; also in the file `log`."""
    target = sys.stderr if stream is None else stream
    shown: Progress = BarProgress(target) if target.isatty() else PlainProgress(target)
    return shown if log is None else LoggedProgress(log, shown)
