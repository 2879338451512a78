"""Generates the outputs of a run, batch by batch and resumable. A separate thread writes the files."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.io.atomic import fsync_path, temporary_name, usual_mode, write_json_atomic
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.plugin.specs import ExecutorSpec, MethodSpec
from bcd_bench.run.environment import distributions_of, environment
from bcd_bench.run.executor import Batch, Encoded, Executor, Outcome, Work, encoded
from bcd_bench.run.executors import check_executor, optional_pool
from bcd_bench.run.folder import PairResult, RunFolder, writing
from bcd_bench.run.local import run_in_pool
from bcd_bench.run.timing import note_workers
from bcd_bench.scoring.features import needed_extractors
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.suite import Suite
from bcd_bench.util.interrupts import Stop, stopping
from bcd_bench.util.progress import NoProgress, Progress, Task, note_event, note_failures

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.run.plan import RunPlan
    from bcd_bench.run.shard import Shard
    from bcd_bench.util.pool import PoolOptions

__all__ = ["GenerateSummary", "generate"]

QUEUED_BATCHES = 2
"""Batches that can wait for the writer: enough to overlap with the method, few enough to limit memory."""
SHOWN_FAILURES = 5
"""Failed pairs that are printed. Further ones are only counted, since a broken method fails on every pair."""
SYNC_THREADS = 8
"""Threads that sync the files of a batch in parallel, so that the file system can commit them together."""


@dataclass(frozen=True)
class GenerateSummary:
    """The result of `generate`: numbers of pairs (total, finished before, generated, failed), and the first error."""

    n_pairs: int
    n_done_before: int
    n_generated: int
    n_failed: int
    first_error: str | None


class _Writer:
    """Writes batches in a separate thread: encode and hash, sync, rename, and only then record the pairs as finished.

    After an error nothing more is written; `submit` and `close` re-raise it in the caller's thread (`OSError` as
    `UsageError`).
    """

    def __init__(self, run: RunFolder, task: Task) -> None:
        self.run, self.task = run, task
        self.failures = 0
        self.error: BaseException | None = None
        self.queue: queue.Queue[Outcome | None] = queue.Queue(maxsize=QUEUED_BATCHES)
        self.syncing = ThreadPoolExecutor(SYNC_THREADS)
        self.thread = threading.Thread(target=self._work, name="bcd-bench-writer", daemon=True)
        self.thread.start()

    def submit(self, outcome: Outcome) -> None:
        self._raise()
        self.queue.put(outcome)

    def close(self) -> None:
        """Wait until all submitted batches are on disk. Raises `UsageError` if they could not be written."""
        self.queue.put(None)
        self.thread.join()
        self.syncing.shutdown()
        self._raise()

    def _raise(self) -> None:
        if self.error is not None:
            if isinstance(self.error, OSError):
                with writing(self.run.path):
                    raise self.error
            raise self.error

    def _work(self) -> None:
        while (outcome := self.queue.get()) is not None:
            if self.error is None:
                try:
                    self._write(outcome)
                except Exception as error:  # noqa: BLE001 - re-raised in the caller's thread
                    self.error = error

    def _write(self, outcome: Outcome) -> None:
        batch = outcome.batch
        results = [
            (pair.id, encoded(result) if isinstance(result, Clip) else result)
            for pair, result in zip(batch.pairs, outcome.results, strict=True)
            if not batch.wanted or pair.id in batch.wanted
        ]
        seconds = round(outcome.seconds / len(batch.pairs), 6)
        lines: list[PairResult] = []
        written: list[tuple[Path, Path]] = []
        unsynced: list[Path] = []
        try:
            for pair_id, result in results:
                if isinstance(result, Failed):
                    lines.append(PairResult(pair_id, "failed", seconds, error=result.reason))
                    continue
                target = self.run.output_path(pair_id)
                temporary = result.file or temporary_name(target)
                written.append((temporary, target))
                if result.file is None:
                    temporary.write_bytes(result.data)
                    unsynced.append(temporary)
                usual_mode(temporary)
                lines.append(_finished(pair_id, result, seconds))
            list(self.syncing.map(fsync_path, unsynced))
            for temporary, target in written:
                temporary.replace(target)
            if written:
                fsync_path(self.run.outputs_dir)
            self.run.append_pairs(lines)
        except BaseException:
            for temporary, _ in written:
                with contextlib.suppress(OSError):  # the first error is the one to report
                    temporary.unlink(missing_ok=True)
            raise
        for line in lines:
            if line.status == "failed":
                self._report_failure(line)
        note_failures(self.task, sum(line.status == "failed" for line in lines))
        self.task.advance(len(lines))

    def _report_failure(self, line: PairResult) -> None:
        self.failures += 1
        if self.failures <= SHOWN_FAILURES:
            self.task.message(f"pair {line.id} failed: {line.error}")
        elif self.failures == SHOWN_FAILURES + 1:
            self.task.message(f"more pairs failed; {self.run.pairs_path} lists all of them")


def _finished(pair_id: str, output: Encoded, seconds: float) -> PairResult:
    info = None if output.info is None else dict(output.info)
    size = output.size if output.file is not None else len(output.data)
    return PairResult(pair_id, "ok", seconds, output.sha256, output.frames, output.fps, size, info=info)


def _note_environment(run: RunFolder, registry: Registry, device: str, worker: Mapping[str, Any] | None) -> None:
    """Write env.json. If a run is resumed in a different environment, that environment is added to the file."""
    current = environment(registry, device) | dict(worker or {})
    recorded = run.env()
    resumed = recorded.pop("resumed_in", [])
    if not recorded:
        write_json_atomic(run.env_path, current)
    elif current != recorded and current not in resumed:
        write_json_atomic(run.env_path, {**recorded, "resumed_in": [*resumed, current]})


def _pending(
    run: RunFolder, results: Mapping[str, PairResult], *, retry_failed: bool
) -> list[tuple[int, range, frozenset[str]]]:
    """Batches to run, as (number, indices, ids of the pairs to keep). No ids means that all pairs are kept."""
    pending = []
    for number, batch in run.batches():
        ids = [run.plan.pairs[index].id for index in batch]
        missing = [pair_id for pair_id in ids if pair_id not in results]
        failed = [i for i in ids if i in results and results[i].status == "failed"] if retry_failed else []
        if missing:
            pending.append((number, batch, frozenset[str]()))
        elif failed:
            pending.append((number, batch, frozenset(failed)))
    return pending


def _interrupted(run: RunFolder) -> Interrupted:
    finished, total = len(run.pairs()), sum(1 for _ in run.indices())
    text = f"interrupted after {finished} of {total} pairs; they are saved in {run.path}"
    return Interrupted(text, hint="rerun the same command to resume")


def _execute(spec: ExecutorSpec, work: Work, batches: Iterator[Batch], jobs: int) -> Generator[Outcome]:
    """The outcomes of the executor; exceptions become errors with a one-line message."""
    name = f"executor {spec.name!r}"
    with plugin_code(name, "failed"):
        if not (spec.factory or spec.pool):
            raise UsageError(f"{name} runs whole shards, so it cannot run single batches")
        execute: Executor = run_in_pool if spec.pool else load_factory(spec.factory)
        outcomes = iter(execute(work, batches, jobs=jobs))
    while True:
        with plugin_code(name, "failed"):
            outcome = next(outcomes, None)
        if outcome is None:
            return
        yield outcome


def _drive(outcomes: Iterator[Outcome], run: RunFolder, registry: Registry, task: Task, stop: Stop) -> float:
    """Pass outcomes from the executor to the writer until there are no more, or the user interrupts the run.

    Returns the largest memory of a worker in MiB; 0 if the executor does not measure it.
    """
    writer = _Writer(run, task)
    noted, peak = False, 0.0
    try:
        while True:
            with stop.into():
                outcome = next(outcomes, None)
            if outcome is None:
                break
            if not noted:  # only now: the GPU's name is known once the method has imported torch
                with writing(run.path):
                    _note_environment(run, registry, run.plan.device, outcome.environment)
                noted = True
            peak = max(peak, outcome.peak_memory)
            for kind, details in outcome.events:
                note_event(task, kind, **details)
            note_event(task, "batch", number=outcome.batch.number, seconds=round(outcome.seconds, 3))
            writer.submit(outcome)
    except KeyboardInterrupt:
        writer.close()
        raise _interrupted(run) from None
    except BaseException:
        with contextlib.suppress(BcdBenchError):  # the first error is the one to report
            writer.close()
        raise
    writer.close()
    return peak


def generate(
    registry: Registry,
    plan: RunPlan,
    suite: Suite,
    out: Path,
    *,
    executor: str = "local",
    jobs: int = 1,
    pool: PoolOptions | None = None,
    shard: Shard | None = None,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> tuple[RunFolder, GenerateSummary]:
    """Generate the outputs of `plan` below `out`, or of one `shard` of it, and resume an interrupted run.

    Batches are those of the plan. An unfinished batch is rerun completely, so that outputs are byte-identical to those
    of an uninterrupted run. Failing pairs are recorded and never stop the run; `retry_failed` runs them again.

    Without `pool`, the executor "local" runs a single job in this process; otherwise every job is a worker process.
    Neither the executor nor `jobs`, `pool` and `shard` changes the outputs.

    Raises `Interrupted` after Ctrl-C or SIGTERM (finished pairs are saved), and `UsageError` if the folder cannot be
    written, contains a different plan, is in use, or was started on a different device.
    """
    spec: MethodSpec = registry.method(plan.method.name)
    executor_spec: ExecutorSpec = registry.executor(executor)
    check_executor(executor_spec, timeout=None if pool is None else pool.timeout)
    pool = optional_pool(executor_spec, pool)
    run = RunFolder.create(out, plan, shard)
    with stopping() as stop, run.locked():
        with writing(run.path):
            run.remove_leftovers()
            before = run.clean_pairs(finished_only=True)
        pairs = plan.suite_pairs(suite)
        n_total = sum(1 for _ in run.indices())
        pending = _pending(run, before, retry_failed=retry_failed)
        if pending and run.plan.device != plan.device:
            raise UsageError(
                f"{run.path} was started on device {run.plan.device!r} and cannot be resumed on {plan.device!r}",
                hint=f"use --device {run.plan.device} or a different --out",
            )
        n_pending, n_before = sum(len(ids or indices) for _, indices, ids in pending), len(before)
        del before  # generating may take days; nothing needs it any more
        if pending:
            work = Work(
                plan.method.name,
                spec.factory,
                plan.method.config,
                plan.weights_path,
                plan.device,
                plan.seed,
                suite.size,
                tuple(needed_extractors(registry, spec.extractors)),
                pool,
                distributions_of(registry),
                run.outputs_dir if executor_spec.pool else None,
            )
            batches = (Batch(n, [pairs[i] for i in indices], ids) for n, indices, ids in pending)
            display = progress or NoProgress()
            started = time.monotonic()
            jobs = min(jobs, len(pending))
            outcomes = _execute(executor_spec, work, batches, jobs)
            with display.task("generate", total=n_total, done=n_total - n_pending) as task, closing(outcomes):
                peak = _drive(outcomes, run, registry, task, stop)
            if pool is not None:
                note_workers(run.part, "generate", jobs=jobs, seconds=time.monotonic() - started, peak_memory=peak)
        with writing(run.path):
            after = run.clean_pairs(finished_only=False)
            if executor_spec.pool:
                run.remove_leftovers()  # of workers that died after they had written a file
    if stop():  # stop requested after the last batch: skip scoring
        raise _interrupted(run)
    errors = [result.error for result in after.values() if result.status == "failed"]
    return run, GenerateSummary(
        n_pairs=n_total,
        n_done_before=n_before,
        n_generated=n_pending,
        n_failed=len(errors),
        first_error=errors[0] if errors else None,
    )
