"""The loop of a training: steps, progress, stop signals, limits, log lines, checkpoints, and the end."""

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
    """Something to do after every `steps` steps and after the last one; `call` gets the number of steps done."""

    steps: int
    call: Callable[[int], Values | None]

    def is_due(self, done: int, last: int) -> bool:
        return done % self.steps == 0 or done == last


class TrainingLoop:
    """Takes the steps of one run (or of one stage of it), and remembers how far it has come.

    `step` counts the finished steps, `seconds` the time they took. Both and the window of the log are in `state_dict`,
    which belongs into the checkpoint.
    """

    def __init__(
        self, name: str, steps: int, log: TrainingLog, *, log_every: int, save_every: int,
        steps_before: int = 0, processes: Processes | None = None,
    ) -> None:  # fmt: skip
        """`name` is shown with the progress, `steps` is the length of the run, `steps_before` what earlier stages of
        the same run took. A line of the log is due every `log_every` steps, a checkpoint every `save_every`."""
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
        """Continue where `state` was saved; later lines of the log are dropped. Other keys of `state` are left alone,
        so a checkpoint that has these among others can be given whole."""
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
        """Train to the last step or to the limits; returns whether the run has come to its own end.

        `train_step` takes the number of a step, from 0, and returns its losses by name; `save` writes a checkpoint. At
        least one step is taken. `validate` is called before the line of its step is written, which gets its values;
        `draw` (of samples) after the checkpoint. `derive` adds values to a line that follow from its others, and
        `describe` says a line in words for the terminal.

        Ctrl-C and SIGTERM are noted, and end the loop after the step; a second one breaks it off. Everything is saved
        if the last step, a limit or a signal ended the loop. Raises `Interrupted` if it was a signal. What the
        functions raise passes through, and the steps since the last checkpoint are lost.
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
        """Long work inside `train_step` that a signal may break off at once: the loop then ends with what was trained
        before this step, all of it saved. Nothing may have been updated yet in the step. For one process."""
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
    """A signal broke into `TrainingLoop.interruptible`."""


def _in_words(line: Values) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in line.items())


def report_unfinished(done: int, last: int, *, stopped: bool, limit: str, aloud: bool = True) -> None:
    """Say how a saved training that ended before its last step goes on; nothing if it reached that.

    `limit` names what ended it if nobody stopped it, and is printed only `aloud`. Raises `Interrupted` if somebody did.
    """
    if done >= last:
        return
    message = f"{'stopped' if stopped else limit} at step {done} of {last}; everything is saved"
    if stopped:
        raise Interrupted(message, hint="run the same command with --resume")
    if aloud:
        print(message + "; the same command with --resume continues")
