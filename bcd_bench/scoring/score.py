"""Scoring: outputs are streamed once through all metrics, batch by batch, with the metrics isolated from each other.

A metric that raises on a batch is retried pair by pair; one that cannot be loaded is recorded with its error; neither
affects other metrics. Rows are written to disk after each batch, so interrupted scoring resumes, and outputs already
scored by the same metric are skipped. Only rows stay in memory, never clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from bcd_bench.assets.hashing import hash_json, hash_json_list
from bcd_bench.assets.store import AssetStore, cache_folder
from bcd_bench.plugin.objects import is_object
from bcd_bench.plugin.specs import MetricSpec
from bcd_bench.run.folder import PairResult, writing
from bcd_bench.run.plan import PIXELS_PER_BATCH, pairs_per_block
from bcd_bench.run.timing import note_timing
from bcd_bench.scoring.blocks import Block, blocks_of, decode, score_block
from bcd_bench.scoring.cache import MetricResult, ScoreFiles
from bcd_bench.scoring.features import FeatureStore
from bcd_bench.scoring.metric_runner import MetricJob, not_scored
from bcd_bench.scoring.parallel import ParallelScoring
from bcd_bench.scoring.provenance import metric_assets, metric_info
from bcd_bench.types.errors import Interrupted, MissingAssetError, UsageError
from bcd_bench.types.suite import Suite
from bcd_bench.util.devices import device_name
from bcd_bench.util.interrupts import Stop, stopping
from bcd_bench.util.progress import NoProgress

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.run.folder import RunFolder
    from bcd_bench.util.pool import PoolOptions
    from bcd_bench.util.progress import Progress, Task

__all__ = ["MetricResult", "check_metrics", "find_assets", "installed_metrics", "missing_assets", "score_run"]

AGGREGATION = 1
"""Bump when the same rows yield different values or intervals, so that results on disk are recomputed."""

T = TypeVar("T")
R = TypeVar("R")


def installed_metrics(registry: Registry, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The default metrics provided by installed plugins, and one line for each of the others.

    A suite may name metrics of optional plugins; if a metric is requested explicitly, a missing plugin is an error.
    """
    claimed = {
        clash.name for clash in registry.clashes if clash.kind == "metrics"
    }  # reported as a separate error later
    installed = [name for name in names if name in registry.metrics or name in claimed]
    return installed, [
        f"default metric {name} is skipped: no installed plugin provides it" for name in names if name not in installed
    ]


def check_metrics(registry: Registry, suite: str, metrics: Iterable[str]) -> list[MetricSpec]:
    """The specs of `metrics`, without duplicates. Raises `UsageError` for unknown metrics and those for other
    suites."""
    specs: list[MetricSpec] = []
    for name in dict.fromkeys(metrics):
        spec: MetricSpec = registry.metric(name)
        if "*" not in spec.suites and suite not in spec.suites:
            raise UsageError(f"metric {name!r} is only for {', '.join(spec.suites)}, not for suite {suite!r}")
        specs.append(spec)
    return specs


def find_assets(registry: Registry, specs: Iterable[MetricSpec]) -> None:
    """Raise `MissingAssetError` if an asset of these metrics or of their extractors is missing or modified."""
    for error in missing_assets(registry, specs).values():
        raise error


def missing_assets(registry: Registry, specs: Iterable[MetricSpec]) -> dict[str, MissingAssetError]:
    """Metric -> one error that lists its missing or modified assets, for metrics with such assets."""
    store = AssetStore(registry)
    errors_by_metric: dict[str, MissingAssetError] = {}
    for spec in specs:
        errors: list[MissingAssetError] = []
        for asset in metric_assets(registry, spec):
            try:
                store.find(asset)
            except MissingAssetError as error:
                errors.append(error)
        if errors:
            hint = "; and ".join(error.hint for error in errors if error.hint)
            errors_by_metric[spec.name] = MissingAssetError("; ".join(map(str, errors)), hint=hint)
    return errors_by_metric


def score_run(
    registry: Registry,
    run: RunFolder,
    metrics: Sequence[str],
    *,
    device: str = "cpu",
    jobs: int = 1,
    pool: PoolOptions | None = None,
    progress: Progress | None = None,
    suite: Suite | None = None,
) -> dict[str, MetricResult]:
    """Score the outputs of a finished run with `metrics` and return their results by name.

    Scores are keyed by output hash and metric identity: stored scores are not recomputed, and if all results are
    stored, neither suite nor metrics are loaded. A metric that failed completely is returned with `info.error` and no
    values; a metric whose asset or package is missing, with `info.missing` and empty columns. Passing `suite` avoids
    rebuilding the run's suite. With `pool`, the work is done by `jobs` worker processes; the results are the same.
    Metrics that are Python objects are always scored in this process.

    If `run` is the part of a shard, its rows and features are stored and the result is empty: only the merged run has
    results. Raises `UsageError` for unknown or unsuitable metrics, an unfinished run, or a folder that cannot be
    written, and `Interrupted` after Ctrl-C or SIGTERM (completed scores are on disk).
    """
    specs, device = check_metrics(registry, run.plan.suite.name, metrics), device_name(device)
    with run.locked(), writing(run.path), _stoppable() as stop:
        pair_results = run.pairs()
        n_pairs = sum(1 for _ in run.indices())
        if len(pair_results) < n_pairs:
            raise UsageError(
                f"{run.path} is not finished ({len(pair_results)} of {n_pairs} pairs)",
                hint="rerun the same run command to continue",
            )
        run.remove_leftovers()
        pair_results = {pair: result for pair, result in pair_results.items() if result.status == "ok"}
        outputs = {pair: result.score_key for pair, result in pair_results.items()}
        scored = hash_json_list([pair.id, outputs.get(pair.id)] for pair in run.plan.pairs)
        results: dict[str, MetricResult | None] = {}
        jobs_by_name: dict[str, tuple[MetricJob, str]] = {}
        missing = missing_assets(registry, specs)
        for spec in specs:
            info = metric_info(registry, spec)
            files = ScoreFiles(run.scores_dir, spec.name, info.identity)
            key = hash_json([info.identity, AGGREGATION, scored])
            results[spec.name] = None if run.shard else files.read_result(key)
            if results[spec.name] is None and spec.name in missing:
                results[spec.name] = not_scored(spec, info, missing[spec.name])
            elif results[spec.name] is None:
                job = MetricJob(spec, info, files, device=device)
                job.rows = files.read_rows(outputs)
                jobs_by_name[spec.name] = (job, key)
        if jobs_by_name:
            pairs = run.plan.suite_pairs(suite or run.suite(registry))
            size = pairs_per_block(run.plan.suite.size, PIXELS_PER_BATCH)
            blocks = list(blocks_of(pairs, outputs, size))
            clusters = [(pair.id, pair.cluster) for pair in pairs]
            elsewhere = {} if pool is None else {n: j for n, j in jobs_by_name.items() if not is_object(j[0].spec)}
            inside = {name: job for name, job in jobs_by_name.items() if name not in elsewhere}
            if inside:
                _stream(
                    registry,
                    run,
                    pair_results,
                    [job for job, _ in inside.values()],
                    clusters,
                    blocks,
                    device,
                    progress,
                    stop,
                )
                if run.shard is None:
                    results |= {name: job.finish(clusters, key) for name, (job, key) in inside.items()}
            if elsewhere:
                assert pool is not None, "only with a pool"
                scoring = ParallelScoring(
                    registry, run, pair_results, outputs, elsewhere, clusters, blocks, device=device
                )
                results |= scoring.run(jobs, pool, progress or NoProgress())
            note_timing(run.part, "score_seconds", {name: job.seconds for name, (job, _) in jobs_by_name.items()})
    return {} if run.shard else {name: result for name, result in results.items() if result is not None}


def _stream(
    registry: Registry,
    run: RunFolder,
    results: Mapping[str, PairResult],
    jobs: Sequence[MetricJob],
    clusters: Sequence[tuple[str, str]],
    blocks: Sequence[Block],
    device: str,
    progress: Progress | None,
    stop: Stop,
) -> None:
    """Process every needed block with every job that needs it, decoding the next block in the background."""
    for job in jobs:
        job.prepare(clusters)
    store = FeatureStore(registry, device=device, root=cache_folder() / "features")
    needed = [block for block in blocks if any(job.needs(block.outputs) for job in jobs)]
    total = sum(len(block.pairs) for block in blocks)
    n_done = total - sum(len(block.pairs) for block in needed)
    reported: set[str] = set()
    with (progress or NoProgress()).task("score", total=total, done=n_done) as task:
        for block, clips in ahead(lambda block: decode(run.outputs_dir, block, results), needed):
            stop.check()  # a metric may have swallowed the interrupt
            score_block(jobs, store, block, clips, results)
            _tell(jobs, reported, task)
            task.advance(len(block.pairs))
        _tell(jobs, reported, task)


def _tell(jobs: Sequence[MetricJob], told: set[str], task: Task) -> None:
    """Report once, as soon as it is known, that a metric has failed."""
    for job in jobs:
        if job.error is not None and job.spec.name not in told:
            told.add(job.spec.name)
            task.message(f"metric {job.spec.name} failed: {job.error}")


def ahead(work: Callable[[T], R], items: Iterable[T]) -> Iterator[tuple[T, R]]:
    """Yield (item, work(item)) in order; the next item is processed in a thread while the caller uses this one."""
    with ThreadPoolExecutor(1, thread_name_prefix="bcd-bench-decode") as pool:
        waiting: tuple[T, Future[R]] | None = None
        for item in items:
            following = (item, pool.submit(work, item))
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = following
        if waiting is not None:
            yield waiting[0], waiting[1].result()


@contextmanager
def _stoppable() -> Iterator[Stop]:
    """Turn Ctrl-C and SIGTERM into `Interrupted`: finished batches are on disk."""
    try:
        with stopping() as stop, stop.into():
            yield stop
            stop.check()
    except KeyboardInterrupt:
        raise Interrupted(
            "interrupted while scoring; completed scores are saved", hint="rerun the same command to resume"
        ) from None
