"""Memory layout of network weights, and compilation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bcd_bench.types.errors import UsageError, one_line

__all__ = ["channels_last", "compiled"]


def channels_last(module: nn.Module) -> None:
    """Convert the weights of 2-D convolutions to the channels-last layout, which is faster everywhere."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.to(memory_format=torch.channels_last)


def compiled(function: Callable[..., Any], try_it: Callable[[Callable[..., Any]], Any]) -> Callable[..., Any]:
    """Compile `function` as a whole for one input shape; `try_it` calls it once, so that errors occur here.

    Raises `UsageError` if this machine cannot compile it, for example without a C++ compiler.
    """
    compiled_function: Callable[..., Any] = torch.compile(function, fullgraph=True, dynamic=False)
    try:
        try_it(compiled_function)
    except Exception as error:  # the compiler passes on any error
        reason = one_line(error, place=False)[:200]
        raise UsageError(
            f"--set compile=true: compilation failed on this machine: {reason}", hint="--set compile=false"
        ) from error
    return compiled_function
