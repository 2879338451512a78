"""The metric `coded-size`: bytes and rate of coded clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed

__all__ = ["BYTES_KEY", "CodedSize"]

BYTES_KEY = "coded_bytes"
"""Key in `Clip.info` under which a method stores the bytes of everything that is needed to decode the clip."""


class CodedSize(PairMetric):
    """The whole file counts: key frames, content, headers."""

    columns: Sequence[Column] = (
        Column("coded-bytes", "byte", False, "Bytes of everything that is needed to decode the clip.", decimals=0),
        Column("coded-kbps", "kbit/s", False, "The same as a rate over the length of the clip.", decimals=2),
        Column("coded-bits-per-frame", "bit/frame", False, "The same per frame.", decimals=1, headline=False),
    )

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """Bytes and rates of every item; `Failed` if the method reports no bytes."""
        rows: list[Mapping[str, Any] | Failed] = []
        for item in items:
            size = item.info.get(BYTES_KEY)
            if size is None:
                rows.append(Failed("the method does not report the size of a file"))
                continue
            frames = len(item.output)
            rows.append(
                {
                    "coded-bytes": size,
                    "coded-kbps": 8 * size * item.output.fps / frames / 1000,
                    "coded-bits-per-frame": 8 * size / frames,
                }
            )
        return rows
