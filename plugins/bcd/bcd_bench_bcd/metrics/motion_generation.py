"""The metric `motion-generation`: likelihood, diversity and novelty of generated motion codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_bcd.metrics.motion_bitrate import INFO_KEY

__all__ = ["GENERATION", "MotionGeneration"]

GENERATION = "generation"
"""Key in `Clip.info` under which a method reports {"prompt": frames of the prompt, "bits", "markov_bits",
"unigram_bits": code length of the real continuation in bits per frame, "nearest", "real_nearest": largest share of
codes that are those of a training motion, for the generated and for the real clip}."""


class MotionGeneration(PairMetric):
    """Statistics that methods report which generate motion codes."""

    columns: Sequence[Column] = (
        Column(
            "continuation-bits",
            "bit/frame",
            False,
            "Cross-entropy of the real continuation's codes under the motion model, given the prompt.",
            decimals=3,
        ),
        Column(
            "markov-bits",
            "bit/frame",
            None,
            "The same under a Markov model of the training codes (a code given the previous code of its group).",
            decimals=3,
        ),
        Column("unigram-bits", "bit/frame", None, "The same under the frequencies of the training codes.", decimals=3),
        Column(
            "training-overlap",
            "%",
            None,
            "Largest share of the generated clip's codes that are those of one training motion at some alignment: 100 "
            "is a copy. To be compared with training-overlap-real.",
            decimals=1,
        ),
        Column("training-overlap-real", "%", None, "The same for the real clip.", decimals=1),
        Column(
            "distinct-motions",
            "%",
            None,
            "Number of different generated code sequences, in percent of all outputs.",
            "derived",
            1,
        ),
        Column(
            "repeated-frames",
            "%",
            None,
            "Frames of continuations whose codes are all those of the frame before; a clip that stands still has 100.",
            decimals=1,
        ),
        Column("repeated-frames-real", "%", None, "The same for the real continuations.", decimals=1),
    )

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` if the method did not report its motion."""
        rows: list[Mapping[str, Any] | Failed] = []
        for item in items:
            generation, codes = item.info.get(GENERATION), item.info.get(INFO_KEY)
            if generation is None or codes is None:
                rows.append(Failed("the method does not report generated motion codes"))
                continue
            rows.append(
                {
                    "continuation-bits": generation["bits"],
                    "markov-bits": generation["markov_bits"],
                    "unigram-bits": generation["unigram_bits"],
                    "training-overlap": 100 * generation["nearest"],
                    "training-overlap-real": 100 * generation["real_nearest"],
                    "repeated-frames": 100 * repeated_share(codes, generation["prompt"]),
                    "repeated-frames-real": 100 * generation["real_repeated"],
                    "sequence": codes,
                }
            )
        return rows

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Share of different sequences."""
        distinct = {np.asarray(row["sequence"]).tobytes() for row in rows}
        return {"distinct-motions": 100 * len(distinct) / len(rows)}


def repeated_share(codes: Sequence[Sequence[int]], prompt: int) -> float:
    """Share of the frames after the prompt, 0 to 1, whose codes are all those of the frame before."""
    array = np.asarray(codes)
    equal = (array[1:] == array[:-1]).all(1)[prompt - 1 :]
    return float(equal.mean()) if len(equal) else 0.0
