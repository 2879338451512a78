"""Runs whole shards elsewhere, for executors such as a batch system, and follows them on disk."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.merge import merge, unfinished
from bcd_bench.run.plan import RunPlan
from bcd_bench.run.shard import Shard
from bcd_bench.run.status import status_of
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.util.interrupts import stopping
from bcd_bench.util.pool import THREAD_VARIABLES, PoolOptions
from bcd_bench.util.progress import NoProgress, note_event, note_failures

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ExecutorSpec
    from bcd_bench.types.suite import Suite
    from bcd_bench.util.progress import Progress, Task

__all__ = ["ShardExecutor", "ShardWork", "TrainExecutor", "TrainWork", "inherited_environment", "run_elsewhere"]


def inherited_environment() -> dict[str, str]:
    """The environment variables that results and files depend on: of bcd-bench, and the numbers of threads."""
    return {
        name: value for name, value in os.environ.items() if name.startswith("BCD_BENCH_") or name in THREAD_VARIABLES
    }


@dataclass(frozen=True)
class ShardWork:
    """Everything that another process needs to run a shard (`run.run_shard.run_shard`). Can be pickled."""

    plan: RunPlan
    metrics: tuple[str, ...]
    out: Path
    """The folder of all runs, absolute."""
    retry_failed: bool = False
    timeout: float | None = None
    environment: Mapping[str, str] = field(default_factory=inherited_environment)

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.out / self.plan.folder


class ShardExecutor(Protocol):
    """Runs shards elsewhere. `ExecutorSpec.shards` refers to such a callable.

    It calls `run.run_shard.run_shard(work, shard, jobs=…)` for each of `shards` where it likes, with its `settings`,
    and again for those that were preempted. It yields None whenever a second or more has passed, so that the caller can
    show the progress, or a line to print, and returns when all shards have ended. If the caller closes it (Ctrl-C), the
    shards go on. Raises `BcdBenchError` if shards could not be started, or ended without being finished.
    """

    def __call__(
        self, work: ShardWork, shards: Sequence[Shard], *, settings: Mapping[str, Any]
    ) -> Iterator[str | None]: ...


@dataclass(frozen=True)
class TrainWork:
    """A training that runs elsewhere. `arguments` are those of `bcd-bench` ("train", NAME, …), without `--resume` and
    `--executor`; `out` is its absolute output folder, `cwd` the folder that relative paths refer to."""

    arguments: tuple[str, ...]
    out: Path
    cwd: Path
    device: str
    resume: bool
    environment: Mapping[str, str] = field(default_factory=inherited_environment)


class TrainExecutor(Protocol):
    """Trains elsewhere. `ExecutorSpec.train` refers to such a callable. It yields and ends as `ShardExecutor` does."""

    def __call__(self, work: TrainWork, *, settings: Mapping[str, Any]) -> Iterator[str | None]: ...


def run_elsewhere(
    registry: Registry,
    spec: ExecutorSpec,
    plan: RunPlan,
    suite: Suite,
    metrics: Sequence[str],
    out: Path,
    *,
    jobs: int,
    pool: PoolOptions,
    retry_failed: bool,
    progress: Progress | None,
    merging: Callable[[], Mapping[str, Any]],
) -> bool:
    """Run `plan` in `jobs` shards below `out` with an executor that has `shards`, to the merged run and its record.

    `merging` gives the options of `merge`, which is called here only if the last shard did not merge; returns whether
    it was. Raises `Interrupted` after Ctrl-C or SIGTERM; the shards go on. Raises `UsageError` for shards that are not
    finished at the end.
    """
    parts = -(-len(plan.pairs) // plan.part_size)
    shards = [Shard(number, min(jobs, parts)) for number in range(1, min(jobs, parts) + 1)]
    run = RunFolder.create(out, plan, shards[0]).root()
    weights = None if plan.weights_path is None else plan.weights_path.absolute()
    there = plan.model_copy(update={"weights_path": weights})
    work = ShardWork(there, tuple(metrics), out.absolute(), retry_failed, pool.timeout)
    name = f"executor {spec.name!r}"
    done = status_of(run).n_finished
    with (
        stopping() as stop,
        (progress or NoProgress()).task("shards", total=len(plan.pairs), done=done) as task,
    ):
        waiting = [Shard.parse(text.partition(" ")[0]) for text in unfinished(run)]
        todo = shards if retry_failed else waiting
        with plugin_code(name, "failed"):
            lines = load_factory(spec.shards)(work, todo, settings=pool.settings) if todo else iter(())
        shown = _Shown(run, task, done)
        try:
            while True:
                with plugin_code(name, "failed"), stop.into():
                    line = next(lines, _END)
                if line is _END:
                    break
                if line is not None:
                    task.message(str(line))
                shown.update()
            shown.update()
        except KeyboardInterrupt:
            raise Interrupted(
                f"no longer following {run.path}; its shards go on",
                hint=f"bcd-bench status {run.path}; rerun the same command to follow them again",
            ) from None
        finally:
            close = getattr(lines, "close", None)
            if close is not None:
                close()
    if not run.shards():
        return False
    if texts := unfinished(run):
        raise UsageError(f"{run.path}: shard {', shard '.join(texts)}", hint="rerun the same command to continue them")
    merge(registry, run.path, device=plan.device, suite=suite, **merging())
    return True


_END: Any = object()


class _Shown:
    """The progress of all shards as read from the run folder, at most every few seconds."""

    EVERY = 2.0

    def __init__(self, run: RunFolder, task: Task, done: int) -> None:
        self._run, self._task = run, task
        self._done, self._failed, self._last = done, 0, time.monotonic()

    def update(self) -> None:
        began = time.monotonic()
        if began - self._last < self.EVERY:
            return
        try:
            status = status_of(self._run)
        except (OSError, BcdBenchError):  # the last shard is merging the folders of all
            return
        if status.n_finished > self._done:
            note_failures(self._task, max(0, status.n_failed - self._failed))
            note_event(self._task, "shards", finished=sum(part.state == "finished" for part in status.parts))
            self._task.advance(status.n_finished - self._done)
            self._done, self._failed = status.n_finished, status.n_failed
        self._last = time.monotonic() + 5 * (time.monotonic() - began)  # reading a large run takes a while
