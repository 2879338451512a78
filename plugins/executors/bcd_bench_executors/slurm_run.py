"""The executor `slurm` for `bcd-bench run`: an array job with one shard per task."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bcd_bench.run.elsewhere import ShardWork
from bcd_bench.run.shard import Shard
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError, one_line
from bcd_bench.util.machine import cuda_devices
from bcd_bench_executors.slurm_jobs import Ending, Submitted, follow, noted, open_executor, submit

__all__ = ["ShardTask", "needs_jobs", "run_shards"]

FOLDER = "slurm"
"""Folder in a run folder with the files of submitit: scripts, logs, and the pickled work."""


@dataclass(frozen=True)
class ShardTask:
    """One task of the array; submitit pickles it, calls it on the node, and keeps it for a job that is queued again."""

    work: ShardWork
    cpus: int

    def __call__(self, shard: Shard) -> None:
        file = _end_file(self.work.folder, shard)
        with Ending(file) as ending:
            try:
                from bcd_bench.run.run_shard import run_shard

                devices = cuda_devices(self.work.plan.device)
                run_shard(self.work, shard, jobs=len(devices) or self.cpus, devices=devices)
            except (Interrupted, KeyboardInterrupt):
                pass
            except BcdBenchError as error:
                ending.note(str(error), error.hint)
                print(f"error: {error}", file=sys.stderr, flush=True)
                sys.exit(error.exit_code)
            except Exception as error:
                ending.note(one_line(error))
                raise
            else:
                return
        ending.leave()

    def checkpoint(self, shard: Shard) -> Any:
        """What runs when the job starts again: the same, since everything finished is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, shard)


def needs_jobs(settings: Mapping[str, Any], device: str) -> int:
    """Raises `UsageError`: how many tasks an array has is for the user to say."""
    raise UsageError("--executor slurm needs --jobs N, the number of tasks of the array", hint="--jobs 4")


def run_shards(work: ShardWork, shards: Sequence[Shard], *, settings: Mapping[str, Any]) -> Iterator[str | None]:
    """Submit an array of the shards, or follow the one that an earlier command has submitted, until it ends.

    Raises as `run.elsewhere.ShardExecutor` says.
    """
    folder = work.folder / FOLDER
    job = Submitted.earlier(folder)
    if job is None:
        executor = open_executor(settings, folder, f"bcd-bench {work.plan.method.name}")
        task = ShardTask(work, settings["cpus"])
        jobs = submit(lambda: executor.map_array(task, list(shards)))
        job = Submitted.of(tuple(jobs), folder, local=settings["cluster"] == "local")
        yield f"submitted {len(shards)} shards as job {job.number}; {job.cancel} cancels it; logs: {folder}"
    else:
        yield f"following job {job.number}, which an earlier command has submitted; {job.cancel} cancels it"
    if not settings["follow"]:
        raise Interrupted(f"job {job.number} is submitted", hint=f"bcd-bench status {work.folder}")
    try:
        yield from follow(job)
    except KeyboardInterrupt:
        raise Interrupted(
            f"no longer following job {job.number}, which goes on",
            hint=f"bcd-bench status {work.folder}; rerun the same command to follow it; {job.cancel} cancels it",
        ) from None
    for shard in shards:
        failed = noted(_end_file(work.folder, shard))
        if failed is not None:
            raise UsageError(f"shard {shard} failed: {failed[0]} (logs: {folder})", hint=failed[1])


def _end_file(run: Path, shard: Shard) -> Path:
    return run / FOLDER / f"error-{shard.name}.json"
