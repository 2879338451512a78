"""The training loop: steps, progress, stop signals, limits, log lines, checkpoints, and termination."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from bcd_bench.training.limits import Limits
from bcd_bench.training.log import TrainingLog
from bcd_bench.training.processes import OneProcess, Processes
from bcd_bench.types.errors import Interrupted
from bcd_bench.util.interrupts import Stop, stopping
from bcd_bench.util.progress import NoProgress, open_progress

__all__ = ["Every", "TrainingLoop", "report_unfinished"]

Values = Mapping[str, float]


@dataclass(frozen=True)
class Every:
    """A callback for every `steps` steps and the last one; `call` receives the number of finished steps."""

    steps: int
    call: Callable[[int], Values | None]

    def is_due(self, done: int, last: int) -> bool:
        return done % self.steps == 0 or done == last


class TrainingLoop:
    """Runs the steps of one run (or of one of its stages) and tracks its progress.

    `step` counts the finished steps, `seconds` their duration. Both, and the window of the log, are in `state_dict`,
    which belongs in the checkpoint.
    """

    def __init__(
        self, name: str, steps: int, log: TrainingLog, *, log_every: int, save_every: int,
        steps_before: int = 0, processes: Processes | None = None,
    ) -> None:  # fmt: skip
        """`name` is displayed with the progress, `steps` is the length of the run, `steps_before` the number of steps
        of earlier stages. A log line is written every `log_every` steps, a checkpoint every `save_every` steps."""
        self.name, self.steps, self.log = name, steps, log
        self.steps_before = steps_before
        self.processes: Processes = OneProcess() if processes is None else processes
        self.step, self.seconds = 0, 0.0
        self._log_every, self._save_every = log_every, save_every
        self._stop: Stop | None = None

    def state_dict(self) -> dict[str, Any]:
        """{"step", "seconds", "window"}: plain numbers and lists."""
        return {"step": self.step, "seconds": self.seconds, "window": self.log.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state` was saved; later lines of the log are dropped. Other keys of `state` are ignored,
        so a checkpoint that includes these keys can be passed as a whole."""
        self.step, self.seconds = state["step"], state["seconds"]
        self.log.resume(state["window"], self.step)

    def run(
        self,
        limits: Limits,
        train_step: Callable[[int], Values],
        save: Callable[[], None],
        *,
        validate: Every | None = None,
        draw: Every | None = None,
        derive: Callable[[Values], Values] | None = None,
        describe: Callable[[Values], str] | None = None,
    ) -> bool:
        """Train to the last step or to the limits; returns whether the run is complete.

        `train_step` receives the number of a step, from 0, and returns its losses by name; `save` writes a checkpoint.
        At least one step is taken. `validate` is called before the log line of its step is written, which includes its
        values; `draw` (of samples) after the checkpoint. `derive` computes additional values of a line from the others,
        and `describe` formats a line for the terminal.

        Ctrl-C and SIGTERM end the loop after the current step; a second signal aborts it immediately. Everything is
        saved if the last step, a limit or a signal ended the loop. Raises `Interrupted` after a signal. Exceptions of
        the functions propagate, and the steps since the last checkpoint are lost.
        """
        last = limits.last_step(self.steps, self.steps_before)
        progress = open_progress() if self.processes.is_main else NoProgress()
        try:
            with (
                stopping(insist=True) as stop,
                progress.task(self.name, total=last, done=self.step, unit="steps") as task,
            ):
                self._stop = stop
                saved = -1
                while self.step < last:
                    began = time.monotonic()
                    try:
                        values = train_step(self.step)
                    except _StoppedBeforeUpdate:
                        break
                    self.seconds += time.monotonic() - began
                    self.step += 1
                    self.log.append(self.step, values)
                    task.advance()
                    measured = validate.call(self.step) if validate and validate.is_due(self.step, last) else None
                    if measured or self.step % self._log_every == 0 or self.step == last:
                        line = self._write_line(measured or {}, derive)
                        task.message(f"step {self.step}: {(describe or _in_words)(line)}")
                    if self.step % self._save_every == 0:
                        save()
                        saved = self.step
                    if draw and draw.is_due(self.step, last):
                        draw.call(self.step)
                    if self.processes.any(stop() or limits.time_is_over()):
                        break
            if saved != self.step:
                save()
            self.processes.wait()
        finally:
            self._stop = None
            self.log.close()
        stopped = self.processes.any(stop())
        report_unfinished(self.step, last, stopped=stopped, limit=limits.reason, aloud=self.processes.is_main)
        return self.step >= self.steps

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Context for long work inside `train_step` that a signal may interrupt immediately: the loop then ends with
        the state before this step, which is saved completely. The step must not have updated anything yet. For one
        process."""
        if self._stop is None:
            yield
            return
        try:
            with self._stop.into():
                yield
        except KeyboardInterrupt:
            raise _StoppedBeforeUpdate from None

    def _write_line(self, measured: Values, derive: Callable[[Values], Values] | None) -> dict[str, float]:
        line = self.log.take_means() | self.log.rounded(measured)
        if derive is not None:
            line |= derive(line)
        self.log.write(self.step, line)
        return line


class _StoppedBeforeUpdate(Exception):
    """A signal interrupted `TrainingLoop.interruptible`."""


def _in_words(line: Values) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in line.items())


def report_unfinished(done: int, last: int, *, stopped: bool, limit: str, aloud: bool = True) -> None:
    """Print how to continue a saved training run that ended before its last step; prints nothing if it is complete.

    `limit` describes the limit that ended it, and is printed only if `aloud`. Raises `Interrupted` if `stopped`.
    """
    if done >= last:
        return
    message = f"{'stopped' if stopped else limit} at step {done} of {last}; everything is saved"
    if stopped:
        raise Interrupted(message, hint="rerun the same command with --resume")
    if aloud:
        print(message + "; rerun the same command with --resume to continue")
