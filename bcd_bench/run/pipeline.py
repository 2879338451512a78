"""The stages of a run, in order: plan, generate, score, record, notify the plugins.

`bcd_bench.evaluate` and `bcd-bench run` are both thin wrappers around `prepare_all` and `run_all`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.store import AssetStore
from bcd_bench.assets.weights import default_note
from bcd_bench.plugin.suites import load_suite
from bcd_bench.results.build import write_record
from bcd_bench.run.elsewhere import run_elsewhere
from bcd_bench.run.executors import check_executor, optional_pool, with_executor
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import generate
from bcd_bench.run.merge import mark_done, merge, unfinished, unmark_done
from bcd_bench.run.plan import RunPlan, make_plan
from bcd_bench.scoring.score import check_metrics, installed_metrics, missing_assets, score_run
from bcd_bench.types.errors import BcdBenchError, Interrupted, MissingAssetError, UsageError
from bcd_bench.types.suite import Suite
from bcd_bench.util.collector import collector_paused
from bcd_bench.util.locking import LockedError
from bcd_bench.util.machine import default_jobs
from bcd_bench.util.pool import PoolOptions

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import ExecutorSpec
    from bcd_bench.run.shard import Shard
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
    """A run that was checked but not started: its plan, its suite, and the names of the metrics to score.

    `missing` maps each metric that will not be scored to the error for its missing asset; the hint has the fix.
    """

    plan: RunPlan
    suite: Suite
    metrics: Sequence[str]
    missing: Mapping[str, MissingAssetError] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Notes for the user before the run starts: those of the suite, and default metrics that are not installed."""


def default_metrics(registry: Registry, suite: Suite, method: str) -> list[str]:
    """The metrics that `run` and `score` use by default: the suite's metrics and the method's own metrics."""
    spec = registry.methods.get(method)  # None if an old run is rescored without its method's plugin
    return list(dict.fromkeys([*suite.default_metrics, *(spec.metrics if spec else ())]))


@collector_paused()
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
    pairs: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    dtype: str | None = None,
    strict: bool = False,
) -> Prepared:
    """Plan a run and check everything that can be checked before it starts.

    By default `metrics` are those of the suite and the method, as far as they are installed. Default metrics with a
    missing asset are not scored and listed in `Prepared.missing`, unless `strict`. Raises `UsageError` for unknown
    names and metrics that do not fit the suite. Raises `MissingAssetError` for missing or altered weights and assets,
    including assets of metrics if `metrics` or `strict` is set.
    """
    strict = strict or metrics is not None
    built = load_suite(registry, suite, data) if isinstance(suite, str) else suite
    plan = make_plan(
        registry, method, built, weights=weights, config=config, seed=seed, limit=limit, device=device, dtype=dtype,
        data=data, pairs=pairs,
    )  # fmt: skip
    left_out: list[str] = []
    note = ""
    if weights is None and plan.weights is not None:
        note = default_note(registry.method(method), built.name, AssetStore(registry))
    if metrics is None:
        metrics, left_out = installed_metrics(registry, default_metrics(registry, built, method))
    specs = check_metrics(registry, built.name, metrics)
    missing = missing_assets(registry, specs)
    if strict:
        for error in missing.values():
            raise error
    notes = (*built.notes, *([note] if note else []), *left_out)
    return Prepared(plan, built, [spec.name for spec in specs], missing, notes)


def run(
    registry: Registry,
    prepared: Prepared,
    *,
    executor: str = "local",
    jobs: int = 1,
    pool: PoolOptions | None = None,
    shard: Shard | None = None,
    out: Path = Path("runs"),
    retry_failed: bool = False,
    progress: Progress | None = None,
    warn: Callable[[str], None] | None = None,
) -> RunFolder:
    """Run what `prepare` returned below `out`, and resume it if an earlier call was interrupted. Returns the recorded
    run.

    With `pool`, `jobs` worker processes generate (by the executor) and score; `pool=None` with one job does everything
    in this process. With `shard`, only that part is generated and scored; the result is the merged run if this was the
    last shard, else the part (`RunFolder.shard` is set), which has no record.

    Failed pairs and failed metrics are recorded and do not raise. `warn` (default: print to stderr) is called for every
    plugin whose `bcd_bench_run_finished` hook failed. Raises as `generate.generate` does: `UsageError`,
    `MissingAssetError`, and `Interrupted` after Ctrl-C or SIGTERM.
    """
    plan, suite = prepared.plan, prepared.suite
    spec = registry.executor(executor)
    if pool is None and jobs > 1:
        pool = PoolOptions()
    check_executor(spec, timeout=None if pool is None else pool.timeout)
    if spec.shards:
        options = with_executor(spec, pool or PoolOptions())
        return _run_shards(registry, prepared, spec, jobs, options, out, shard, retry_failed, progress, warn)
    pool = optional_pool(spec, pool)
    if shard is not None and _merged(out / plan.folder):
        return _finished_run(RunFolder(out / plan.folder), prepared.metrics, retry_failed=retry_failed)
    if shard is not None and retry_failed:
        unmark_done(out / plan.folder, shard)
    folder, _ = generate(
        registry,
        plan,
        suite,
        out,
        executor=executor,
        jobs=jobs,
        pool=pool,
        shard=shard,
        retry_failed=retry_failed,
        progress=progress,
    )
    # Executors that only run batches may use other machines, so scoring takes what this one has.
    here = jobs if executor == "local" or spec.pool else min(jobs, default_jobs())
    scoring: dict[str, Any] = {"jobs": here, "pool": pool, "progress": progress, "suite": suite}
    results = score_run(registry, folder, prepared.metrics, device=plan.device, **scoring)
    if shard is None:
        write_record(registry, folder, results)
    else:
        mark_done(folder, prepared.metrics)
        merged = _merge_if_last(registry, folder, plan.device, scoring)
        if merged is None:
            return folder
        folder = merged
    finish(registry, folder, warn=warn)
    return folder


def _run_shards(
    registry: Registry,
    prepared: Prepared,
    spec: ExecutorSpec,
    jobs: int,
    pool: PoolOptions,
    out: Path,
    shard: Shard | None,
    retry_failed: bool,
    progress: Progress | None,
    warn: Callable[[str], None] | None,
) -> RunFolder:
    """`run` with an executor that runs whole shards. What needs no shards (a run that is merged) is done here."""
    if shard is not None:
        raise UsageError(
            f"--shard and --executor {spec.name} exclude each other: this executor makes the shards itself"
        )
    plan, suite = prepared.plan, prepared.suite

    def here() -> dict[str, Any]:
        options = replace(pool, factory="", settings={})
        return {"jobs": default_jobs(), "pool": options, "progress": progress}

    if not _merged(out / plan.folder):
        merged_here = run_elsewhere(
            registry, spec, plan, suite, prepared.metrics, out,
            jobs=jobs, pool=pool, retry_failed=retry_failed, progress=progress, merging=here,
        )  # fmt: skip
        folder = RunFolder(out / plan.folder)
        if merged_here:
            finish(registry, folder, warn=warn)
        return folder
    folder = RunFolder(out / plan.folder)
    if retry_failed and any(result.status == "failed" for result in folder.pairs().values()):
        raise UsageError(f"{folder.path} is merged", hint="--executor local retries its failed pairs")
    results = score_run(registry, folder, prepared.metrics, device=plan.device, suite=suite, **here())
    write_record(registry, folder, results)
    finish(registry, folder, warn=warn)
    return folder


def _merged(path: Path) -> bool:
    """Whether a run has all pairs and a record, and no shards."""
    if not (path / "plan.json").exists():
        return False
    run = RunFolder(path)
    return run.record_path.exists() and run.complete and not run.shards()


def _finished_run(run: RunFolder, metrics: Sequence[str], *, retry_failed: bool) -> RunFolder:
    """A run whose shards are merged. Raises `UsageError` if there is something left that a shard cannot do."""
    lacking = [name for name in metrics if name not in (run.record() or {}).get("metrics", {})]
    if lacking:
        raise UsageError(
            f"{run.path} is merged, without metric {', '.join(lacking)}",
            hint=f"bcd-bench score {run.path} --metric {','.join(lacking)}",
        )
    if retry_failed and any(result.status == "failed" for result in run.pairs().values()):
        raise UsageError(f"{run.path} is merged", hint="run the same command without --shard to retry failed pairs")
    return run


def _merge_if_last(registry: Registry, part: RunFolder, device: str, scoring: Mapping[str, Any]) -> RunFolder | None:
    """Merge the run if all shards are finished and no other one is merging it; else None."""
    try:
        if unfinished(part.root()):
            return None
        return merge(registry, part.path, device=device, **scoring)
    except LockedError:
        return None
    except UsageError:
        if _merged(part.path):  # by another shard that finished at the same moment
            return None
        raise


def assign_settings(
    registry: Registry, methods: Sequence[str], weights: str | None, settings: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """The `weights` and `config` arguments of `prepare` for each of several methods.

    Reference methods get neither. A setting `METHOD.K` applies only to that method and takes precedence over a
    plain `K`, which applies to all methods. Raises `UsageError` for unknown methods, for `weights` together with
    several methods, and for a plain setting that only some of the methods have.
    """
    configurable = [name for name in methods if not registry.method(name).reference] or list(methods)
    if weights is not None and len(configurable) > 1:
        raise UsageError(f"--weights {weights} applies to a single method, not to {', '.join(configurable)}")
    specific: dict[str, dict[str, Any]] = {name: {} for name in methods}
    common: dict[str, Any] = {}
    for key, value in settings.items():
        method, _, setting = key.partition(".")
        if setting and method in specific:
            specific[method][setting] = value
        else:
            common[key] = value
    for key in common if len(configurable) > 1 else ():
        having = [name for name in configurable if key in registry.method(name).config]
        if having and len(having) < len(configurable):
            without = ", ".join(name for name in configurable if name not in having)
            hint = " ".join(f"--set {name}.{key}=…" for name in having)
            raise UsageError(f"--set {key} applies to every method, but {without} does not have it", hint=hint)
    return {
        name: {"weights": weights, "config": {**common, **specific[name]}}
        if name in configurable
        else {"config": specific[name]}
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
    """Prepare several methods, so that wrong names, wrong settings and missing files are found before the first run.

    The suite is built only once. `settings` are as in `assign_settings`, and the other options as in `prepare`.
    """
    arguments = assign_settings(registry, methods, weights, settings or {})
    built = load_suite(registry, suite, data) if isinstance(suite, str) else suite
    return {name: prepare(registry, name, built, data=data, **arguments[name], **options) for name in methods}


@dataclass
class Runs:
    """The runs of several methods: the folders of recorded runs, and the errors of the other methods."""

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
    """Call `run` for each method; a method that fails does not stop the others.

    Results are added to `runs`, so that it contains the finished runs even if `Interrupted` is raised.
    """
    runs = Runs() if runs is None else runs
    for name, method_run in prepared.items():
        if on_start is not None:
            on_start(name)
        try:
            runs.folders.append(run(registry, method_run, **options))
        except Interrupted:
            raise
        except BcdBenchError as error:
            runs.errors[name] = error
            if on_error is not None:
                on_error(name, error)
    return runs


def finish(registry: Registry, folder: RunFolder, *, warn: Callable[[str], None] | None = None) -> None:
    """Notify the plugins that a record was written. `warn` is called with one line for each plugin that fails."""
    if not folder.record_path.exists():
        raise UsageError(f"{folder.path} has no record yet", hint=f"bcd-bench score {folder.path}")
    for line in registry.run_finished(folder.path):
        (warn or _to_stderr)(f"warning: after the run, {line}")


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
