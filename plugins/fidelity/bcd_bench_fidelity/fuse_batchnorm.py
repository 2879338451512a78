"""Load weights files into networks: batch normalisation is fused into each convolution, once and in double
precision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from bcd_bench.types.errors import UsageError

__all__ = ["fold", "read_weights"]

_NORMALISATION = ("weight", "bias", "running_mean", "running_var")

Network = TypeVar("Network", bound=nn.Module)


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """The tensors of a `.pth` file by name; reads tensors only, without running code from the file. Raises
    `UsageError`."""
    try:
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, UnpicklingError) as error:
        raise UsageError(f"{path}: not a weights file ({' '.join(str(error).split())[:120]})") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{path}: not a weights file (it contains {type(state).__name__})")
    return state


def fold(
    network: Network,
    weights: Mapping[str, Tensor],
    layers: Iterable[tuple[str, str, str]],
    eps: float,
    *,
    plain: Iterable[str] = (),
) -> Network:
    """`network` with the weights of `layers` (layer, its convolution, its batch normalisation), ready for inference.
    The layers in `plain` have no batch normalisation, and the same name in both.

    y = (w * x - mean) / sqrt(var + eps) * gamma + beta is w' * x + b' with w' = w gamma / sqrt(var + eps). Raises
    `UsageError` if a layer is missing or has another shape.
    """
    folded = {}
    try:
        for layer, convolution, normalisation in layers:
            gamma, beta, mean, variance = (weights[f"{normalisation}.{part}"].double() for part in _NORMALISATION)
            scale = gamma / torch.sqrt(variance + eps)
            kernel = weights[f"{convolution}.weight"].double()
            kernel = (kernel * scale.reshape(-1, *[1] * (kernel.dim() - 1))).float()
            # Channels last, as in decoded frames: this makes convolutions of pictures faster, on CPUs and GPUs.
            in_planes = kernel.dim() == 4
            folded[f"{layer}.weight"] = kernel.contiguous(memory_format=torch.channels_last) if in_planes else kernel
            folded[f"{layer}.bias"] = (beta - mean * scale).float()
        for layer in plain:
            folded |= {f"{layer}.{part}": weights[f"{layer}.{part}"].float() for part in ("weight", "bias")}
        network.load_state_dict(folded, strict=True, assign=True)
    except (KeyError, RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights are not those of {type(network).__name__}: {reason}") from error
    network.requires_grad_(False).eval()
    return network
