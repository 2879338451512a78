"""Jobs of Slurm, submitted with submitit: their parameters, their state, and how they end and continue.

Slurm warns a job before its time limit or a preemption (SIGUSR2). The task then finishes what it is writing, asks Slurm
to queue the job again, and continues later from what is on disk.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from bcd_bench.io.atomic import write_json_atomic
from bcd_bench.types.errors import BcdBenchError, MissingDependencyError, UsageError, printable

__all__ = ["Ending", "Submitted", "follow", "minutes", "noted", "open_executor", "submit"]

JOBS = "jobs.json"
"""The number of the last job, so that another command can follow it."""
POLL = 1.0
"""Seconds between looks at the disk; Slurm is asked every `ASK` seconds."""
ASK = 5.0
WARNINGS = (signal.SIGUSR1, signal.SIGUSR2)
"""Signals that ask a task to stop and to be queued again."""


def _submitit() -> Any:
    try:
        import submitit
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise MissingDependencyError(
            "executor 'slurm' needs the package 'submitit'", hint="pip install 'bcd-bench-executors[slurm]'"
        ) from None
    return submitit


def minutes(text: str) -> int:
    """A time of Slurm in whole minutes, rounded up: "90", "90:30" (minutes:seconds), "1:30:00" or "2-12:00:00".

    Raises `UsageError` for anything else, and for less than a minute.
    """
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", text.strip())
    if match is None:
        raise UsageError(f"--slurm-time {text}: not a time of Slurm", hint="--slurm-time 90, 1:30:00 or 2-12:00:00")
    days, *parts = (None if part is None else int(part) for part in match.groups())
    values = [part for part in parts if part is not None]
    if days is not None:  # days-hours[:minutes[:seconds]]
        hours, mins, seconds = (*values, 0, 0)[:3]
    elif len(values) == 3:
        hours, mins, seconds = values
    else:  # minutes[:seconds]
        hours, (mins, seconds) = 0, (*values, 0)[:2]
    total = ((days or 0) * 24 + hours) * 60 + mins + (seconds > 0)
    if total < 1:
        raise UsageError(f"--slurm-time {text}: must be at least a minute", hint="--slurm-time 60")
    return total


def open_executor(settings: Mapping[str, Any], folder: Path, name: str, *, nodes: int = 1, tasks: int = 1) -> Any:
    """A submitit executor with these settings, whose files are in `folder`.

    Raises `UsageError` if Slurm is not there or a setting is not valid, `MissingDependencyError` without submitit.
    """
    submitit = _submitit()
    limit = minutes(str(settings["time"]))
    for key in ("cpus", "nodes", "tasks", "processes", "parallel"):
        if settings[key] < 1:
            raise UsageError(f"--slurm-{key} {settings[key]}: must be at least 1")
    for key in ("gpus", "resubmits", "warn"):
        if settings[key] < 0:
            raise UsageError(f"--slurm-{key} {settings[key]}: must not be negative")
    if settings["cluster"] == "local":
        executor = submitit.LocalExecutor(folder, max_num_timeout=settings["resubmits"])
        executor.update_parameters(timeout_min=limit, tasks_per_node=tasks, signal_delay_s=settings["warn"])
        return executor
    if settings["cluster"] != "slurm":
        raise UsageError(f"--slurm-cluster {settings['cluster']}: must be slurm or local")
    if shutil.which("sbatch") is None or shutil.which("srun") is None:
        raise UsageError(
            "executor 'slurm' finds no sbatch on this machine", hint="run the command on a login node of the cluster"
        )
    more = {str(key): value for key, value in settings["sbatch"].items()}
    more |= {key: value for key, value in (("mem", settings["memory"]),) if value}
    executor = submitit.SlurmExecutor(folder, max_num_timeout=settings["resubmits"])
    executor.update_parameters(
        **{key: settings[key] for key in ("partition", "account", "qos") if settings[key]},
        **({"gpus_per_node": settings["gpus"] * tasks} if settings["gpus"] else {}),
        **({"setup": [settings["setup"]]} if settings["setup"] else {}),
        job_name=name,
        time=limit,
        nodes=nodes,
        ntasks_per_node=tasks,
        cpus_per_task=settings["cpus"],
        signal_delay_s=settings["warn"],
        array_parallelism=settings["parallel"],
        srun_args=[f"--cpus-per-task={settings['cpus']}"],  # not inherited from sbatch since Slurm 22.05
        additional_parameters={"requeue": True, **more},
    )
    return executor


def submit(call: Callable[[], Any]) -> Any:
    """The jobs that `call` submits. Raises `UsageError` with Slurm's reason if it refuses them."""
    try:
        return call()
    except BcdBenchError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if "error" in line.lower()]
        reason = next((line for line in lines if "sbatch" in line), str(error).strip().partition("\n")[0])
        raise UsageError(f"Slurm refused the job: {printable(reason)}", hint="sinfo; sacctmgr show assoc") from error


@dataclass(frozen=True)
class Submitted:
    """A submitted job: its number, and the jobs of submitit (empty if another command has submitted it)."""

    number: str
    jobs: tuple[Any, ...] = ()
    local: bool = False

    @property
    def cancel(self) -> str:
        """The command that cancels it."""
        numbers = " ".join(str(job.job_id) for job in self.jobs)
        return f"kill {numbers}" if self.local else f"scancel {self.number}"

    @classmethod
    def of(cls, jobs: tuple[Any, ...], folder: Path, *, local: bool) -> Submitted:
        """The job that submitit returned, noted in `folder` for other commands."""
        number = str(jobs[0].job_id).partition("_")[0]
        if not local:
            write_json_atomic(folder / JOBS, {"job": number})
        return cls(number, jobs, local)

    @classmethod
    def earlier(cls, folder: Path) -> Submitted | None:
        """The job that an earlier command noted in `folder`, if Slurm still has it."""
        try:
            number = str(json.loads((folder / JOBS).read_bytes())["job"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        found = cls(number)
        return found if number.isdecimal() and shutil.which("squeue") and found.states() else None

    def states(self) -> Counter[str]:
        """State, such as "RUNNING" or "PENDING (Resources)" -> number of its tasks; empty once the job has ended.

        Raises `OSError` if Slurm does not answer.
        """
        if self.local:
            return Counter("RUNNING" for job in self.jobs if not job.done())
        command = ["squeue", "--noheader", "--array", f"--jobs={self.number}", "--format=%T|%r"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        except subprocess.TimeoutExpired as error:
            raise OSError("squeue does not answer") from error
        if answer.returncode and "invalid job id" not in answer.stderr.lower():
            raise OSError(printable(answer.stderr) or "squeue failed")
        found: Counter[str] = Counter()
        for line in answer.stdout.splitlines():
            state, _, reason = line.strip().partition("|")
            found[f"{state} ({reason})" if state == "PENDING" and reason not in ("", "None") else state] += 1
        return found


def follow(job: Submitted, each: Callable[[], Iterator[str]] | None = None) -> Iterator[str | None]:
    """Yield None about every second until the job has ended, and a line whenever the states of its tasks change or
    `each` has lines to print."""
    shown, asked, silent = "", 0.0, 0
    while True:
        if each is not None:
            yield from each()
        if time.monotonic() - asked >= ASK or job.local:
            try:
                states = job.states()
            except OSError as error:
                silent += 1
                if silent == 3:
                    yield f"Slurm does not answer, waiting: {error}"
            else:
                silent = 0
                if not states:
                    break
                text = ", ".join(f"{number} {state.lower()}" for state, number in sorted(states.items()))
                if text != shown and not job.local:
                    yield f"slurm job {job.number}: {text}"
                shown = text
            asked = time.monotonic()
        yield None
        time.sleep(POLL)
    if each is not None:
        yield from each()


class Ending:
    """How a task ends: it notices warnings and SIGTERM, and notes an error for the command that follows the job.

    Use `with Ending(file) as ending:` in the main thread of a task. A warning or SIGTERM raises `KeyboardInterrupt`, or
    whatever a `Stop` makes of SIGTERM, or calls `on_stop` instead if it is given. `warned` is true after a warning.
    """

    def __init__(self, file: Path, on_stop: Callable[[], None] | None = None) -> None:
        self.file, self.on_stop = file, on_stop
        self.warned = self.stopped = False

    def __enter__(self) -> Ending:
        from bcd_bench.util.interrupts import raise_on_terminate

        with suppress(FileNotFoundError):
            self.file.unlink()
        self._requeue = signal.getsignal(_signal_of_submitit())
        raise_on_terminate()
        if self.on_stop is not None:
            signal.signal(signal.SIGTERM, self._on_terminate)
        for number in WARNINGS:
            signal.signal(number, self._on_warning)
        return self

    def __exit__(self, *raised: object) -> None:
        for number in (*WARNINGS, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # the task has stopped; what follows must not be interrupted

    def _on_terminate(self, number: int, frame: object) -> None:
        self.stopped = True
        if self.on_stop is not None:
            self.on_stop()

    def _on_warning(self, number: int, frame: object) -> None:
        self.warned = True
        os.kill(os.getpid(), signal.SIGTERM)

    def leave(self) -> NoReturn:
        """End the process after a stop: Slurm queues the job again if it was warned or preempted."""
        if self.warned and callable(self._requeue):
            try:
                self._requeue(_signal_of_submitit(), None)  # exits
            except Exception as error:
                text = printable(str(error))
                if "too many times" in text:
                    text = "it reached its time limit too often (--slurm-resubmits)"
                self.note(text, "a larger --slurm-time")
                raise
        sys.exit(128 + signal.SIGTERM)  # no result: Slurm has cancelled the job, or queues it again

    def note(self, error: str, hint: str | None = None) -> None:
        """Write the reason for which the task has failed."""
        write_json_atomic(self.file, {"error": error, "hint": hint})


def noted(file: Path) -> tuple[str, str | None] | None:
    """The error and the hint that a task has noted in `file`; None if there are none."""
    try:
        content = json.loads(file.read_bytes())
        return printable(str(content["error"])), None if content["hint"] is None else printable(str(content["hint"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _signal_of_submitit() -> signal.Signals:
    """The signal that Slurm sends before the end, as submitit asks for it."""
    found: signal.Signals = _submitit().JobEnvironment._usr_sig()
    return found
