"""Progress on stderr: a bar with rate and remaining time on a terminal, plain lines elsewhere, or no output."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    import rich.progress

__all__ = ["BarProgress", "NoProgress", "PlainProgress", "Progress", "Task", "format_seconds", "open_progress"]


class Task(Protocol):
    """One counted task, created by `Progress.task`."""

    def advance(self, n: int = 1) -> None:
        """Count `n` more units as done."""

    def message(self, text: str) -> None:
        """Print one line above the bar, such as the reason of a failed pair."""


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


def describe(done: int, total: int, started_with: int, elapsed: float, unit: str) -> str:
    """`32/64 pairs, 8.1 pairs/s, 4s left`: the rate only counts units done since the start."""
    text = f"{done}/{total} {unit}"
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

    def line(self) -> None:
        elapsed = time.monotonic() - self.started
        self.message(f"{self.name}: {describe(self.done, self.total, self.started_with, elapsed, self.unit)}")
        self.printed, self.last = time.monotonic(), self.done

    def advance(self, n: int = 1) -> None:
        self.done += n
        if time.monotonic() - self.printed >= self.interval:
            self.line()

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
        self.started_with, self.started = done, time.monotonic()
        self.id = bar.add_task(name, total=total, completed=done, said=describe(done, total, done, 0.0, unit))

    def advance(self, n: int = 1) -> None:
        self.done += n
        elapsed = time.monotonic() - self.started
        status = describe(self.done, self.total, self.started_with, elapsed, self.unit)
        self.bar.update(self.id, completed=self.done, said=status)

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


def open_progress(stream: TextIO | None = None) -> Progress:
    """Progress suitable for `stream` (stderr): a bar on a terminal, plain lines elsewhere."""
    target = sys.stderr if stream is None else stream
    return BarProgress(target) if target.isatty() else PlainProgress(target)
