"""Runs an ablation: trains what has to be trained, runs and scores every variant, and reuses what is unchanged."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.store import AssetStore
from bcd_bench.assets.weights import resolve_weights
from bcd_bench.io.atomic import write_json_atomic
from bcd_bench.plugin.loading import plugin_code
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.pipeline import prepare, run
from bcd_bench.training import training_folder
from bcd_bench.training.checkpoint import first_difference
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.util.progress import Progress
from bcd_bench_bcd.ablations.base import Ablation, Study, Variant
from bcd_bench_bcd.ablations.trainings import WEIGHTS, training_of

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.types.suite import Suite

__all__ = [
    "STATE",
    "WEIGHTS",
    "Job",
    "Outcome",
    "Request",
    "is_trained",
    "plan_jobs",
    "run_jobs",
    "study_of",
    "write_state",
]

STATE = "ablation.json"
"""Describes the ablation in its folder: variants, and the run folder and the weights of each."""


@dataclass(frozen=True)
class Request:
    """What the user asked for."""

    ablation: Ablation
    preset: str
    suite: str
    out: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Changes of the preset, for all variants."""
    seeds: int = 1
    weights: str | None = None
    """Weights of an ablation that does not train; None: the shipped ones, or a training of the preset."""
    variants: tuple[str, ...] = ()
    """Names of the variants to run; empty: all."""
    limit: int | None = None
    device: str = "cpu"
    data: Mapping[str, Path] = field(default_factory=dict)
    max_minutes: float | None = None


@dataclass(frozen=True)
class Job:
    """One variant with one seed: the folder of its training (None: given weights), and its preset."""

    variant: Variant
    seed: int
    folder: Path | None
    overrides: Mapping[str, Any]
    preset: Any
    """A preset of the training, see `training_of`."""


@dataclass
class Outcome:
    """What came of a job: the folder of its run, or the reason why there is none."""

    job: Job
    run: Path | None = None
    error: BcdBenchError | None = None
    unfinished: bool = False
    """Whether a time limit ended it; the next call continues it."""


def study_of(request: Request) -> Study:
    """The variants of the ablation, restricted to those requested, and the claims about them.

    Raises `UsageError` for a preset that the ablation does not apply to, settings that it varies itself, unknown
    variants, rates above the capacity of the codebooks, and settings that contradict each other.
    """
    ablation, training = request.ablation, training_of(request.preset)
    for key in training.varies(ablation):
        if key in request.overrides:
            raise UsageError(
                f"--set {key}: ablation {ablation.name!r} varies this setting itself",
                hint=f"bcd-bench ablate {ablation.name} --preset {request.preset} --dry-run shows its variants",
            )
    study = training.study(ablation, training.resolve(request.preset, request.overrides))
    names = [variant.name for variant in study.variants]
    for name in request.variants:
        if name not in names:
            raise UsageError(
                f"ablation {ablation.name!r} has no variant {name!r}", hint=f"choose from: {', '.join(names)}"
            )
    for variant in study.variants:
        preset = training.resolve(request.preset, {**request.overrides, **variant.overrides})
        try:
            training.check(preset)
        except UsageError as error:
            raise UsageError(f"variant {variant.name}: {error}", hint=error.hint) from None
    chosen = set(request.variants or names)
    return replace(study, variants=tuple(variant for variant in study.variants if variant.name in chosen))


def plan_jobs(request: Request, study: Study, registry: Registry) -> list[Job]:
    """One job per variant and seed.

    Raises `UsageError` if a folder has a training with other settings, and for weights that do not exist.
    """
    if request.weights is not None:
        resolve_weights(registry.method("bcd"), request.suite, request.weights, AssetStore(registry))
    shared = None if request.ablation.trains else _shared_training(request, registry)
    training = training_of(request.preset)
    jobs = []
    for variant in study.variants:
        for seed in range(request.seeds):
            overrides = {**request.overrides, **variant.overrides}
            base = training.resolve(request.preset, overrides)
            seed_of_training = base.train.seed + seed
            preset = training.resolve(request.preset, {**overrides, "train.seed": seed_of_training})
            if request.ablation.trains:
                folder: Path | None = request.out / f"{variant.name}-seed{seed_of_training}"
            else:
                folder = shared and shared.with_name(f"{shared.name}-seed{seed_of_training}")
            job = Job(variant, seed_of_training, folder, {**overrides, "train.seed": seed_of_training}, preset)
            _check_folder(request, job)
            jobs.append(job)
            if folder is None:  # given weights have no seeds
                break
    return jobs


def _shared_training(request: Request, registry: Registry) -> Path | None:
    """The folder, without its seed, in which the preset is trained if an ablation that does not train variants lacks
    weights; None if there are weights."""
    if request.weights is not None or _shipped(request, registry) is not None:
        return None
    return request.out / request.preset


def _shipped(request: Request, registry: Registry) -> str | None:
    """Shipped weights that the preset trained, unless settings of the preset were changed."""
    names = {option.name for option in registry.method("bcd").weights}
    return request.preset if request.preset in names and not request.overrides else None


def _check_folder(request: Request, job: Job) -> None:
    """Raise `UsageError` if the training folder of a job was written with other settings."""
    config = None if job.folder is None else job.folder / "config.json"
    if config is None or not config.exists():
        return
    try:
        trained = json.loads(config.read_text(encoding="utf-8"))["preset"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UsageError(f"{config}: is damaged", hint=f"delete {config.parent} to train this variant again") from None
    asked = training_of(request.preset).settings(job.preset)
    for settings in (trained, asked):
        settings.pop("summary", None)  # a description, which may be reworded
    if json.dumps(trained, sort_keys=True) != json.dumps(asked, sort_keys=True):
        raise UsageError(
            f"{job.folder}: was trained with different settings: {first_difference(trained, asked)}",
            hint="use a different --out, or delete this folder",
        )


def run_jobs(
    request: Request,
    jobs: Sequence[Job],
    registry: Registry,
    *,
    progress: Progress,
    outcomes: list[Outcome] | None = None,
) -> list[Outcome]:
    """Train, run and score the jobs in order; a job that fails does not stop the others.

    Outcomes are added to `outcomes`, so that those of the finished jobs are known even if `Interrupted` is raised.
    """
    outcomes = [] if outcomes is None else outcomes
    # Latents are what training needs; a suite is built from videos.
    suite = load_suite(registry, request.suite, _data_of_suite(request, registry))
    deadline = None if request.max_minutes is None else time.monotonic() + 60 * request.max_minutes
    for job in jobs:
        outcome = Outcome(job)
        outcomes.append(outcome)
        label = f"{job.variant.name}, seed {job.seed}"
        try:
            with plugin_code(label, "failed"):
                if job.folder is not None and not _train(request, job, deadline):
                    outcome.unfinished = True
                    continue
            print(f"run {label}", file=sys.stderr)
            outcome.run = _run(request, job, registry, suite, progress)
        except Interrupted:
            outcomes.pop()
            raise
        except BcdBenchError as error:
            outcome.error = error
            print(f"error: {label}: {' '.join(str(error).split())}", file=sys.stderr)
    return outcomes


def _train(request: Request, job: Job, deadline: float | None) -> bool:
    """Train a job, or continue its training; returns whether it is finished."""
    folder = job.folder
    assert folder is not None
    training = training_of(request.preset)
    if is_trained(request, job):
        return True
    minutes = None if deadline is None else (deadline - time.monotonic()) / 60
    if minutes is not None and minutes <= 0:
        return False
    print(f"train {job.variant.name}, seed {job.seed}: {folder}", file=sys.stderr)
    known = ("latents", *training.data(job.preset))
    with training_folder(folder):
        training.train(
            TrainRequest(
                preset=request.preset,
                overrides=dict(job.overrides),
                out=folder,
                resume=training.has_begun(folder, job.preset),
                max_steps=None,
                max_minutes=minutes,
                device=request.device,
                data={name: path for name, path in request.data.items() if name in known},
                plan_only=False,
                seed=None,
            )
        )
    return is_trained(request, job)


def is_trained(request: Request, job: Job) -> bool:
    """Whether the training of a job is finished."""
    return job.folder is None or training_of(request.preset).is_finished(job.folder, job.preset)


def _data_of_suite(request: Request, registry: Registry) -> dict[str, Path]:
    known = registry.suite(request.suite).data
    return {name: path for name, path in request.data.items() if name in known or name != "latents"}


def _run(request: Request, job: Job, registry: Registry, suite: Suite, progress: Progress) -> Path:
    """Run and score one job with the ordinary engine; finished outputs and scores are reused."""
    if job.folder is not None:
        weights: str | None = str(job.folder / WEIGHTS)
    else:
        weights = request.weights or _shipped(request, registry)
    prepared = prepare(
        registry,
        "bcd",
        suite,
        weights=weights,
        data=_data_of_suite(request, registry),
        config=dict(job.variant.settings),
        limit=request.limit,
        device=request.device,
    )
    return run(registry, prepared, out=request.out / "runs", progress=progress).path


def write_state(request: Request, study: Study, outcomes: Sequence[Outcome]) -> None:
    """Write `ablation.json`, from which figures find the run of each variant."""
    runs: dict[str, dict[str, str | None]] = {}
    for outcome in outcomes:
        run_folder = (
            None if outcome.run is None else outcome.run.resolve().relative_to(request.out.resolve()).as_posix()
        )
        runs.setdefault(outcome.job.variant.name, {})[str(outcome.job.seed)] = run_folder
    body = {
        "format": 1,
        "ablation": request.ablation.name,
        "preset": request.preset,
        "suite": request.suite,
        "overrides": dict(request.overrides),
        "limit": request.limit,
        "weights": request.weights,
        "variants": [
            {
                **variant.to_json(),
                "runs": runs.get(variant.name, {}),
            }
            for variant in study.variants
        ],
    }
    write_json_atomic(request.out / STATE, body)
