"""Checks of a record against what is installed here: the suite's pairs, the weights, and the code of the metrics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.assets.store import AssetStore
from bcd_bench.assets.weights import resolve_weights
from bcd_bench.plugin.suites import load_suite
from bcd_bench.results.schema import PairValues, RunRecord
from bcd_bench.run.plan import read_plan
from bcd_bench.scoring.provenance import metric_info
from bcd_bench.types.errors import BcdBenchError, UsageError
from bcd_bench.types.suite import Suite
from bcd_bench.verification.check import Check, failed, passed, skipped

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["check_installed", "find_suite", "find_weights", "known_data"]


def known_data(folder: Path, data: Mapping[str, Path]) -> dict[str, Path]:
    """The `--data` paths of a run: those in its plan, if it has one, changed by `data`."""
    if not (folder / "plan.json").exists():
        return dict(data)
    return {**{name: Path(path) for name, path in read_plan(folder / "plan.json").suite.data.items()}, **data}


def find_suite(registry: Registry, record: RunRecord, data: Mapping[str, Path]) -> Suite:
    """The installed suite with the pairs of the record. Raises `UsageError` if it is another one, and as
    `load_suite`."""
    suite = load_suite(registry, record.suite.name, data)
    if suite.version != record.suite.version:
        raise UsageError(f"version {suite.version} of the suite is installed, the record is of {record.suite.version}")
    if suite.manifest_sha256 != record.suite.manifest_sha256:
        told, own = record.suite.manifest_sha256[:12], suite.manifest_sha256[:12]
        raise UsageError(f"the manifest of the suite is {told} in the record, but {own} here")
    return suite


def check_installed(
    registry: Registry,
    record: RunRecord,
    folder: Path,
    data: Mapping[str, Path] | None = None,
    weights: str | None = None,
) -> list[Check]:
    """The manifest, the pairs and their subjects, the weights, and the code and files of the metrics.

    `weights` names the weights, by default those of the installed method. A different manifest of the same version,
    other pairs, and other weights of the same name are failures. Other code is not: the record may be older than the
    installed plugins, so that nothing can be said ("skipped").
    """
    suite = _suite(registry, record, folder, data or {})
    return [suite, *_weights(registry, record, weights), _metrics(registry, record)]


def _suite(registry: Registry, record: RunRecord, folder: Path, data: Mapping[str, Path]) -> Check:
    name = "suite"
    try:
        known = known_data(folder, data)
        suite = load_suite(registry, record.suite.name, known)
    except BcdBenchError as error:
        hint = f" ({error.hint})" if error.hint else ""
        return skipped(name, f"cannot be built here: {error}{hint}")
    if suite.version != record.suite.version:
        return skipped(name, f"version {suite.version} is installed, the record is of {record.suite.version}")
    try:
        find_suite(registry, record, known)
    except UsageError as error:
        other_data = " (or --data is not that of the run)" if known else ""
        return failed(name, f"{error}{other_data}")
    if len(suite.pairs) != record.suite.n_pairs:
        return failed(name, f"the suite has {len(suite.pairs)} pairs, but {record.suite.n_pairs} in the record")
    try:
        values = PairValues.load(folder)
    except UsageError as error:
        return failed(name, str(error).replace(f"{folder}/", ""))
    if values is not None:
        pairs = suite.pairs[: record.n_pairs]
        clusters = values.cluster_by_pair()
        for position, pair in enumerate(pairs):
            if position >= len(values.pairs) or values.pairs[position] != pair.id:
                return failed(name, f"pair {position} of the suite is {pair.id}, which values.json has not there")
            if clusters[pair.id] != pair.cluster:
                told = clusters[pair.id]
                return failed(name, f"the subject of pair {pair.id} is {pair.cluster}, but {told} in values.json")
    return passed(name, f"manifest {suite.manifest_sha256[:12]}, its pairs and their subjects are those installed")


def find_weights(registry: Registry, record: RunRecord, given: str | None = None) -> str | None:
    """The name or path of the weights of a record: `given`, or those of the installed method with this name or hash.

    None if the record has no weights. Raises `UsageError` if there are none with the recorded hash, and
    `MissingAssetError` if they have to be fetched first.
    """
    method = registry.method(record.method.name)
    for name, sha256 in record.method.weights.items():
        declared = [item.name for item in method.weights if item.name == name or item.sha256 == sha256]
        choices = [given] if given is not None else declared
        if not choices:
            raise UsageError(f"{name} ({sha256[:12]}) are a file of whoever ran it", hint="--weights FILE")
        own = "none"
        for choice in choices:
            found = resolve_weights(method, record.suite.name, choice, AssetStore(registry))
            if found is not None and found.sha256 == sha256:
                return choice
            own = "none" if found is None else found.sha256[:12]
        raise _OtherWeightsError(f"{name} have sha256 {sha256[:12]} in the record, but {own} here")
    return None


class _OtherWeightsError(UsageError):
    """Weights of the recorded name have another hash."""


def _weights(registry: Registry, record: RunRecord, given: str | None) -> list[Check]:
    if not record.method.weights:
        return []
    try:
        choice = find_weights(registry, record, given)
    except _OtherWeightsError as error:
        return [failed("weights", str(error))]
    except BcdBenchError as error:
        return [skipped("weights", f"{error} ({error.hint})" if error.hint else str(error))]
    [sha256, *_] = record.method.weights.values()
    return [passed("weights", f"{sha256[:12]} is the hash of {choice}")]


def _metrics(registry: Registry, record: RunRecord) -> Check:
    same, other, absent = [], [], []
    for name, info in record.metrics.items():
        if info.missing or info.error:
            continue
        spec = registry.metrics.get(name)
        if spec is None:
            absent.append(name)
        elif metric_info(registry, spec).identity == info.identity:
            same.append(name)
        else:
            other.append(name)
    if not other and not absent:
        return passed("metrics", f"{len(same)} scored with the code and files installed here")
    parts = [f"other code or files here: {', '.join(other)}"] if other else []
    parts += [f"not installed: {', '.join(absent)}"] if absent else []
    return skipped("metrics", f"{'; '.join(parts)}; --rescore tells whether values differ")
