"""One content token per patch, concatenated to that patch along channels.

The paper concatenates content with the noisy input; its preset here adds content tokens to the sequence of every frame,
and attention has to find out which of them belong to a patch. With channels this is known from the start. K is the
number of patches.
"""

from __future__ import annotations

from typing import ClassVar

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["ContentChannels"]


class ContentChannels(Extension):
    name: ClassVar[str] = "content_channels"
    summary: ClassVar[str] = "one content token per patch, concatenated along channels"
    changes_model: ClassVar[bool] = True
