"""The metric `motion-bitrate`: the actual bitrate of a run's motion codes per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed

__all__ = ["INFO_KEY", "MotionBitrate", "code_entropy"]

INFO_KEY = "motion_codes"
"""Key in `Clip.info` under which a method stores the codes it used: int [T][N], one index per frame and group."""


def code_entropy(codes: np.ndarray) -> float:
    """Zero-order entropy in bits per frame of codes int [F, N] over F frames, summed over the N groups.

    This is R_hard: the rate of an ideal static coder that knows the frequency of each code in these frames (the hard
    counterpart of eq. 5, which averages soft assignments).
    """
    total = 0.0
    for group in codes.T:
        share = np.bincount(group) / len(group)
        share = share[share > 0]
        total -= float((share * np.log2(share)).sum())
    return total


class MotionBitrate(PairMetric):
    """Bitrates over all motion clips of a run; requires methods that report their codes."""

    columns: Sequence[Column] = (
        Column(
            "motion-bits",
            "bit/frame",
            False,
            "Entropy of the motion codes over all frames of all driving clips, summed over code groups (hard, "
            "zero-order): the rate of an ideal static entropy coder.",
            "derived",
            2,
        ),
        Column("motion-kbps", "kbit/s", False, "motion-bits times the frame rate.", "derived", 3, False),
        Column("motion-codes-used", "codes", None, "Codes that occur at all, over all groups.", "derived", 0, False),
    )

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """The codes and the frame rate of every item; `Failed` if the method reported none."""
        rows: list[Mapping[str, Any] | Failed] = []
        for item in items:
            codes = item.info.get(INFO_KEY)
            if codes is None:
                rows.append(Failed("the method does not report motion codes"))
            else:
                rows.append({"codes": codes, "fps": item.output.fps})
        return rows

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        codes = np.concatenate([np.asarray(row["codes"]) for row in rows])
        bits = code_entropy(codes)
        fps = float(np.mean([row["fps"] for row in rows]))
        used = sum(len(np.unique(group)) for group in codes.T)
        return {"motion-bits": bits, "motion-kbps": bits * fps / 1000, "motion-codes-used": float(used)}
