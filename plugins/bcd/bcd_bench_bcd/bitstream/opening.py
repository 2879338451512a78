"""The weights and the motion model that a bitstream needs, by name, by path, or by the hash in its header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench_bcd.bitstream.autoregressive_model import MotionModel
    from bcd_bench_bcd.bitstream.container import Header
    from bcd_bench_bcd.inference.method import BCDMethod

__all__ = ["check_method", "method_for", "motion_model", "motion_model_for_header", "open_method"]


def check_method(name: str) -> None:
    """Raise `UsageError` unless `name` is a method that can encode."""
    if name != "bcd":
        raise UsageError(f"method {name!r} has no bitstream; only bcd does", hint="bcd-bench encode bcd …")


def open_method(
    weights: str | None, device: str, settings: Mapping[str, Any] | None = None, suite: str = ""
) -> BCDMethod:
    """BCD with weights by name or path, by default those of `suite`.

    Raises `UsageError` for unknown names and settings, and `MissingAssetError` for files that are missing or altered.
    """
    from bcd_bench.assets.weights import resolve_weights
    from bcd_bench.plugin.registry import load_registry
    from bcd_bench.run.plan import resolved_config
    from bcd_bench_bcd.inference.method import BCDMethod

    spec = load_registry().method("bcd")
    if weights is None and not suite:
        names = ", ".join(option.name for option in spec.weights)
        raise UsageError(f"bcd has several sets of weights: {names}", hint="--weights NAME or --weights PATH")
    resolved = resolve_weights(spec, suite, weights)
    method = BCDMethod(resolved_config(spec, settings or {}))
    method.load(None if resolved is None else resolved.path, device)
    return method


def method_for(header: Header, weights: str | None, device: str) -> BCDMethod:
    """BCD with the weights that a bitstream was encoded with: `weights` (name or path), or the shipped ones of the hash
    in the header. Raises `UsageError` if there are none."""
    from bcd_bench_bcd.inference.pretrained import SHIPPED

    if weights is None:
        name = next((one.name for one in SHIPPED if str(one.sha256).startswith(header.weights_sha256)), None)
        if name is None:
            raise UsageError(
                f"the bitstream was encoded with weights {header.weights_sha256[:12]}…, which are not shipped",
                hint="--weights FILE, with the file that it was encoded with",
            )
        weights = name
    return open_method(weights, device)


def motion_model(path: Path | None, codes_sha256: str) -> MotionModel | None:
    """The motion model in a file, by default the shipped one for the codes of these weights; None if there is none."""
    from bcd_bench_bcd.autoregressive.pretrained import motion_model_for

    chosen = motion_model_for(codes_sha256) if path is None else path.expanduser()
    if chosen is None:
        return None
    if not chosen.is_file():
        raise UsageError(f"--motion-model {chosen}: no such file")
    from bcd_bench_bcd.autoregressive.weights import load_motion_model

    return load_motion_model(chosen)


def motion_model_for_header(header: Header, path: Path | None, codes_sha256: str) -> MotionModel | None:
    """The motion model that a bitstream was encoded with, None if it was encoded without one. `codes_sha256` is
    `LoadedModel.codes_sha256` of the bitstream's weights."""
    return motion_model(path, codes_sha256) if header.motion_model_sha256 else None
