"""Provenance of a metric before scoring: its identity, its assets, and its entry in a record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.hashing import hash_json, sha256_files
from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.specs import MetricSpec
from bcd_bench.results.schema import MetricInfo
from bcd_bench.scoring.features import extractor_assets, needed_extractors

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import PluginInfo, Registry

__all__ = ["metric_assets", "metric_identity", "metric_info", "plugin_origin", "restrictions"]


def metric_identity(registry: Registry, spec: MetricSpec) -> str:
    """Hash of everything that determines a metric's rows: its version, its plugin's files, its assets, its extractors.

    Shipped weights are included through the plugin's files, so nothing has to be imported to check whether stored rows
    are valid.
    """
    extractors = {item.name: item for item in needed_extractors(registry, spec.extractors)}
    return hash_json(
        {
            "name": spec.name,
            "version": spec.version,
            "plugin": _plugin(registry, "metrics", spec),
            "assets": _assets(registry, spec.assets),
            "extractors": {
                name: [item.version, _plugin(registry, "extractors", item), _assets(registry, item.assets)]
                for name, item in extractors.items()
            },
        },
        16,
    )


def metric_info(registry: Registry, spec: MetricSpec) -> MetricInfo:
    """The entry of a metric in a record before scoring."""
    owner = registry.owner("metrics", spec.name)
    assets = metric_assets(registry, spec)
    return MetricInfo(
        version=spec.version,
        identity=metric_identity(registry, spec),
        plugin=plugin_origin(owner),
        assets=_chosen_files(registry, assets),
        restrictions=restrictions(registry, assets),
    )


def metric_assets(registry: Registry, spec: MetricSpec) -> list[str]:
    """The assets of a metric and of every extractor it needs, without duplicates."""
    return list(dict.fromkeys([*spec.assets, *extractor_assets(registry, spec.extractors)]))


def plugin_origin(owner: PluginInfo) -> dict[str, str]:
    """A plugin in the form used by records."""
    return {"name": owner.name, "dist": owner.dist, "version": owner.version, "source_sha256": owner.source_sha256}


def restrictions(registry: Registry, assets: Iterable[str]) -> list[str]:
    """The licence restrictions of these assets, one line each, sorted."""
    restricted = {name: registry.assets[name].restricted for name in assets if name in registry.assets}
    return sorted(f"{name}: {text}" for name, text in restricted.items() if text)


def _assets(registry: Registry, names: Sequence[str]) -> dict[str, Any]:
    specs = {name: registry.asset(name) for name in names}
    files_in_use = _chosen_files(registry, names)
    return {
        name: dict(spec.files) if spec.directory else files_in_use.get(name, {}).get("sha256", spec.sha256)
        for name, spec in specs.items()
    }


def _chosen_files(registry: Registry, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Name and sha256 of the file in use for each of these assets that accepts any file, if there is one."""
    store = AssetStore(registry)
    statuses = (store.status_of(name) for name in names if registry.asset(name).any_file)
    return {
        status.spec.name: {"file": status.path.name, "sha256": status.sha256}
        for status in statuses
        if status.state == "ok" and status.path is not None
    }


def _plugin(registry: Registry, kind: str, spec: Any) -> list[str]:
    """Hashes of the plugin's sources and of the other files (weights) in the package of the factory."""
    package = spec.factory.partition(":")[0].partition(".")[0]
    return [registry.owner(kind, spec.name).source_sha256, _data_sha256(package)]


@lru_cache
def _data_sha256(package: str) -> str:
    package_spec = find_spec(package)
    roots = (
        [Path(folder) for folder in (package_spec.submodule_search_locations or ()) if package_spec]
        if package_spec
        else []
    )
    hashes = []
    for root in roots:
        # compiled code in __pycache__, such as numba's, comes and goes with use
        files = (path for path in root.rglob("*") if path.suffix != ".py" and "__pycache__" not in path.parts)
        files = (path for path in files if path.is_file())
        hashes.append(sha256_files(root, files))
    return hash_json(hashes)
