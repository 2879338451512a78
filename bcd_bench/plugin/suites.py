"""Building a suite from its spec."""

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
    """Build a suite. Its factory gets the `--data` paths, and the paths of its assets under the assets' names.

    Raises `UsageError` for an unknown suite, missing `--data`, and whatever the suite's own code raises;
    `MissingAssetError` for a missing asset, and for missing data of which the suite says how to come by it.
    """
    spec: SuiteSpec = registry.suite(name)
    given = dict(data or {})
    for needed in spec.data:
        if needed not in given and needed in spec.data_help:
            text = f"suite {name!r} needs data {needed!r}: {spec.data_help[needed]}"
            raise MissingAssetError(text, hint=f"--data {needed}=PATH")
        if needed not in given:
            raise UsageError(f"suite {name!r} needs data {needed!r}", hint=f"--data {needed}=PATH")
        if not given[needed].exists():
            raise UsageError(
                f"data {needed!r} of suite {name!r} is not at {given[needed]}", hint=f"--data {needed}=PATH"
            )
    for extra in given.keys() - set(spec.data):
        raise UsageError(f"suite {name!r} takes no data {extra!r}")
    store = AssetStore(registry)
    given |= {asset: store.find(asset) for asset in spec.assets}
    with plugin_code(f"suite {name!r}", "cannot be built"):
        suite = load_factory(spec.factory)(given)
        if not isinstance(suite, Suite):
            raise UsageError(f"suite {name!r} is broken: its factory returned {type(suite).__name__}, not a Suite")
        _ = suite.manifest_sha256  # kept by the suite; asks every pair, also of suites that make them when asked
    return suite


def checked_ids(suite: Suite, count: int) -> list[str]:
    """The ids of the first `count` pairs. Raises `UsageError` where two are one, or one is no safe file name."""
    ids = [suite.pairs[index].id for index in range(count)]
    for pair_id in ids:
        if not SAFE_NAME.fullmatch(pair_id):
            raise UsageError(f"suite {suite.name!r} is broken: pair id {pair_id!r} is no safe file name")
    if len({pair_id.casefold() for pair_id in ids}) != len(ids):
        raise UsageError(f"suite {suite.name!r} is broken: two pairs have one id")
    return ids
