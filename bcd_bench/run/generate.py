"""Pairs to output files: resumable, batch by batch, with a writer thread beside the method."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.io.atomic import fsync_path, temporary_name, usual_mode, write_json_atomic
from bcd_bench.io.video import encode_lossless
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.plugin.specs import ExecutorSpec, MethodSpec
from bcd_bench.run.environment import environment
from bcd_bench.run.executor import Batch, Executor, Outcome, Work
from bcd_bench.run.folder import PairResult, RunFolder, writing
from bcd_bench.scoring.features import needed_extractors
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.suite import Suite
from bcd_bench.util.interrupts import Stop, stopping
from bcd_bench.util.progress import NoProgress, Progress, Task

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.run.plan import RunPlan

__all__ = ["GenerateSummary", "generate"]

QUEUED_BATCHES = 2
"""Batches that may wait for the writer: enough to overlap, few enough that memory stays flat."""
SHOWN_FAILURES = 5
"""Failed pairs that are told as they happen; the rest are only counted, since a broken method fails everywhere."""
SYNC_THREADS = 8
"""Files of a batch are synced side by side, which lets the file system commit them together."""


@dataclass(frozen=True)
class GenerateSummary:
    """What `generate` did: pairs finished before and now, failed pairs in all, and the first error among them."""

    n_pairs: int
    n_done_before: int
    n_generated: int
    n_failed: int
    first_error: str | None


class _Writer:
    """Writes batches in a thread of its own: encode and hash, sync, rename, and only then note the pairs as finished.

    An error stops the writing; `submit` and `close` raise it as `UsageError` in the caller's thread.
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
        """Wait until everything submitted is on disk. Raises `UsageError` if it could not be written."""
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
                except Exception as error:  # noqa: BLE001 - carried to the caller's thread
                    self.error = error

    def _write(self, outcome: Outcome) -> None:
        batch = outcome.batch
        kept = [
            (pair.id, result)
            for pair, result in zip(batch.pairs, outcome.results, strict=True)
            if not batch.wanted or pair.id in batch.wanted
        ]
        seconds = round(outcome.seconds / len(batch.pairs), 6)
        lines: list[PairResult] = []
        written: list[tuple[Path, Path]] = []
        try:
            for pair_id, result in kept:
                if isinstance(result, Failed):
                    lines.append(PairResult(pair_id, "failed", seconds, error=result.reason))
                    continue
                target = self.run.output_path(pair_id)
                temporary = temporary_name(target)
                try:
                    data = encode_lossless(result)
                except ValueError as error:
                    lines.append(PairResult(pair_id, "failed", seconds, error=f"output cannot be encoded: {error}"))
                    continue
                written.append((temporary, target))
                temporary.write_bytes(data)
                usual_mode(temporary)
                lines.append(_finished(pair_id, result, seconds, len(data)))
            list(self.syncing.map(fsync_path, (temporary for temporary, _ in written)))
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
                self._tell(line)
        self.task.advance(len(lines))

    def _tell(self, line: PairResult) -> None:
        self.failures += 1
        if self.failures <= SHOWN_FAILURES:
            self.task.message(f"pair {line.id} failed: {line.error}")
        elif self.failures == SHOWN_FAILURES + 1:
            self.task.message(f"more pairs failed; all of them are in {self.run.pairs_path}")


def _finished(pair_id: str, clip: Clip, seconds: float, size: int) -> PairResult:
    info = None if clip.info is None else dict(clip.info)
    return PairResult(pair_id, "ok", seconds, clip.sha256, len(clip), float(clip.fps), size, info=info)


def _note_environment(run: RunFolder, registry: Registry, device: str) -> None:
    """Write env.json; a resume in another environment is added to it, never hidden."""
    now = environment(registry, device)
    known = run.env()
    resumed = known.pop("resumed_in", [])
    if not known:
        write_json_atomic(run.env_path, now)
    elif now != known and now not in resumed:
        write_json_atomic(run.env_path, {**known, "resumed_in": [*resumed, now]})


def _pending(
    run: RunFolder, suite: Suite, results: Mapping[str, PairResult], *, retry_failed: bool
) -> list[tuple[int, range, frozenset[str]]]:
    """Batches to run, as (number, indices, pairs to keep). A batch with nothing finished keeps all."""
    pending = []
    for number, batch in enumerate(run.plan.batches()):
        ids = [run.plan.pairs[index].id for index in batch]
        missing = [pair_id for pair_id in ids if pair_id not in results]
        failed = [i for i in ids if i in results and results[i].status == "failed"] if retry_failed else []
        if missing:
            pending.append((number, batch, frozenset[str]()))
        elif failed:
            pending.append((number, batch, frozenset(failed)))
    for index, planned in enumerate(run.plan.pairs):
        if suite.pairs[index].id != planned.id:
            raise UsageError(f"pair {index} of suite {suite.name!r} is {suite.pairs[index].id!r}, not {planned.id!r}")
    return pending


def _interrupted(run: RunFolder) -> Interrupted:
    done, total = len(run.pairs()), len(run.plan.pairs)
    text = f"stopped at {done} of {total} pairs; all of them are on disk in {run.path}"
    return Interrupted(text, hint="the same command continues")


def _execute(spec: ExecutorSpec, work: Work, batches: Iterator[Batch], jobs: int) -> Iterator[Outcome]:
    """What the executor yields; whatever else comes out of it is one clear line."""
    what = f"executor {spec.name!r}"
    with plugin_code(what, "failed"):
        execute: Executor = load_factory(spec.factory)
        outcomes = iter(execute(work, batches, jobs=jobs))
    while True:
        with plugin_code(what, "failed"):
            outcome = next(outcomes, None)
        if outcome is None:
            return
        yield outcome


def _drive(outcomes: Iterator[Outcome], run: RunFolder, registry: Registry, task: Task, stop: Stop) -> None:
    """Take outcomes from the executor and hand them to the writer, until they end or somebody asks to stop."""
    writer = _Writer(run, task)
    noted = False
    try:
        while True:
            with stop.into():
                outcome = next(outcomes, None)
            if outcome is None:
                break
            if not noted:  # not before: a GPU can be named only once the method has imported torch
                with writing(run.path):
                    _note_environment(run, registry, run.plan.device)
                noted = True
            writer.submit(outcome)
    except KeyboardInterrupt:
        writer.close()
        raise _interrupted(run) from None
    except BaseException:
        with contextlib.suppress(BcdBenchError):  # the first error is the one to report
            writer.close()
        raise
    writer.close()


def generate(
    registry: Registry,
    plan: RunPlan,
    suite: Suite,
    out: Path,
    *,
    executor: str = "local",
    jobs: int = 1,
    retry_failed: bool = False,
    progress: Progress | None = None,
) -> tuple[RunFolder, GenerateSummary]:
    """Make the outputs of `plan` below `out`, continuing where an earlier call stopped.

    Batches are the plan's: one that was not finished runs again whole, so that outputs are byte-identical to those of
    an uninterrupted run. A failing pair is noted and never stops the run; `retry_failed` tries such pairs again.

    Raises `Interrupted` after Ctrl-C or SIGTERM (what was finished is on disk), `UsageError` for a folder that cannot
    be written, holds another plan, is in use, or was begun on another device.
    """
    spec: MethodSpec = registry.method(plan.method.name)
    chosen: ExecutorSpec = registry.executor(executor)
    run = RunFolder.create(out, plan)
    with stopping() as stop, run.locked():
        with writing(run.path):
            run.remove_leftovers()
            before = run.finished()
            run.rewrite_pairs(before)
        pending = _pending(run, suite, before, retry_failed=retry_failed)
        if pending and run.plan.device != plan.device:
            raise UsageError(
                f"{run.path} was begun on device {run.plan.device!r} and cannot go on with {plan.device!r}",
                hint=f"--device {run.plan.device}, or another --out",
            )
        todo = sum(len(wanted or indices) for _, indices, wanted in pending)
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
            )
            batches = (Batch(n, [suite.pairs[i] for i in indices], wanted) for n, indices, wanted in pending)
            shown = progress or NoProgress()
            with shown.task("generate", total=len(plan.pairs), done=len(plan.pairs) - todo) as task:
                _drive(_execute(chosen, work, batches, jobs), run, registry, task, stop)
        after = run.pairs()
        with writing(run.path):
            run.rewrite_pairs(after)
    if stop():  # too late to break into the method, but whoever asked wants no scoring either
        raise _interrupted(run)
    errors = [result.error for result in after.values() if result.status == "failed"]
    return run, GenerateSummary(
        n_pairs=len(plan.pairs),
        n_done_before=len(before),
        n_generated=todo,
        n_failed=len(errors),
        first_error=errors[0] if errors else None,
    )
