"""Scoring in worker processes, with the same results as in one process.

Workers score blocks; the main process alone writes their rows. A set metric adds up its state in the order of the
plan, because the last bits of a sum depend on the order: workers first extract its features, block by block and in any
order, then one worker adds them up from the cache. A worker that dies costs a retry: first of the block, then pair by
pair, and at last metric by metric, so that a pair loses only the metrics that cannot score it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.store import cache_folder
from bcd_bench.run.timing import note_workers
from bcd_bench.scoring.blocks import Block, decode, score_block
from bcd_bench.scoring.cache import MetricResult, Row, ScoreFiles
from bcd_bench.scoring.features import FeatureStore, needed_extractors
from bcd_bench.scoring.metric_runner import MetricJob
from bcd_bench.types.errors import BcdBenchError
from bcd_bench.types.failed import Failed
from bcd_bench.util.open_pool import Pool, open_pool
from bcd_bench.util.pool import DEATHS, Finished, PoolOptions
from bcd_bench.util.progress import note_event

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ExtractorSpec, MetricSpec
    from bcd_bench.results.schema import MetricInfo
    from bcd_bench.run.folder import PairResult, RunFolder
    from bcd_bench.util.progress import Progress, Task

__all__ = ["ParallelScoring"]

FATAL_PAIRS = 5
"""Pairs on which a metric without a single row kills its worker before the metric is given up."""


@dataclass(frozen=True)
class _Work:
    """Everything that a worker needs to score."""

    metrics: tuple[tuple[MetricSpec, MetricInfo], ...]
    extractors: tuple[ExtractorSpec, ...]
    device: str
    outputs: Path
    scores: Path
    clusters: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class _ScoreBlock:
    """Score the rows of a block with these metrics; for set metrics, extract their features."""

    block: Block
    results: Mapping[str, PairResult]
    metrics: tuple[str, ...]
    whole: Block
    """The planned block that this one is a part of."""
    deaths: int = 0


@dataclass(frozen=True)
class _AddUp:
    """Add up the state of a set metric over all blocks, without the pairs in `failed`, and finish the metric."""

    metric: str
    key: str
    blocks: Sequence[Block]
    results: Mapping[str, PairResult]
    outputs: Mapping[str, str]
    failed: Mapping[str, Failed]
    deaths: int = 0


@dataclass(frozen=True)
class _Aggregate:
    """Finish a pair metric from its rows."""

    metric: str
    key: str
    outputs: Mapping[str, str]
    part: _Part
    deaths: int = 0


@dataclass(frozen=True)
class _Part:
    """What one metric found on one block; in `_Aggregate`, on all blocks."""

    rows: Mapping[str, Row] = field(default_factory=dict)
    passing: Mapping[str, Failed] = field(default_factory=dict)
    error: str | None = None
    missing: BcdBenchError | None = None
    seconds: float = 0.0


_Task = _ScoreBlock | _AddUp | _Aggregate


class _NoFiles(ScoreFiles):
    """Score files that are not written: the main process writes the rows of workers."""

    def append(self, rows: Any) -> None:
        for _ in rows:
            pass


class _Handler:
    """The state of a worker: its loaded metrics and extractors."""

    def __init__(self, work: _Work) -> None:
        from bcd_bench.plugin.registry import Registry

        self._work = work
        self._jobs: dict[str, MetricJob] = {}
        registry = Registry(extractors={spec.name: spec for spec in work.extractors})
        self._store = FeatureStore(registry, device=work.device, root=cache_folder() / "features")

    def __call__(self, task: _Task) -> Any:
        if isinstance(task, _ScoreBlock):
            return self._score(task)
        return self._add_up(task) if isinstance(task, _AddUp) else self._aggregate(task)

    def _score(self, task: _ScoreBlock) -> dict[str, _Part]:
        jobs = [self._job(name, _NoFiles) for name in task.metrics]
        for job in jobs:
            job.forget()
        score_block(jobs, self._store, task.block, decode(self._work.outputs, task.block, task.results), task.results)
        return {
            job.spec.name: _Part(seconds=job.seconds)
            if job.is_set
            else _Part(job.rows, job.passing, job.error, job.missing, job.seconds)
            for job in jobs
        }

    def _add_up(self, task: _AddUp) -> tuple[MetricResult, float]:
        job = self._new_job(task.metric, ScoreFiles)
        job.prepare(self._work.clusters)
        job.passing |= task.failed
        for block in task.blocks:
            pairs = [pair for pair in block.pairs if pair.id not in task.failed]
            kept = replace(block, pairs=pairs, outputs={pair.id: block.outputs[pair.id] for pair in pairs})
            if pairs and job.needs(kept.outputs):
                clips = decode(self._work.outputs, kept, task.results)
                score_block([job], self._store, kept, clips, task.results)
        return job.finish(self._work.clusters, task.outputs, task.key), job.seconds

    def _aggregate(self, task: _Aggregate) -> tuple[MetricResult, float]:
        job = self._job(task.metric, ScoreFiles)
        job.forget()
        job.rows, job.passing = dict(task.part.rows), dict(task.part.passing)
        job.error, job.missing = task.part.error, task.part.missing
        return job.finish(self._work.clusters, task.outputs, task.key), job.seconds

    def _job(self, name: str, files: type[ScoreFiles]) -> MetricJob:
        """The job of a metric, which is loaded once; `files` says whether it writes its results."""
        if name not in self._jobs:
            self._jobs[name] = self._new_job(name, files)
        job = self._jobs[name]
        job.files = files(job.files.folder, job.files.metric, job.files.identity)
        return job

    def _new_job(self, name: str, files: type[ScoreFiles]) -> MetricJob:
        spec, info = next((spec, info) for spec, info in self._work.metrics if spec.name == name)
        return MetricJob(spec, info, files(self._work.scores, name, info.identity), device=self._work.device)


def start_worker(work: _Work) -> _Handler:
    """Prepare a worker process; metrics are loaded when the first block needs them."""
    return _Handler(work)


class ParallelScoring:
    """Scores the metrics `jobs` (name -> job that holds its stored rows, key of its result) of a run in workers.

    `results` and `outputs` are the successful results and their score keys by pair id.
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
        self._work = _Work(
            metrics=tuple((job.spec, job.info) for job, _ in jobs.values()),
            extractors=tuple(needed_extractors(registry, [name for spec in specs for name in spec.extractors])),
            device=device,
            outputs=run.outputs_dir,
            scores=run.scores_dir,
            clusters=clusters,
        )
        self._parts: dict[str, dict[int, list[_Part]]] = {name: {} for name in jobs}
        self._deaths: Counter[str] = Counter()
        self._open: dict[int, int] = {}
        """Block number -> its tasks that have not ended."""

    def run(self, jobs: int, options: PoolOptions, progress: Progress) -> dict[str, MetricResult | None]:
        """The results by name, with up to `jobs` workers; empty for a shard, whose rows and features are stored."""
        started, peak = time.monotonic(), 0.0
        tasks = self._block_tasks()
        n_sets = sum(1 for job, _ in self._jobs.values() if job.is_set)
        jobs = max(1, min(jobs, max(len(tasks), n_sets if self._run.shard is None else 0)))
        pool: Pool[_Task] = open_pool(
            f"{__name__}:start_worker", self._work, what="metrics", jobs=jobs, options=options
        )

        def limit(task: _Task) -> float | None:
            n_pairs = len(task.block.pairs) if isinstance(task, _ScoreBlock) else len(self._outputs)
            return None if options.timeout is None else options.timeout * max(1, n_pairs)

        results: dict[str, MetricResult | None] = {}
        total = sum(len(block.pairs) for block in self._blocks)
        n_open = sum(len(task.block.pairs) for task in tasks)
        with pool:
            with progress.task("score", total=total, done=total - n_open) as shown:
                told: set[str] = set()
                for end in pool.run(iter(tasks), limit):
                    peak = max(peak, end.peak_memory)
                    self._note(pool, shown)
                    self._scored(end, pool, options, shown)
                    self._tell(told, shown)
            if self._run.shard is None:
                last = list(self._last_tasks())
                with progress.task("combine", total=len(last), unit="metrics") as shown:
                    for end in pool.run(iter(last), limit):
                        peak = max(peak, end.peak_memory)
                        self._note(pool, shown)
                        result = self._combined(end, pool)
                        if result is not None:
                            results[result.metric] = result
                            shown.advance()
        if tasks or results:
            seconds = time.monotonic() - started
            note_workers(self._run.part, "score", jobs=jobs, seconds=seconds, peak_memory=peak)
        return results

    def _block_tasks(self) -> list[_ScoreBlock]:
        tasks: list[_ScoreBlock] = []
        for block in self._blocks:
            names = [name for name, (job, _) in self._jobs.items() if not job.is_set and job.needs(block.outputs)]
            # Their features take most of the time, so they are extracted here, by all workers and with progress.
            names += [name for name, (job, _) in self._jobs.items() if job.is_set and job.spec.extractors]
            if names:
                results = {pair.id: self._results[pair.id] for pair in block.pairs}
                tasks.append(_ScoreBlock(block, results, tuple(names), block))
                self._open[block.number] = 1
        return tasks

    def _scored(self, end: Finished[_Task], pool: Pool[_Task], options: PoolOptions, shown: Task) -> None:
        """Store what a worker found on a block, or decide what follows its loss."""
        task = end.task
        assert isinstance(task, _ScoreBlock)
        if end.error is not None:
            raise end.error
        if end.lost is not None:
            again = list(self._after_loss(task, end, options))
            self._open[task.whole.number] += len(again) - 1
            pool.again(*again)
        else:
            for name, part in end.value.items():
                self._store(name, task.whole.number, part)
            self._open[task.whole.number] -= 1
        if self._open[task.whole.number] == 0:
            shown.advance(len(task.whole.pairs))

    def _after_loss(self, task: _ScoreBlock, end: Finished[_Task], options: PoolOptions) -> Iterator[_ScoreBlock]:
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
            self._store(name, task.whole.number, _Part(passing={pair.id: Failed(reason)}))
            self._deaths[name] += 1
            job = self._jobs[name][0]
            if self._deaths[name] >= FATAL_PAIRS and not job.rows:
                job.error = f"given up after {FATAL_PAIRS} pairs: {reason}"

    def _store(self, name: str, number: int, part: _Part) -> None:
        job = self._jobs[name][0]
        self._parts[name].setdefault(number, []).append(part)
        job.seconds += part.seconds
        job.rows |= part.rows
        job.passing |= part.passing
        if part.rows:
            job.files.append((pair_id, self._outputs[pair_id], row) for pair_id, row in part.rows.items())
        if part.error is not None and job.error is None:
            job.error, job.missing = part.error, part.missing  # ends the submission of its blocks after deaths

    def _last_tasks(self) -> Iterator[_Task]:
        for name, (job, key) in self._jobs.items():
            if job.is_set:
                failed = dict(job.passing)
                yield _AddUp(name, key, self._blocks, self._results, self._outputs, failed)
            else:
                yield _Aggregate(name, key, self._outputs, self._whole(name))

    def _whole(self, name: str) -> _Part:
        """Everything about a pair metric. After an error, only what one process would have found before it stopped."""
        job, _ = self._jobs[name]
        broken = [number for number, parts in self._parts[name].items() if any(part.error for part in parts)]
        if not broken:
            return _Part(job.rows, job.passing, job.error, job.missing)
        first = min(broken)
        error = next(part for part in self._parts[name][first] if part.error)
        late = {
            pair
            for number, parts in self._parts[name].items()
            if number > first
            for part in parts
            for pair in (*part.rows, *part.passing)
        }
        rows = {pair: row for pair, row in job.rows.items() if pair not in late}
        passing = {pair: row for pair, row in job.passing.items() if pair not in late}
        return _Part(rows, passing, error.error, error.missing)

    def _combined(self, end: Finished[_Task], pool: Pool[_Task]) -> MetricResult | None:
        task = end.task
        assert isinstance(task, _AddUp | _Aggregate)
        if end.error is not None:
            raise end.error
        job, _ = self._jobs[task.metric]
        if end.lost is None:
            result: MetricResult = end.value[0]
            job.seconds += end.value[1]
            return result
        if task.deaths + 1 < DEATHS and not end.timed_out:
            pool.again(replace(task, deaths=task.deaths + 1))
            return None
        error = f"it cannot be computed: {end.lost}"
        return MetricResult(metric=task.metric, info=job.info.model_copy(update={"error": error}))

    def _tell(self, told: set[str], shown: Task) -> None:
        for name, (job, _) in self._jobs.items():
            if job.error is not None and name not in told:
                told.add(name)
                shown.message(f"metric {name} failed: {job.error}")

    @staticmethod
    def _note(pool: Pool[_Task], shown: Task) -> None:
        for kind, details in pool.events:
            note_event(shown, kind, **details)
        pool.events.clear()
