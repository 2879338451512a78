"""Validation of metrics: perturbations of known severity are applied to ground-truth targets and scored by each metric.

A metric that measures the perturbed aspect should rank the severities; any other metric should not react. If a suite
knows the true error (`perturbations.TRUTH_KEY`), the measured column is compared with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.store import cache_folder
from bcd_bench.metric_validation.perturbations import GENERAL, Perturbation
from bcd_bench.metric_validation.sensitivity import Agreement, Cell, DoseResponse, Reaction
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.plugin.protocols import Scored
from bcd_bench.run.environment import environment
from bcd_bench.run.plan import PIXELS_PER_BATCH
from bcd_bench.scoring.features import BatchFeatures, FeatureStore, frozen
from bcd_bench.scoring.missing_metrics import not_scored
from bcd_bench.scoring.provenance import metric_info
from bcd_bench.scoring.score import check_metrics, installed_metrics, missing_assets
from bcd_bench.types.clip import Clip, read_only
from bcd_bench.types.errors import UsageError, one_line
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench.util.devices import device_name
from bcd_bench.util.progress import NoProgress

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.util.progress import Progress

__all__ = ["Validation", "validate"]


@dataclass(frozen=True)
class Validation:
    """Results of `validate` and their provenance."""

    suite: str
    suite_version: str
    manifest_sha256: str
    n_pairs: int
    seed: int
    reactions: tuple[Reaction, ...]
    agreements: tuple[Agreement, ...]
    metrics: Mapping[str, Any]
    environment: Mapping[str, Any]
    notes: tuple[str, ...]


def _choose(suite: Suite, wanted: Sequence[str] | None) -> tuple[Perturbation, ...]:
    available = {perturbation.name: perturbation for perturbation in (*suite.perturbations, *GENERAL)}
    for name in wanted or ():
        if name not in available:
            raise UsageError(
                f"unknown perturbation {name!r} of suite {suite.name!r}; available: {', '.join(available)}"
            )
    return tuple(available[name] for name in (wanted or available))


def validate(
    registry: Registry,
    suite: Suite,
    metrics: Sequence[str] | None = None,
    *,
    perturbations: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Validation:
    """Score the targets of `suite` (of its first `limit` pairs) under every perturbation and severity with `metrics`.

    If `metrics` is None, the suite's default metrics are used, except those with a missing asset or plugin, which are
    listed in `notes`. Features of perturbed clips are cached, so repeated calls are fast. Raises `UsageError` for
    unknown names and for suites without targets, `MissingAssetError` if an explicitly named metric lacks an asset.
    """
    device = device_name(device)
    pairs = [suite.pairs[index] for index in range(min(len(suite.pairs), limit or len(suite.pairs)))]
    missing_target = next((pair.id for pair in pairs if pair.target is None), None)
    if missing_target is not None or not pairs:
        raise UsageError(
            f"suite {suite.name!r} has no ground-truth targets to perturb (pair {missing_target})",
            hint="bcd-bench validate-metrics --suite sprites-procedural",
        )
    selected = _choose(suite, perturbations)
    names, left_out = (metrics, []) if metrics is not None else installed_metrics(registry, suite.default_metrics)
    specs = check_metrics(registry, suite.name, names)
    missing = missing_assets(registry, specs)
    if metrics is not None:
        for error in missing.values():
            raise error
    specs = [spec for spec in specs if spec.name not in missing]
    jobs = []
    for spec in specs:
        scope = PluginScope()
        with plugin_code(f"metric {spec.name!r}", "cannot be loaded"), scope:
            metric = load_factory(spec.factory)()
            metric.load(device)
        jobs.append(DoseResponse(spec, metric, scope, selected, len(pairs)))
    store = FeatureStore(registry, device=device, root=cache_folder() / "features")
    steps = 1 + sum(len(fault.doses) for fault in selected)
    with (progress or NoProgress()).task("validate", total=len(pairs) * steps, unit="clips") as task:
        for start, block in _blocks(pairs, suite.size):
            for cells, clips in _doses(block, selected, seed):
                _score(jobs, store, block, start, clips, cells)
                task.advance(len(block))
    clusters = [pair.cluster for pair in pairs]
    reactions = tuple(reaction for job in jobs for reaction in job.reactions(selected, clusters))
    return Validation(
        suite=suite.name,
        suite_version=suite.version,
        manifest_sha256=suite.manifest_sha256,
        n_pairs=len(pairs),
        seed=seed,
        reactions=reactions,
        agreements=tuple(agreement for job in jobs for agreement in job.agreements(clusters)),
        metrics={spec.name: metric_info(registry, spec).model_dump(mode="json") for spec in specs},
        environment=environment(registry, device=device),
        notes=(
            *left_out,
            *not_scored((name, str(error)) for name, error in missing.items()),
            *(f"{job.spec.name}: {note}" for job in jobs for note in sorted(job.failures)),
        ),
    )


def _blocks(pairs: Sequence[Pair], size: tuple[int, int]) -> Iterator[tuple[int, Sequence[Pair]]]:
    """Yield batches of pairs whose frames fit in memory, with the index of the first pair."""
    count = max(1, PIXELS_PER_BATCH // (size[0] * size[1]))
    for start in range(0, len(pairs), count):
        yield start, pairs[start : start + count]


def _doses(
    block: Sequence[Pair], faults: Sequence[Perturbation], seed: int
) -> Iterator[tuple[list[Cell], list[Clip | Failed]]]:
    """Yield the unperturbed targets of the block, then every perturbation and severity, each with its cells."""
    yield [(fault.name, 0) for fault in faults], [_draw(pair, None, 0.0, seed) for pair in block]
    for fault in faults:
        for level, dose in enumerate(fault.doses, 1):
            yield [(fault.name, level)], [_draw(pair, fault, dose, seed) for pair in block]


def _draw(pair: Pair, fault: Perturbation | None, dose: float, seed: int) -> Clip | Failed:
    try:
        if fault is not None:
            with PluginScope():
                return read_only(fault.apply(pair, dose, seed))
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
