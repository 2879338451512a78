"""Creation of the record of a run: metric values and complete provenance."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench import __version__
from bcd_bench.assets.hashing import hash_json_list
from bcd_bench.io.atomic import write_text_atomic
from bcd_bench.results.schema import (
    RECORD_NAME,
    VALUES_NAME,
    MethodInfo,
    MetricInfo,
    PairValues,
    Provenance,
    RunRecord,
    SuiteInfo,
    Value,
    load_record,
)
from bcd_bench.run.folder import writing
from bcd_bench.run.timing import note_timing
from bcd_bench.scoring.features import extractor_assets, needed_extractors
from bcd_bench.scoring.provenance import plugin_origin, restrictions
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import MethodSpec
    from bcd_bench.run.folder import RunFolder
    from bcd_bench.run.plan import PlannedWeights
    from bcd_bench.scoring.cache import MetricResult

__all__ = ["build_record", "write_record"]


def build_record(
    registry: Registry, run: RunFolder, results: Mapping[str, MetricResult]
) -> tuple[RunRecord, PairValues | None]:
    """Build the record of a finished run from its metric results, and the corresponding per-pair values.

    Metrics of an earlier record of the same outputs that are not in `results` are kept, and all metrics stay in the
    order in which they were first scored, so that rescoring changes nothing. From the second metric on, a column name
    shared by two metrics is prefixed with the metric's name ("metric.column"). A metric that cannot be scored now
    because an asset or package is missing keeps its values from the earlier record.
    """
    plan, pairs, env = run.plan, run.pairs(), run.env()
    outputs = hash_json_list([pair.id, pairs[pair.id].score_key if pair.id in pairs else None] for pair in plan.pairs)
    earlier, frame = _earlier(run.path, outputs)
    scored_before = {name for name, info in earlier.metrics.items() if not info.error} if earlier else set()
    results = {name: result for name, result in results.items() if not (result.info.missing and name in scored_before)}
    earlier_values, before_pairs = earlier.values if earlier else {}, frame.columns if frame else {}
    metrics = {**(earlier.metrics if earlier else {}), **{name: result.info for name, result in results.items()}}
    values: dict[str, Value] = {}
    columns: dict[str, list[float | None]] = {}
    for name in dict.fromkeys([*(value.metric for value in earlier_values.values()), *results]):
        if name not in results:
            retained = {key: value for key, value in earlier_values.items() if value.metric == name}
            values |= retained
            columns |= {key: before_pairs[key] for key in retained if key in before_pairs}
            continue
        result = results[name]
        for column, value in result.values.items():
            key = column if column not in values else f"{name}.{column}"
            values[key] = value
            if result.pair_values is not None and column in result.pair_values.columns:
                columns[key] = result.pair_values.columns[column]
                frame = result.pair_values
    git = env.pop("git", None)
    env.pop("plugins", None)
    failed = [result.error or "failed" for result in pairs.values() if result.status == "failed"]
    record = RunRecord(
        run_id=plan.run_id,
        suite=SuiteInfo(**{key: getattr(plan.suite, key) for key in ("name", "version", "manifest_sha256", "n_pairs")}),
        method=MethodInfo(
            name=plan.method.name,
            version=plan.method.version,
            config=plan.identity["method"]["config"],  # contains no local folders, if the method avoids them
            weights={} if plan.weights is None else {plan.weights.name: plan.weights.sha256},
            recipe=None if plan.weights is None else plan.weights.recipe,
            reference=plan.method.reference,
        ),
        limit=plan.limit,
        seeded=plan.seeded,
        unhashed=plan.unhashed,
        seed=plan.seed,
        device=plan.device,
        dtype=plan.dtype,
        n_pairs=len(plan.pairs),
        n_failed=len(failed),
        failures=dict(sorted(Counter(failed).items())),
        outputs_sha256=outputs,
        values=values,
        metrics=dict(sorted(metrics.items())),
        provenance=Provenance(
            bcd_bench=env.pop("bcd_bench", __version__),
            git=git,
            plugins=_plugins(registry, run, metrics),
            environment=env,
            restrictions=_restrictions(registry, run, metrics),
        ),
    )
    return record, None if frame is None else frame.model_copy(update={"columns": columns})


def write_record(registry: Registry, run: RunFolder, results: Mapping[str, MetricResult]) -> RunRecord:
    """Build the record and write `values.json`, `timing.json` and, last, `record.json`, each atomically.

    Raises `UsageError` if the folder cannot be written.
    """
    record, values = build_record(registry, run, results)
    with writing(run.path):
        if values is not None:
            write_text_atomic(run.path / VALUES_NAME, values.to_json())
        seconds = sum(result.seconds for result in run.pairs().values())
        note_timing(run.path, "generate_seconds", round(seconds, 3))
        write_text_atomic(run.path / RECORD_NAME, record.to_json())
    return record


def _earlier(folder: Path, outputs_sha256: str) -> tuple[RunRecord | None, PairValues | None]:
    """The existing record in `folder` and its values, if they belong to exactly the same outputs."""
    try:
        record = load_record(folder / RECORD_NAME)
    except UsageError:
        return None, None  # missing or of a different version: rebuild everything from the scores
    if record.outputs_sha256 != outputs_sha256:
        return None, None
    with contextlib.suppress(UsageError):  # damaged: keep the values of the record
        return record, PairValues.load(folder)
    return record, None


def _plugins(registry: Registry, run: RunFolder, metrics: Mapping[str, MetricInfo]) -> dict[str, dict[str, str]]:
    """The plugins involved: those of method and metrics as they were when used, that of the suite in its current
    state."""
    method = run.plan.method
    origins = [
        {
            "name": method.plugin,
            "dist": method.dist,
            "version": method.dist_version,
            "source_sha256": method.source_sha256,
        }
    ]
    needed = needed_extractors(registry, _features_of(registry, registry.methods.get(method.name)))
    origins += [plugin_origin(registry.owner("extractors", spec.name)) for spec in needed]
    if run.plan.suite.name in registry.suites:
        origins.append(plugin_origin(registry.owner("suites", run.plan.suite.name)))
    origins += [info.plugin for info in metrics.values()]
    plugins: dict[str, dict[str, str]] = {}
    for origin in origins:
        if origin:
            plugins.setdefault(origin["name"], {key: value for key, value in origin.items() if key != "name"})
    return dict(sorted(plugins.items()))


def _features_of(registry: Registry, method: MethodSpec | None) -> list[str]:
    """The installed extractors that a method requires; an old run may be scored without the others."""
    return [name for name in (method.extractors if method else ()) if name in registry.extractors]


def _weight_assets(registry: Registry, method: MethodSpec, used: PlannedWeights) -> list[str]:
    """The assets used as weights of a run: by name, or, for a file given by path, the assets it replaces because it is
    the same file or the asset accepts any file."""
    named = {weights.name: weights.asset for weights in method.weights}
    if used.name in named:
        return [asset for asset in (named[used.name],) if asset]
    specs = [registry.assets[asset] for asset in named.values() if asset in registry.assets]
    return [spec.name for spec in specs if spec.sha256 == used.sha256 or not any((spec.sha256, *spec.files.values()))]


def _restrictions(registry: Registry, run: RunFolder, metrics: Mapping[str, MetricInfo]) -> list[str]:
    """Licence restrictions of every asset that the method, its weights, the suite and the metrics use."""
    method, suite = registry.methods.get(run.plan.method.name), registry.suites.get(run.plan.suite.name)
    assets = [*(method.assets if method else ()), *(suite.assets if suite else ())]
    assets += extractor_assets(registry, _features_of(registry, method))
    if method is not None and run.plan.weights is not None:
        assets += _weight_assets(registry, method, run.plan.weights)
    scored = [line for info in metrics.values() for line in info.restrictions]
    return sorted({*restrictions(registry, assets), *scored})
