"""What workers of `scoring.parallel` do: the tasks, and the handler that runs them in a worker process."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.store import cache_folder
from bcd_bench.io.atomic import temporary_name
from bcd_bench.io.npz import load_tree, save_tree
from bcd_bench.scoring.blocks import Block, decode, score_block
from bcd_bench.scoring.cache import MetricResult, Row, ScoreFiles
from bcd_bench.scoring.features import FeatureStore
from bcd_bench.scoring.metric_runner import MetricJob
from bcd_bench.types.errors import BcdBenchError
from bcd_bench.types.failed import Failed

if TYPE_CHECKING:
    from bcd_bench.plugin.specs import ExtractorSpec, MetricSpec
    from bcd_bench.results.schema import MetricInfo
    from bcd_bench.run.folder import PairResult

__all__ = [
    "AddUp",
    "Added",
    "Aggregate",
    "FinishSet",
    "Part",
    "Replicate",
    "ScoreBlock",
    "ScoringTask",
    "Work",
    "start_worker",
]


@dataclass(frozen=True)
class Work:
    """Everything that a worker needs to score."""

    metrics: tuple[tuple[MetricSpec, MetricInfo], ...]
    extractors: tuple[ExtractorSpec, ...]
    device: str
    outputs: Path
    scores: Path
    clusters: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class ScoreBlock:
    """Score the rows of a block with these metrics; for set metrics, extract their features."""

    block: Block
    results: Mapping[str, PairResult]
    metrics: tuple[str, ...]
    whole: Block
    """The planned block that this one is a part of."""
    deaths: int = 0


@dataclass(frozen=True)
class AddUp:
    """Add up the state of a set metric over all blocks, without the pairs in `failed`, and finish the metric.

    With `share`, a metric with a jackknife interval is not finished: its states are stored (`Added`), so that other
    workers can compute its replicates (`Replicate`).
    """

    metric: str
    key: str
    blocks: Sequence[Block]
    results: Mapping[str, PairResult]
    failed: Mapping[str, Failed]
    share: bool = False
    deaths: int = 0


@dataclass(frozen=True)
class Added:
    """A set metric between `AddUp` and `FinishSet`: the file with its states, and what else belongs to the result."""

    states: Path
    n_states: int
    rows: Mapping[str, Row]
    passing: Mapping[str, Failed]
    included: Mapping[str, str]


@dataclass(frozen=True)
class Replicate:
    """The values of a set metric without the state number `left_out`; with all states if it is None."""

    metric: str
    added: Added
    left_out: int | None


@dataclass(frozen=True)
class FinishSet:
    """Finish a set metric from the values of `Replicate`: first with all states, then without each."""

    metric: str
    key: str
    added: Added
    values: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Aggregate:
    """Finish a pair metric from its rows, which are in its file.

    `found` is everything but these rows; the rows of the pairs in `left_out` do not count.
    """

    metric: str
    key: str
    outputs: Mapping[str, str]
    found: Part
    left_out: frozenset[str] = frozenset()
    deaths: int = 0


@dataclass(frozen=True)
class Part:
    """What one metric found on one block."""

    rows: Mapping[str, Row] = field(default_factory=dict)
    passing: Mapping[str, Failed] = field(default_factory=dict)
    error: str | None = None
    missing: BcdBenchError | None = None
    seconds: float = 0.0


ScoringTask = ScoreBlock | AddUp | Replicate | FinishSet | Aggregate


class _NoFiles(ScoreFiles):
    """Score files that are not written: the main process writes the rows of workers."""

    def append(self, rows: Any) -> None:
        for _ in rows:
            pass


class _Handler:
    """The state of a worker: its loaded metrics and extractors."""

    def __init__(self, work: Work) -> None:
        from bcd_bench.plugin.registry import Registry

        self._work = work
        self._jobs: dict[str, MetricJob] = {}
        registry = Registry(extractors={spec.name: spec for spec in work.extractors})
        self._store = FeatureStore(registry, device=work.device, root=cache_folder() / "features")
        self._added: tuple[Path, MetricJob] | None = None
        """The set metric whose states were read last, and their file."""

    def __call__(self, task: ScoringTask) -> Any:
        if isinstance(task, ScoreBlock):
            return self._score(task)
        if isinstance(task, AddUp):
            return self._add_up(task)
        if isinstance(task, Replicate):
            return self._replicate(task)
        return self._finish_set(task) if isinstance(task, FinishSet) else self._aggregate(task)

    def _score(self, task: ScoreBlock) -> dict[str, Part]:
        jobs = [self._job(name, _NoFiles) for name in task.metrics]
        for job in jobs:
            job.forget()
        score_block(jobs, self._store, task.block, decode(self._work.outputs, task.block, task.results), task.results)
        return {
            job.spec.name: Part(seconds=job.seconds)
            if job.is_set
            else Part(job.rows, job.passing, job.error, job.missing, job.seconds)
            for job in jobs
        }

    def _add_up(self, task: AddUp) -> tuple[MetricResult | Added, float]:
        job = self._new_job(task.metric, ScoreFiles)
        job.prepare(self._work.clusters)
        job.passing |= task.failed
        for block in task.blocks:
            pairs = [pair for pair in block.pairs if pair.id not in task.failed]
            kept = replace(block, pairs=pairs, outputs={pair.id: block.outputs[pair.id] for pair in pairs})
            if pairs and job.needs(kept.outputs):
                clips = decode(self._work.outputs, kept, task.results)
                score_block([job], self._store, kept, clips, task.results)
        if task.share and job.error is None and len(job.states) > 1:
            path = temporary_name(job.files.state_path)
            with contextlib.suppress(TypeError, OSError):  # without the file, this worker finishes the metric
                save_tree(path, job.states)
                return Added(path, len(job.states), job.rows, job.passing, job.included), job.seconds
        return job.finish(self._work.clusters, task.key), job.seconds

    def _replicate(self, task: Replicate) -> tuple[Mapping[str, Any] | None, float]:
        """The values, or None if they cannot be computed here."""
        job = self._with_states(task.metric, task.added)
        return (None, 0.0) if job is None else (job.values_without(task.left_out), job.seconds)

    def _finish_set(self, task: FinishSet) -> tuple[MetricResult | None, float]:
        job = self._with_states(task.metric, task.added)
        if job is None:
            return None, 0.0
        return job.finish(self._work.clusters, task.key, task.values), job.seconds

    def _with_states(self, name: str, added: Added) -> MetricJob | None:
        """The job of a set metric that has added up all blocks. None if the file of its states cannot be read: it is
        deleted if another worker has died."""
        if self._added is None or self._added[0] != added.states:
            try:
                states = load_tree(added.states)
            except (OSError, ValueError):
                return None
            job = self._new_job(name, ScoreFiles)
            job.states = states
            job.rows, job.passing, job.included = dict(added.rows), dict(added.passing), dict(added.included)
            self._added = (added.states, job)
        job = self._added[1]
        job.seconds = 0.0
        return job

    def _aggregate(self, task: Aggregate) -> tuple[MetricResult, float]:
        job = self._job(task.metric, ScoreFiles)
        job.forget()
        rows = job.files.read_rows(task.outputs)
        job.rows = {pair: row for pair, row in rows.items() if pair not in task.left_out}
        job.passing, job.error, job.missing = dict(task.found.passing), task.found.error, task.found.missing
        return job.finish(self._work.clusters, task.key), job.seconds

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


def start_worker(work: Work) -> _Handler:
    """Prepare a worker process; metrics are loaded when the first block needs them."""
    return _Handler(work)
