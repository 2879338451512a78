"""The stages of a run, in order: plan, generate, score, record, notify the plugins.

`bcd_bench.evaluate` and `bcd-bench run` are both thin layers over `prepare_all` and `run_all`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.plugin.suites import load_suite
from bcd_bench.results.build import write_record
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import generate
from bcd_bench.run.plan import RunPlan, make_plan
from bcd_bench.scoring.score import check_metrics, installed_metrics, missing_assets, score_run
from bcd_bench.types.errors import BcdBenchError, Interrupted, MissingAssetError, UsageError
from bcd_bench.types.suite import Suite

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.util.progress import Progress

__all__ = [
    "Prepared",
    "Runs",
    "assign_settings",
    "default_metrics",
    "finish",
    "prepare",
    "prepare_all",
    "run",
    "run_all",
]


@dataclass(frozen=True)
class Prepared:
    """A run that was checked and has not begun: its plan, its suite, and the names of the metrics to score.

    `missing` tells of each metric that will not be scored which asset it lacks, and the command that mends it.
    """

    plan: RunPlan
    suite: Suite
    metrics: Sequence[str]
    missing: Mapping[str, MissingAssetError] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What the user should know before it begins: the suite's notes, and default metrics that are left out."""


def default_metrics(registry: Registry, suite: Suite, method: str) -> list[str]:
    """What a plain `run` or `score` scores: the suite's metrics, and those of what the method alone can tell."""
    spec = registry.methods.get(method)  # gone, where an old run is scored again
    return list(dict.fromkeys([*suite.default_metrics, *(spec.metrics if spec else ())]))


def prepare(
    registry: Registry,
    method: str,
    suite: str | Suite,
    *,
    weights: str | None = None,
    data: Mapping[str, Path] | None = None,
    config: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: str | None = None,
    strict: bool = False,
) -> Prepared:
    """The plan, the suite and the metrics of a run, with everything checked that can be before the work starts.

    `metrics` None means the suite's default ones and those of the method, as far as they are installed; of these, the
    ones that lack an asset are in `Prepared.missing` and the others are scored, unless `strict`. Raises `UsageError`
    for unknown names and unfit metrics, and `MissingAssetError` for assets and weights that are absent or altered,
    those of metrics that were named (or any, with `strict`) too.
    """
    strict = strict or metrics is not None
    made = load_suite(registry, suite, data) if isinstance(suite, str) else suite
    plan = make_plan(
        registry, method, made, weights=weights, config=config, seed=seed, limit=limit, device=device, dtype=dtype,
        data=data,
    )  # fmt: skip
    left_out: list[str] = []
    if metrics is None:
        metrics, left_out = installed_metrics(registry, default_metrics(registry, made, method))
    specs = check_metrics(registry, made.name, metrics)
    missing = missing_assets(registry, specs)
    if strict:
        for error in missing.values():
            raise error
    return Prepared(plan, made, [spec.name for spec in specs], missing, (*made.notes, *left_out))


def run(
    registry: Registry,
    prepared: Prepared,
    *,
    executor: str = "local",
    jobs: int = 1,
    out: Path = Path("runs"),
    retry_failed: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> RunFolder:
    """Do what `prepare` has prepared below `out`, continuing what an earlier call began; returns the recorded run.

    Failed pairs and failed metrics are in the record and do not raise; lines about plugins whose
    `bcd_bench_run_finished` hook failed go to `warn` (stderr). Raises as `generate.generate` does: `UsageError`,
    `MissingAssetError`, and `Interrupted` after Ctrl-C or SIGTERM.
    """
    plan, suite = prepared.plan, prepared.suite
    folder, _ = generate(
        registry, plan, suite, out, executor=executor, jobs=jobs, retry_failed=retry_failed, progress=progress
    )
    results = score_run(registry, folder, prepared.metrics, device=plan.device, progress=progress, suite=suite)
    write_record(registry, folder, results)
    finish(registry, folder, warn=warn)
    return folder


def assign_settings(
    registry: Registry, methods: Sequence[str], weights: str | None, settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The `weights` and `config` arguments of `prepare` for each of several methods.

    Reference methods get neither. A setting `METHOD.K` is for that method alone and takes precedence over a plain
    `K`, which is for all methods. Raises `UsageError` for unknown methods, for one `weights` and several methods, and
    for a plain setting that only some of several methods have.
    """
    takers = [name for name in methods if not registry.method(name).reference] or list(methods)
    if weights is not None and len(takers) > 1:
        raise UsageError(f"--weights {weights} goes with one method, not with {', '.join(takers)}")
    own: dict[str, dict[str, Any]] = {name: {} for name in methods}
    common: dict[str, Any] = {}
    for key, value in settings.items():
        method, _, setting = key.partition(".")
        if setting and method in own:
            own[method][setting] = value
        else:
            common[key] = value
    for key in common if len(takers) > 1 else ():
        having = [name for name in takers if key in registry.method(name).config]
        if having and len(having) < len(takers):
            without = ", ".join(name for name in takers if name not in having)
            hint = " ".join(f"--set {name}.{key}=…" for name in having)
            raise UsageError(f"--set {key} applies to every method, and {without} has no such setting", hint=hint)
    return {
        name: {"weights": weights, "config": {**common, **own[name]}} if name in takers else {"config": own[name]}
        for name in methods
    }


def prepare_all(
    registry: Registry,
    methods: Sequence[str],
    suite: str | Suite,
    *,
    weights: str | None = None,
    data: Mapping[str, Path] | None = None,
    settings: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Prepared]:
    """`prepare` for several methods, so that every wrong name, setting and missing file is found before the first run.

    The suite is built once. `settings` are as in `assign_settings`, the other options those of `prepare`.
    """
    given = assign_settings(registry, methods, weights, settings or {})
    built = load_suite(registry, suite, data) if isinstance(suite, str) else suite
    return {name: prepare(registry, name, built, data=data, **given[name], **options) for name in methods}


@dataclass
class Runs:
    """The runs of several methods: folders of those that were recorded, and the error of each that was not."""

    folders: list[RunFolder] = field(default_factory=list)
    errors: dict[str, BcdBenchError] = field(default_factory=dict)


def run_all(
    registry: Registry,
    prepared: Mapping[str, Prepared],
    *,
    runs: Runs | None = None,
    on_start: Callable[[str], None] | None = None,
    on_error: Callable[[str, BcdBenchError], None] | None = None,
    **options: Any,
) -> Runs:
    """`run` for each method; one that fails does not stop the others.

    `runs` is filled and returned, so that after `Interrupted`, which passes, it holds the runs that were finished.
    """
    runs = Runs() if runs is None else runs
    for name, one in prepared.items():
        if on_start is not None:
            on_start(name)
        try:
            runs.folders.append(run(registry, one, **options))
        except Interrupted:
            raise
        except BcdBenchError as error:
            runs.errors[name] = error
            if on_error is not None:
                on_error(name, error)
    return runs


def finish(registry: Registry, folder: RunFolder, *, warn: Callable[[str], None] | None = None) -> None:
    """Tell the plugins that a record was written. Their errors become one line each."""
    if not folder.record_path.exists():
        raise UsageError(f"{folder.path} has no record yet", hint=f"bcd-bench score {folder.path}")
    for line in registry.run_finished(folder.path):
        (warn or _to_stderr)(f"warning: after the run, {line}")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
