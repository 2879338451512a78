"""BCD (Bitrate-Controlled Diffusion) for bcd-bench.

>>> from bcd_bench_bcd import BCD
>>> bcd = BCD.from_pretrained("heads-small")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bcd_bench_bcd.inference.bcd import BCD

__version__ = "0.1.0"

__all__ = ["BCD", "__version__"]


def __getattr__(name: str) -> object:
    if name == "BCD":  # imported on first use, since it imports torch
        from bcd_bench_bcd.inference.bcd import BCD

        return BCD
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
