"""The metric `motion-bitrate`: the actual bitrate of a run's motion codes per frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed

__all__ = [
    "AUTOREGRESSIVE_KEY",
    "CONTENT_BITS_KEY",
    "INFO_KEY",
    "PROBABILITIES_KEY",
    "MotionBitrate",
    "code_entropy",
    "soft_entropy",
]

INFO_KEY = "motion_codes"
"""Key in `Clip.info` under which a method stores the codes it used: int [T][N], one index per frame and group."""
PROBABILITIES_KEY = "motion_probabilities"
"""Key of the mean assignment probabilities of a clip's frames: float [N][J], without Gumbel noise (eq. 4)."""
CONTENT_BITS_KEY = "content_bits"
"""Key of the size in bits of the clip's content in a bitstream."""
AUTOREGRESSIVE_KEY = "motion_bits_autoregressive"
"""Key of the bits of the clip's codes under an autoregressive model, over all frames."""


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


def soft_entropy(probabilities: np.ndarray) -> float:
    """H_model in bits per frame (eq. 5) of mean assignment probabilities [N, J], summed over the N groups."""
    share = probabilities / probabilities.sum(-1, keepdims=True)
    return float(-(share * np.log2(np.maximum(share, 1e-12))).sum())


def coded_bits(codes: np.ndarray, entries: int) -> int:
    """Bits of the motion section of a bitstream with codes int [T, N], coded adaptively from scratch."""
    from bcd_bench_bcd.bitstream.code_models import Adaptive
    from bcd_bench_bcd.bitstream.coder import encode_codes

    return 8 * len(encode_codes(Adaptive(codes.shape[1], entries), codes))


class MotionBitrate(PairMetric):
    """Bitrates over all motion clips of a run; requires methods that report their codes.

    Columns that need more than the codes are empty for methods that do not report it.
    """

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
        Column(
            "motion-bits-soft",
            "bit/frame",
            False,
            "Entropy of the mean assignment probabilities over all frames (eq. 5), summed over code groups: the rate "
            "that training controls.",
            "derived",
            2,
            False,
        ),
        Column("motion-kbps-soft", "kbit/s", False, "motion-bits-soft times the frame rate.", "derived", 3, False),
        Column(
            "motion-bits-coded",
            "bit/frame",
            False,
            "Size of the motion section of each clip's bitstream, coded adaptively from scratch.",
            "derived",
            2,
            False,
        ),
        Column("motion-kbps-coded", "kbit/s", False, "motion-bits-coded times the frame rate.", "derived", 3, False),
        Column(
            "motion-bits-autoregressive",
            "bit/frame",
            False,
            "Ideal code length of the motion codes under the method's autoregressive model.",
            "derived",
            2,
            False,
        ),
        Column(
            "motion-kbps-autoregressive",
            "kbit/s",
            False,
            "motion-bits-autoregressive times the frame rate.",
            "derived",
            3,
            False,
        ),
        Column("content-bits", "bit/clip", False, "Size of the content in a bitstream.", "derived", 0, False),
    )

    def __init__(self) -> None:
        self._means: dict[int, tuple[Mapping[str, Any], np.ndarray]] = {}
        """Mean probabilities of rows as arrays: the bootstrap passes the same rows again and again."""

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """The codes and the frame rate of every item, and what else is reported; `Failed` without codes."""
        rows: list[Mapping[str, Any] | Failed] = []
        for item in items:
            codes = item.info.get(INFO_KEY)
            if codes is None:
                rows.append(Failed("the method does not report motion codes"))
                continue
            row: dict[str, Any] = {"codes": codes, "fps": item.output.fps}
            probabilities = item.info.get(PROBABILITIES_KEY)
            if probabilities is not None:
                row |= {"probabilities": probabilities}
                row |= {"coded": coded_bits(np.asarray(codes, np.int64), len(probabilities[0]))}
            for key in (AUTOREGRESSIVE_KEY, CONTENT_BITS_KEY):
                if item.info.get(key) is not None:
                    row[key] = float(item.info[key])
            rows.append(row)
        return rows

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        per_clip = [np.asarray(row["codes"]) for row in rows]
        codes = np.concatenate(per_clip)
        frames = np.array([len(clip) for clip in per_clip])
        fps = float(np.mean([row["fps"] for row in rows]))
        values = {"motion-bits": code_entropy(codes), "motion-kbps": code_entropy(codes) * fps / 1000}
        values["motion-codes-used"] = float(sum(len(np.unique(group)) for group in codes.T))

        def add(name: str, bits: float) -> None:
            values[f"motion-bits-{name}"] = bits
            values[f"motion-kbps-{name}"] = bits * fps / 1000

        if all("probabilities" in row for row in rows):
            means = np.stack([self._mean(row) for row in rows])
            add("soft", soft_entropy(np.average(means, axis=0, weights=frames)))
            add("coded", float(sum(row["coded"] for row in rows) / frames.sum()))
        if all(AUTOREGRESSIVE_KEY in row for row in rows):
            add("autoregressive", float(sum(row[AUTOREGRESSIVE_KEY] for row in rows) / frames.sum()))
        if all(CONTENT_BITS_KEY in row for row in rows):
            values["content-bits"] = float(np.mean([row[CONTENT_BITS_KEY] for row in rows]))
        return values

    def _mean(self, row: Mapping[str, Any]) -> np.ndarray:
        kept = self._means.get(id(row))
        if kept is None or kept[0] is not row:
            kept = self._means[id(row)] = (row, np.array(row["probabilities"]))
        return kept[1]
