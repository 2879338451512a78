"""Draws and scores perturbed targets, in this process or in worker processes.

In workers, the unit of work is one severity of one perturbation over all pairs, so that a set metric adds up its state
in the same order as in one process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bcd_bench.assets.store import cache_folder
from bcd_bench.metric_validation.perturbations import Perturbation
from bcd_bench.metric_validation.sensitivity import Cell, DoseResponse, Taken
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.plugin.protocols import Scored
from bcd_bench.run.plan import PIXELS_PER_BATCH
from bcd_bench.scoring.features import BatchFeatures, FeatureStore, frozen, needed_extractors
from bcd_bench.types.clip import Clip, read_only
from bcd_bench.types.errors import UsageError, one_line
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.open_pool import Pool, open_pool
from bcd_bench.util.pool import DEATHS, PoolOptions
from bcd_bench.util.progress import note_event

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ExtractorSpec, MetricSpec
    from bcd_bench.util.progress import Task

__all__ = ["Step", "Work", "load_responses", "score_here", "score_in_workers", "steps_of"]


@dataclass(frozen=True)
class Step:
    """One severity of a perturbation, or the unperturbed targets (`fault` is None), which all perturbations share."""

    cells: tuple[Cell, ...]
    fault: Perturbation | None
    dose: float
    deaths: int = 0

    @property
    def name(self) -> str:
        return "unperturbed targets" if self.fault is None else f"perturbation {self.fault.name!r} at {self.dose:g}"


@dataclass(frozen=True)
class Work:
    """Everything that a worker needs."""

    metrics: tuple[MetricSpec, ...]
    extractors: tuple[ExtractorSpec, ...]
    faults: tuple[Perturbation, ...]
    pairs: Sequence[Pair]
    size: tuple[int, int]
    seed: int
    device: str

    @classmethod
    def of(
        cls,
        registry: Registry,
        metrics: Sequence[MetricSpec],
        faults: Sequence[Perturbation],
        pairs: Sequence[Pair],
        size: tuple[int, int],
        seed: int,
        device: str,
    ) -> Work:
        """The work on these metrics, with the extractors that they need."""
        extractors = needed_extractors(registry, [name for spec in metrics for name in spec.extractors])
        return cls(tuple(metrics), tuple(extractors), tuple(faults), list(pairs), size, seed, device)


def steps_of(faults: Sequence[Perturbation]) -> list[Step]:
    """Everything that is scored: the unperturbed targets, then every severity of every perturbation."""
    steps = [Step(tuple((fault.name, 0) for fault in faults), None, 0.0)]
    steps += [
        Step(((fault.name, level),), fault, dose) for fault in faults for level, dose in enumerate(fault.doses, 1)
    ]
    return steps


def load_responses(work: Work) -> list[DoseResponse]:
    """Load the metrics. Raises `UsageError`, `MissingAssetError` or `MissingDependencyError` if one cannot be."""
    jobs = []
    for spec in work.metrics:
        scope = PluginScope()
        with plugin_code(f"metric {spec.name!r}", "cannot be loaded"), scope:
            metric = load_factory(spec.factory)()
            metric.load(work.device)
        jobs.append(DoseResponse(spec, metric, scope, work.faults, len(work.pairs)))
    return jobs


def score_here(work: Work, jobs: Sequence[DoseResponse], registry: Registry, task: Task) -> None:
    """Score every step in this process, block by block: the clips of a block stay in memory."""
    store = FeatureStore(registry, device=work.device, root=cache_folder() / "features")
    for start, block in _blocks(work.pairs, work.size):
        for step in steps_of(work.faults):
            _score(jobs, store, block, start, [_draw(pair, step, work.seed) for pair in block], step.cells)
            task.advance(len(block))


def score_in_workers(
    work: Work, responses: Sequence[DoseResponse], jobs: int, options: PoolOptions, task: Task
) -> None:
    """Score every step in `jobs` worker processes. Raises `UsageError` if workers die three times on one step, or it
    takes longer than the time limit per pair times the number of pairs."""
    steps = steps_of(work.faults)
    pool: Pool[Step] = open_pool(
        f"{__name__}:start_worker", work, what="metrics", jobs=min(jobs, len(steps)), options=options
    )
    limit = None if options.timeout is None else options.timeout * len(work.pairs)
    with pool:
        for end in pool.run(iter(steps), lambda step: limit):
            for kind, details in pool.events:
                note_event(task, kind, **details)
            pool.events.clear()
            if end.error is not None:
                raise end.error
            if end.lost is not None:
                if end.timed_out or end.task.deaths + 1 >= DEATHS:
                    reason = f"took more than {limit:g} s" if end.timed_out else f"failed {DEATHS} times: {end.lost}"
                    raise UsageError(f"scoring {end.task.name} {reason}", hint="name single metrics with --metric")
                pool.again(replace(end.task, deaths=end.task.deaths + 1))
                continue
            for response, taken in zip(responses, end.value, strict=True):
                response.join(taken)
            task.advance(len(work.pairs))


class _Handler:
    """The state of a worker: the loaded metrics and extractors."""

    def __init__(self, work: Work) -> None:
        from bcd_bench.plugin.registry import Registry

        self._work, self._jobs = work, load_responses(work)
        registry = Registry(extractors={spec.name: spec for spec in work.extractors})
        self._store = FeatureStore(registry, device=work.device, root=cache_folder() / "features")

    def __call__(self, step: Step) -> list[Taken]:
        for start, block in _blocks(self._work.pairs, self._work.size):
            clips = [_draw(pair, step, self._work.seed) for pair in block]
            _score(self._jobs, self._store, block, start, clips, step.cells)
        return [job.taken(step.cells) for job in self._jobs]


def start_worker(work: Work) -> _Handler:
    """Load the metrics in a worker process."""
    return _Handler(work)


def _blocks(pairs: Sequence[Pair], size: tuple[int, int]) -> Iterator[tuple[int, Sequence[Pair]]]:
    """Yield batches of pairs whose frames fit in memory, with the index of the first pair."""
    count = max(1, PIXELS_PER_BATCH // (size[0] * size[1]))
    for start in range(0, len(pairs), count):
        yield start, pairs[start : start + count]


def _draw(pair: Pair, step: Step, seed: int) -> Clip | Failed:
    try:
        if step.fault is not None:
            with PluginScope():
                return read_only(step.fault.apply(pair, step.dose, seed))
        assert pair.target is not None, "checked by validate"
        return pair.target.load()
    except BaseException as error:  # if a target cannot be rendered, only its pair fails
        if not raised_by_plugin(error):
            raise
        return Failed(one_line(error, place=False))


def _score(
    jobs: Sequence[DoseResponse],
    store: FeatureStore,
    pairs: Sequence[Pair],
    start: int,
    clips: Sequence[Clip | Failed],
    cells: Sequence[Cell],
) -> None:
    for job in jobs:
        job.failures |= {clip.reason for clip in clips if isinstance(clip, Failed)}
    # Split at failures, so that a job receives consecutive pairs.
    index = 0
    while index < len(pairs):
        stop = index
        while stop < len(pairs) and isinstance(clips[stop], Clip):
            stop += 1
        outputs = [clip for clip in clips[index:stop] if isinstance(clip, Clip)]
        if outputs:
            features = BatchFeatures(store, pairs[index:stop], outputs)
            for job in jobs:
                items = [
                    Scored(pair, clip, features.of(position, job.spec.extractors), frozen(clip.info or {}))
                    for position, (pair, clip) in enumerate(zip(pairs[index:stop], outputs, strict=True))
                ]
                job.take(items, start + index, cells)
        index = stop + 1
