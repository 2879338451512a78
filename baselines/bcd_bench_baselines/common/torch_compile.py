"""How the weights of a network are laid out, and how it is compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from bcd_bench.types.errors import UsageError, one_line

__all__ = ["channels_last", "compiled"]


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
        raise UsageError(f"--set compile=true: cannot be compiled here: {said}", hint="--set compile=false") from error
    return made
