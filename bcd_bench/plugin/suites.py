"""Builds suites from their specs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.types.suite import Suite

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import SuiteSpec

__all__ = ["SAFE_NAME", "checked_ids", "load_suite"]


SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+@=,~-]{0,199}")


def load_suite(registry: Registry, name: str, data: Mapping[str, Path] | None = None) -> Suite:
    """Build a suite. Its factory receives the `--data` paths, and the paths of its assets under the assets' names.

    Raises `UsageError` for an unknown suite, missing `--data`, and any exception of the suite's own code. Raises
    `MissingAssetError` for a missing asset, and for missing data if the suite explains how to obtain it.
    """
    spec: SuiteSpec = registry.suite(name)
    paths = dict(data or {})
    for needed in spec.data:
        if needed not in paths and needed in spec.data_help:
            text = f"suite {name!r} needs data {needed!r}: {spec.data_help[needed]}"
            raise MissingAssetError(text, hint=f"--data {needed}=PATH")
        if needed not in paths:
            raise UsageError(f"suite {name!r} needs data {needed!r}", hint=f"--data {needed}=PATH")
        if not paths[needed].exists():
            raise UsageError(
                f"data {needed!r} of suite {name!r} not found at {paths[needed]}", hint=f"--data {needed}=PATH"
            )
    for extra in paths.keys() - set(spec.data):
        raise UsageError(f"suite {name!r} does not use data {extra!r}")
    store = AssetStore(registry)
    paths |= {asset: store.find(asset) for asset in spec.assets}
    with plugin_code(f"suite {name!r}", "cannot be built"):
        suite = load_factory(spec.factory)(paths)
        if not isinstance(suite, Suite):
            raise UsageError(f"suite {name!r} is broken: its factory returned {type(suite).__name__}, not a Suite")
        _ = suite.manifest_sha256  # cached by the suite; builds every pair, including pairs that are created on access
    return suite


def checked_ids(suite: Suite, count: int) -> list[str]:
    """The ids of the first `count` pairs. Raises `UsageError` if an id is duplicate, or not a safe file name."""
    ids = [suite.pairs[index].id for index in range(count)]
    for pair_id in ids:
        if not SAFE_NAME.fullmatch(pair_id):
            raise UsageError(f"suite {suite.name!r} is broken: pair id {pair_id!r} is not a safe file name")
    if len({pair_id.casefold() for pair_id in ids}) != len(ids):
        raise UsageError(f"suite {suite.name!r} is broken: two pairs have the same id")
    return ids
