"""The executor `slurm` for `bcd-bench train`: one job, with torchrun in each of its tasks."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bcd_bench.run.elsewhere import TrainWork
from bcd_bench.training.checkpoint import CHECKPOINT
from bcd_bench.types.errors import Interrupted, UsageError, printable
from bcd_bench_executors.slurm_jobs import WARNINGS, Ending, Submitted, follow, noted, open_executor, submit

__all__ = ["TrainTask", "torchrun", "train"]

FOLDER = "slurm"
"""Folder in the output folder with the files of submitit."""
FIRST_PORT, PORTS = 20000, 20000
"""The processes of a job meet at a port that follows from the number of the job."""


OURS = re.compile(r"step \d+: |(train|weights|error|hint|warning|note|interrupted)\b[^:]*: ")
"""Lines of a log that training has printed."""


@dataclass(frozen=True)
class TrainTask:
    """One task of the job; submitit pickles it and calls it in every task, and again when the job starts again."""

    work: TrainWork
    processes: int
    stop_seconds: int
    """Seconds that the processes have for the rest of their step and the checkpoint."""

    def __call__(self) -> None:
        from submitit import JobEnvironment

        job = JobEnvironment()
        os.chdir(self.work.cwd)
        os.environ.update(self.work.environment)
        # torchrun passes SIGTERM on, and kills what is left after this time.
        os.environ["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(self.stop_seconds)
        arguments = [*self.work.arguments, *(["--resume"] if has_checkpoint(self.work.out) else [])]
        number = int(job.raw_job_id) if job.cluster == "slurm" else 0
        command = torchrun(
            arguments,
            tasks=job.num_tasks,
            rank=job.global_rank,
            processes=self.processes,
            host=job.hostnames[0],
            port=FIRST_PORT + number % PORTS,
        )
        with _ignoring(WARNINGS):
            process = subprocess.Popen(command, start_new_session=True)
        file = self.work.out / FOLDER / f"error-{job.global_rank}.json"
        with Ending(file, on_stop=lambda: _terminate(process)) as ending:
            code = process.wait()
            if code != 0 and not ending.stopped:
                ending.note(f"the training ended with exit code {code} in task {job.global_rank}", None)
        if code == 0:
            return
        if not ending.stopped:
            sys.exit(code if code > 0 else 1)
        ending.leave()

    def checkpoint(self) -> Any:
        """What runs when the job starts again: the same, with `--resume`."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def torchrun(
    arguments: list[str] | tuple[str, ...], *, tasks: int, rank: int, processes: int, host: str, port: int
) -> list[str]:
    """The command of one of `tasks` tasks, which starts `processes` processes of one training."""
    if tasks * processes == 1:
        return [sys.executable, "-m", "bcd_bench", *arguments]
    return [
        *(sys.executable, "-m", "torch.distributed.run"),
        *("--nnodes", str(tasks), "--node-rank", str(rank), "--nproc-per-node", str(processes)),
        *("--master-addr", host, "--master-port", str(port)),
        *("-m", "bcd_bench", *arguments),
    ]


def has_checkpoint(out: Path) -> bool:
    """Whether the folder contains a checkpoint of a training or of one of its stages."""
    return next(out.glob(f"**/{CHECKPOINT}"), None) is not None


def train(work: TrainWork, *, settings: Mapping[str, Any]) -> Iterator[str | None]:
    """Submit the training, or follow the job that an earlier command has submitted, until it ends.

    Raises as `run.elsewhere.TrainExecutor` says.
    """
    folder = work.out / FOLDER
    job = Submitted.earlier(folder)
    if job is None:
        if has_checkpoint(work.out) and not work.resume:
            raise UsageError(
                f"{work.out}: already contains a training run",
                hint="add --resume to continue it, or use a different --out",
            )
        if work.resume and not has_checkpoint(work.out):
            raise UsageError(f"{work.out}: no checkpoint to resume", hint="start without --resume")
        for file in folder.glob("error-*.json"):
            file.unlink()
        executor = open_executor(
            settings, folder, f"bcd-bench {work.arguments[1]}", nodes=settings["nodes"], tasks=settings["tasks"]
        )
        task = TrainTask(work, settings["processes"], max(30, settings["warn"] - 10))
        job = Submitted.of((submit(lambda: executor.submit(task)),), folder, local=settings["cluster"] == "local")
        yield f"submitted as job {job.number}; {job.cancel} cancels it; logs: {folder}"
    else:
        yield f"following job {job.number}, which an earlier command has submitted; {job.cancel} cancels it"
    if not settings["follow"]:
        raise Interrupted(f"job {job.number} is submitted", hint=f"tail -f {folder}/{job.number}_0_log.err")
    try:
        yield from follow(job, _lines([folder / f"{job.number}_0_log.{end}" for end in ("err", "out")]))
    except KeyboardInterrupt:
        raise Interrupted(
            f"no longer following job {job.number}, which goes on",
            hint=f"rerun the same command to follow it; {job.cancel} cancels it",
        ) from None
    for file in sorted(folder.glob("error-*.json")):
        failed = noted(file)
        if failed is not None:
            raise UsageError(f"{failed[0]}; see {folder}", hint=failed[1])
    if not (folder / f"{job.number}_0_result.pkl").exists():
        raise UsageError(f"job {job.number} ended before the training was finished", hint="add --resume to continue it")


def _lines(logs: list[Path]) -> Callable[[], Iterator[str]]:
    """A function that yields the new lines of training in these logs at each call, without those of launchers."""
    position = {log: log.stat().st_size if log.exists() else 0 for log in logs}

    def new() -> Iterator[str]:
        for log in filter(Path.exists, logs):
            with log.open("rb") as stream:
                stream.seek(position[log])
                data = stream.read()
            complete = data[: data.rfind(b"\n") + 1]
            position[log] += len(complete)
            for line in complete.decode(errors="replace").splitlines():
                if OURS.match(line):
                    yield printable(line)

    return new


def _terminate(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)


class _ignoring:
    """Ignore signals while a process is started, which inherits that: torchrun would end without a checkpoint."""

    def __init__(self, signals: tuple[signal.Signals, ...]) -> None:
        self._signals = signals

    def __enter__(self) -> None:
        self._before = {number: signal.signal(number, signal.SIG_IGN) for number in self._signals}

    def __exit__(self, *raised: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
