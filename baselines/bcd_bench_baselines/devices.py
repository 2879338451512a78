"""Where and in which numbers a network runs, and how it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bcd_bench.errors import UsageError, one_line

__all__ = ["channels_last", "compiled", "resolve_device"]


def resolve_device(name: str) -> torch.device:
    """The device that "cpu", "cuda" or "cuda:N" names. Raises `UsageError` where this machine has none such."""
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"--device {name}: no such device", hint="--device cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise UsageError(f"--device {name}: this machine has {count} CUDA devices", hint="--device cpu")
    return device


def channels_last(module: nn.Module) -> None:
    """Lay out the weights of 2-d convolutions for pixels whose channels lie together, which is faster everywhere."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)


def compiled(function: Callable[..., Any], try_it: Callable[[Callable[..., Any]], Any]) -> Callable[..., Any]:
    """`function` compiled whole for one shape of input; `try_it` calls it once, so that trouble comes here.

    Raises `UsageError` where this machine cannot compile it, such as one without a C++ compiler.
    """
    made: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=False)
    try:
        try_it(made)
    except Exception as error:  # the compiler raises whatever went wrong below it
        said = one_line(error, place=False)[:200]
        raise UsageError(
            f"--config compile=true: cannot be compiled here: {said}", hint="--config compile=false"
        ) from error
    return made
