"""Validation of metrics: perturbations of known severity are applied to ground-truth targets and scored by each metric.

A metric that measures the perturbed aspect should rank the severities; any other metric should not react. If a suite
knows the true error (`perturbations.TRUTH_KEY`), the measured column is compared with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcd_bench.metric_validation.doses import Work, load_responses, score_here, score_in_workers
from bcd_bench.metric_validation.perturbations import GENERAL, Perturbation
from bcd_bench.metric_validation.sensitivity import Agreement, Reaction
from bcd_bench.run.environment import environment
from bcd_bench.scoring.missing_metrics import not_scored
from bcd_bench.scoring.provenance import metric_info
from bcd_bench.scoring.score import check_metrics, installed_metrics, missing_assets
from bcd_bench.types.errors import UsageError
from bcd_bench.types.suite import Suite
from bcd_bench.util.devices import device_name
from bcd_bench.util.progress import NoProgress

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.util.pool import PoolOptions
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
    jobs: int = 1,
    pool: PoolOptions | None = None,
    progress: Progress | None = None,
) -> Validation:
    """Score the targets of `suite` (of its first `limit` pairs) under every perturbation and severity with `metrics`.

    If `metrics` is None, the suite's default metrics are used, except those with a missing asset or plugin, which are
    listed in `notes`. Features of perturbed clips are cached, so repeated calls are fast. With `pool`, the work is done
    by `jobs` worker processes; the results are the same. Raises `UsageError` for
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
    work = Work.of(registry, specs, selected, pairs, suite.size, seed, device)
    responses = load_responses(work)
    steps = 1 + sum(len(fault.doses) for fault in selected)
    with (progress or NoProgress()).task("validate", total=len(pairs) * steps, unit="clips") as task:
        if pool is None:
            score_here(work, responses, registry, task)
        else:
            score_in_workers(work, responses, jobs, pool, task)
    clusters = [pair.cluster for pair in pairs]
    reactions = tuple(reaction for job in responses for reaction in job.reactions(selected, clusters))
    return Validation(
        suite=suite.name,
        suite_version=suite.version,
        manifest_sha256=suite.manifest_sha256,
        n_pairs=len(pairs),
        seed=seed,
        reactions=reactions,
        agreements=tuple(agreement for job in responses for agreement in job.agreements(clusters)),
        metrics={spec.name: metric_info(registry, spec).model_dump(mode="json") for spec in specs},
        environment=environment(registry, device=device),
        notes=(
            *left_out,
            *not_scored((name, str(error)) for name, error in missing.items()),
            *(f"{job.spec.name}: {note}" for job in responses for note in sorted(job.failures)),
        ),
    )
