"""The metric `flicker`: differences of consecutive frames, on their own and relative to the target or motion clip.

VBench (Huang et al., CVPR 2024) calls the mean absolute difference of consecutive frames "temporal flickering" and
measures it on static scenes. Outputs of motion transfer move, so that number alone counts motion as flicker and is not
ranked; `flicker-error` compares it, step by step, with that of the target clip, or of the motion clip if there is no
target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity.pixels import temporal_differences

__all__ = ["Flicker"]


class Flicker(PairMetric):
    """Differences of consecutive frames, without motion compensation."""

    columns: Sequence[Column] = (
        Column(
            "flicker",
            "grey levels",
            None,
            "Mean absolute difference of consecutive frames of the output (VBench's temporal flickering is one minus "
            "this over 255); motion counts too, so it has no direction.",
            headline=False,
        ),
        Column(
            "flicker-error",
            "grey levels",
            False,
            "Mean over consecutive frames of how far their mean absolute difference in the output is from that in the "
            "target clip, or in the motion clip where the pair has no target.",
        ),
    )

    def load(self, device: str) -> None:
        """Do nothing: pixels are compared on the CPU."""

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One row per output: None in both columns for a clip of one frame, `Failed` if the lengths differ."""
        return [_row(item) for item in items]


def _row(item: Scored) -> Mapping[str, Any] | Failed:
    reference = (item.pair.target or item.pair.motion).load()
    if len(item.output) != len(reference):
        return Failed(f"the output has {len(item.output)} frames, {reference.id} has {len(reference)}")
    output_steps, reference_steps = temporal_differences(item.output.frames), temporal_differences(reference.frames)
    if len(output_steps) == 0:
        return {"flicker": None, "flicker-error": None}
    return {
        "flicker": float(output_steps.mean()),
        "flicker-error": float(np.abs(output_steps - reference_steps).mean()),
    }
