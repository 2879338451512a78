"""Paths of verified weights: assets, and files of installed packages."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.plugin.specs import AssetSpec
from bcd_bench.types.errors import MissingAssetError, MissingDependencyError

__all__ = ["asset_file", "packaged_file"]


def asset_file(asset: AssetSpec) -> Path:
    """Path of the verified file of an asset. Raises `MissingAssetError`."""
    from bcd_bench.assets.store import AssetStore
    from bcd_bench.plugin.registry import load_registry

    return AssetStore(load_registry()).find(asset.name)


def packaged_file(package: str, file: str, *, sha256: str, what: str, install: str) -> Path:
    """Path of the verified `file` in an installed package, whose code is not run.

    `what` ("the weights of …") and `install` (a command) are used in messages. Raises `MissingDependencyError`, or
    `MissingAssetError` for a file that is missing or has another hash.
    """
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingDependencyError(f"{what} are not installed", hint=install)
    path = Path(spec.origin).parent / file
    if not path.is_file() or sha256_file(path) != sha256:
        raise MissingAssetError(
            f"{what} at {path} are missing or modified and were rejected (expected sha256 {sha256[:12]}…)",
            hint=f"{install} --force-reinstall",
        )
    return path
