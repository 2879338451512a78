"""Scoring in worker processes, with the same results as in one process.

Workers score blocks; the main process alone writes their rows. A set metric adds up its state in the order of the
plan, because the last bits of a sum depend on the order: workers first extract its features, block by block and in any
order, then one worker adds them up from the cache, and all workers compute the replicates of its interval. A worker
that dies costs a retry: first of the block, then pair by pair, and at last metric by metric, so that a pair loses only
the metrics that cannot score it.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bcd_bench.run.timing import note_workers
from bcd_bench.scoring.blocks import Block
from bcd_bench.scoring.cache import MetricResult
from bcd_bench.scoring.features import needed_extractors
from bcd_bench.scoring.metric_runner import MetricJob
from bcd_bench.scoring.scoring_worker import (
    Added,
    AddUp,
    Aggregate,
    FinishSet,
    Part,
    Replicate,
    ScoreBlock,
    ScoringTask,
    Work,
    start_worker,
)
from bcd_bench.types.failed import Failed
from bcd_bench.util.open_pool import Pool, open_pool
from bcd_bench.util.pool import DEATHS, Finished, PoolOptions
from bcd_bench.util.progress import note_event

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.run.folder import PairResult, RunFolder
    from bcd_bench.types.errors import BcdBenchError
    from bcd_bench.util.progress import Progress, Task

__all__ = ["ParallelScoring"]

FATAL_PAIRS = 5
"""Pairs on which a metric without a single row kills its worker before the metric is given up."""


@dataclass(frozen=True)
class _Found:
    """What a metric has found on a block or a part of it: the pairs, and its error. The rows are in its file."""

    pairs: tuple[str, ...]
    error: str | None
    missing: BcdBenchError | None


class ParallelScoring:
    """Scores the metrics `jobs` (name -> job that holds its stored rows, key of its result) of a run in workers.

    `results` and `outputs` are the successful results and their score keys by pair id. Rows do not stay in memory:
    they are written block by block, and the worker that finishes a metric reads them.
    """

    def __init__(
        self,
        registry: Registry,
        run: RunFolder,
        results: Mapping[str, PairResult],
        outputs: Mapping[str, str],
        jobs: Mapping[str, tuple[MetricJob, str]],
        clusters: Sequence[tuple[str, str]],
        blocks: Sequence[Block],
        *,
        device: str,
    ) -> None:
        self._run, self._jobs, self._blocks = run, jobs, blocks
        self._results, self._outputs = results, outputs
        specs = [job.spec for job, _ in jobs.values()]
        self._work = Work(
            metrics=tuple((job.spec, job.info) for job, _ in jobs.values()),
            extractors=tuple(needed_extractors(registry, [name for spec in specs for name in spec.extractors])),
            device=device,
            outputs=run.outputs_dir,
            scores=run.scores_dir,
            clusters=clusters,
        )
        self._found: dict[str, dict[int, list[_Found]]] = {name: {} for name in jobs}
        self._with_rows: set[str] = set()
        """Metrics that have a row."""
        self._deaths: Counter[str] = Counter()
        self._replicates: dict[str, tuple[Added, dict[int | None, Mapping[str, Any]]]] = {}
        """Set metric -> its states, and its values with all of them (None) and without each."""
        self._open: dict[int, int] = {}
        """Block number -> its tasks that have not ended."""

    def run(self, jobs: int, options: PoolOptions, progress: Progress) -> dict[str, MetricResult | None]:
        """The results by name, with up to `jobs` workers; empty for a shard, whose rows and features are stored."""
        started, peak = time.monotonic(), 0.0
        to_score = self._metrics_by_block()
        self._forget_rows()
        n_sets = sum(1 for job, _ in self._jobs.values() if job.is_set)
        jobs = max(1, min(jobs, max(len(to_score), n_sets if self._run.shard is None else 0)))
        pool: Pool[ScoringTask] = open_pool(
            f"{start_worker.__module__}:{start_worker.__name__}", self._work, what="metrics", jobs=jobs, options=options
        )

        def limit(task: ScoringTask) -> float | None:
            n_pairs = len(task.block.pairs) if isinstance(task, ScoreBlock) else len(self._outputs)
            return None if options.timeout is None else options.timeout * max(1, n_pairs)

        results: dict[str, MetricResult | None] = {}
        total = sum(len(block.pairs) for block in self._blocks)
        n_open = sum(len(block.pairs) for block, _ in to_score)
        with contextlib.closing(self), pool:
            with progress.task("score", total=total, done=total - n_open) as shown:
                told: set[str] = set()
                for end in pool.run(self._block_tasks(to_score), limit):
                    peak = max(peak, end.peak_memory)
                    self._note(pool, shown)
                    self._scored(end, pool, options, shown)
                    self._tell(told, shown)
            if self._run.shard is None:
                last = list(self._last_tasks(share=jobs > 1))
                with progress.task("combine", total=len(last), unit="metrics") as shown:
                    for end in pool.run(iter(last), limit):
                        peak = max(peak, end.peak_memory)
                        self._note(pool, shown)
                        result = self._combined(end, pool)
                        if result is not None:
                            results[result.metric] = result
                            shown.advance()
        if to_score or results:
            seconds = time.monotonic() - started
            note_workers(self._run.part, "score", jobs=jobs, seconds=seconds, peak_memory=peak)
        return results

    def close(self) -> None:
        """Delete the states of set metrics that are not finished."""
        for metric in list(self._replicates):
            self._forget_states(metric)

    def _metrics_by_block(self) -> list[tuple[Block, tuple[str, ...]]]:
        """The blocks that have to be scored, and by which metrics."""
        to_score: list[tuple[Block, tuple[str, ...]]] = []
        for block in self._blocks:
            names = [name for name, (job, _) in self._jobs.items() if not job.is_set and job.needs(block.outputs)]
            # Their features take most of the time, so they are extracted here, by all workers and with progress.
            names += [name for name, (job, _) in self._jobs.items() if job.is_set and job.spec.extractors]
            if names:
                to_score.append((block, tuple(names)))
        return to_score

    def _forget_rows(self) -> None:
        for name, (job, _) in self._jobs.items():
            if job.rows:
                self._with_rows.add(name)
            job.rows = {}

    def _block_tasks(self, to_score: Sequence[tuple[Block, tuple[str, ...]]]) -> Iterator[ScoreBlock]:
        for block, names in to_score:
            self._open[block.number] = 1
            yield ScoreBlock(block, {pair.id: self._results[pair.id] for pair in block.pairs}, names, block)

    def _scored(self, end: Finished[ScoringTask], pool: Pool[ScoringTask], options: PoolOptions, shown: Task) -> None:
        """Store what a worker found on a block, or decide what follows its loss."""
        task = end.task
        assert isinstance(task, ScoreBlock)
        if end.error is not None:
            raise end.error
        if end.lost is not None:
            again = list(self._after_loss(task, end, options))
            self._open[task.whole.number] += len(again) - 1
            pool.again(*again)
        else:
            for name, part in end.value.items():
                self._store(name, task.whole, part)
            self._open[task.whole.number] -= 1
        if self._open[task.whole.number] == 0:
            shown.advance(len(task.whole.pairs))

    def _after_loss(self, task: ScoreBlock, end: Finished[ScoringTask], options: PoolOptions) -> Iterator[ScoreBlock]:
        deaths = 2 if end.timed_out and len(task.block.pairs) > 1 else task.deaths + 1
        metrics = tuple(name for name in task.metrics if self._jobs[name][0].error is None)
        if not metrics:
            return
        if deaths == 1 and not end.timed_out:
            yield replace(task, metrics=metrics, deaths=1)
        elif len(task.block.pairs) > 1:
            for pair in task.block.pairs:
                block = Block(task.block.number, [pair], {pair.id: task.block.outputs[pair.id]})
                yield replace(task, block=block, metrics=metrics, deaths=2)
        elif len(metrics) > 1:
            for name in metrics:
                yield replace(task, metrics=(name,), deaths=DEATHS - 1)
        elif deaths < DEATHS and not end.timed_out:
            yield replace(task, metrics=metrics, deaths=deaths)
        else:
            [pair], [name] = task.block.pairs, metrics
            reason = f"its worker died {DEATHS} times ({end.lost})"
            if end.timed_out:
                reason = f"not scored within {options.timeout:g} s (--timeout)"
            self._store(name, task.whole, Part(passing={pair.id: Failed(reason)}))
            self._deaths[name] += 1
            job = self._jobs[name][0]
            if self._deaths[name] >= FATAL_PAIRS and name not in self._with_rows:
                job.error = f"given up after {FATAL_PAIRS} pairs: {reason}"

    def _store(self, name: str, block: Block, part: Part) -> None:
        job = self._jobs[name][0]
        scored = tuple(pair.id for pair in block.pairs if pair.id in part.rows or pair.id in part.passing)
        self._found[name].setdefault(block.number, []).append(_Found(scored, part.error, part.missing))
        job.seconds += part.seconds
        job.passing |= part.passing
        if part.rows:
            self._with_rows.add(name)
            job.files.append((pair_id, self._outputs[pair_id], row) for pair_id, row in part.rows.items())
        if part.error is not None and job.error is None:
            job.error, job.missing = part.error, part.missing  # ends the submission of its blocks after deaths

    def _last_tasks(self, *, share: bool) -> Iterator[ScoringTask]:
        names = sorted(self._jobs, key=lambda name: not self._jobs[name][0].is_set)  # the longest ones first
        for name in names:
            if self._jobs[name][0].is_set:
                yield replace(self._add_up_task(name), share=share)
            else:
                yield self._aggregate_task(name)

    def _add_up_task(self, name: str) -> AddUp:
        job, key = self._jobs[name]
        return AddUp(name, key, self._blocks, self._results, dict(job.passing))

    def _aggregate_task(self, name: str) -> Aggregate:
        """The last task of a pair metric. After an error, it is given only what one process would have found before it
        stopped."""
        job, key = self._jobs[name]
        broken = [number for number, parts in self._found[name].items() if any(part.error for part in parts)]
        if not broken:
            return Aggregate(name, key, self._outputs, Part({}, job.passing, job.error, job.missing))
        first = min(broken)
        error = next(part for part in self._found[name][first] if part.error)
        later = [part for number, parts in self._found[name].items() if number > first for part in parts]
        late = frozenset(pair for part in later for pair in part.pairs)
        passing = {pair: failed for pair, failed in job.passing.items() if pair not in late}
        return Aggregate(name, key, self._outputs, Part({}, passing, error.error, error.missing), late)

    def _combined(self, end: Finished[ScoringTask], pool: Pool[ScoringTask]) -> MetricResult | None:
        """The result that a task has finished. Before that, submit what follows the task, or its loss."""
        task = end.task
        assert not isinstance(task, ScoreBlock)
        if end.error is not None:
            raise end.error
        job, key = self._jobs[task.metric]
        if end.lost is not None:
            return self._lost(task, end, pool)
        value, seconds = end.value
        job.seconds += seconds
        if isinstance(value, MetricResult):
            self._forget_states(task.metric)
            return value
        if isinstance(value, Added):
            self._replicates[task.metric] = (value, {})
            pool.again(*(Replicate(task.metric, value, number) for number in (None, *range(value.n_states))))
        elif task.metric in self._replicates:
            added, known = self._replicates[task.metric]
            if value is None:  # often the metric has raised: one worker finds the error that one process would find
                self._add_up_alone(task.metric, pool)
                return None
            assert isinstance(task, Replicate)
            known[task.left_out] = value
            if len(known) == added.n_states + 1:
                values = [known[number] for number in (None, *range(added.n_states))]
                pool.again(FinishSet(task.metric, key, added, values))
        return None

    def _lost(self, task: ScoringTask, end: Finished[ScoringTask], pool: Pool[ScoringTask]) -> MetricResult | None:
        """Submit a lost task again, or give its metric up."""
        if isinstance(task, AddUp | Aggregate):
            if task.deaths + 1 < DEATHS and not end.timed_out:
                pool.again(replace(task, deaths=task.deaths + 1))
                return None
            info = self._jobs[task.metric][0].info
            error = f"it cannot be computed: {end.lost}"
            return MetricResult(metric=task.metric, info=info.model_copy(update={"error": error}))
        assert isinstance(task, Replicate | FinishSet)
        if task.metric in self._replicates:
            self._add_up_alone(task.metric, pool)
        return None

    def _add_up_alone(self, metric: str, pool: Pool[ScoringTask]) -> None:
        self._forget_states(metric)
        pool.again(replace(self._add_up_task(metric), deaths=1))

    def _forget_states(self, metric: str) -> None:
        added, _ = self._replicates.pop(metric, (None, {}))
        if added is not None:
            added.states.unlink(missing_ok=True)

    def _tell(self, told: set[str], shown: Task) -> None:
        for name, (job, _) in self._jobs.items():
            if job.error is not None and name not in told:
                told.add(name)
                shown.message(f"metric {name} failed: {job.error}")

    @staticmethod
    def _note(pool: Pool[ScoringTask], shown: Task) -> None:
        for kind, details in pool.events:
            note_event(shown, kind, **details)
        pool.events.clear()
