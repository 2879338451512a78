"""The set metrics `fid`, `fd-efficientnet-lite0` and `fvd`: Frechet distances of features on a named backbone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity.backbones import EFFICIENTNET_LITE0, I3D_KINETICS, INCEPTION, WINDOW, Backbone
from bcd_bench_fidelity.feature_set_metric import REFERENCE, ROLES, FeatureSetMetric, features_of
from bcd_bench_fidelity.frechet import frechet_distance
from bcd_bench_fidelity.moments import Moments

__all__ = ["FID", "FVD", "FDEfficientNetLite0"]

JACKKNIFE_GROUPS = 10
"""Number of states kept by the harness for the interval: at most 42 MB each on Inception, and one distance for each."""


def _columns(name: str, backbone: Backbone) -> tuple[Column, ...]:
    return (
        Column(
            name,
            "",
            False,
            f"Frechet distance between the frames of the outputs and those of {REFERENCE}, on {backbone.described}; "
            "biased upwards where there are few frames.",
            kind="set",
        ),
        Column(
            f"{name}-frames", "frames", None, f"Frames of the outputs that {name} rests on.", kind="set", decimals=0
        ),
    )


class _FrechetMetric(FeatureSetMetric):
    """Frames (or windows) are streamed; a state holds the moments of outputs and references."""

    jackknife_groups = JACKKNIFE_GROUPS
    columns: Sequence[Column]

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        """The state with the features of further items added; None is the empty state."""
        grown = {}
        for side in ROLES:
            features = [features_of(item, self.backbone.extractor, side) for item in items]
            vectors = [rows for rows in features if not isinstance(rows, Failed)]
            moments = Moments.empty(self.backbone.width) if state is None else Moments.from_tree(state[side])
            grown[side] = (moments.add(np.concatenate(vectors)) if vectors else moments).to_tree()
        return grown

    def merge(self, states: Sequence[Any]) -> Any:
        """The state of one pass over the items of all states."""
        return {side: Moments.merge([Moments.from_tree(state[side]) for state in states]).to_tree() for side in ROLES}

    def compute(self, state: Any) -> Mapping[str, Any]:
        """The distance (NaN with fewer than two frames on a side), and the number of output vectors (no interval)."""
        output, reference = (Moments.from_tree(state[side]) for side in ROLES)
        distance = math.nan
        if min(output.count, reference.count) >= 2:
            distance = frechet_distance(*output.gaussian(), *reference.gaussian())
        name, frames = (column.name for column in self.columns)
        return {name: distance, frames: (output.count, math.nan, math.nan)}


class FID(_FrechetMetric):
    """Frechet Inception distance (Heusel et al. 2017), with the weights and the network of pytorch-fid only."""

    backbone = INCEPTION
    columns: Sequence[Column] = _columns("fid", INCEPTION)


class FDEfficientNetLite0(_FrechetMetric):
    """The same distance on another backbone. Its scale differs from FID's, and it is never reported as FID."""

    backbone = EFFICIENTNET_LITE0
    columns: Sequence[Column] = _columns("fd-efficientnet-lite0", EFFICIENTNET_LITE0)


class FVD(_FrechetMetric):
    """Frechet video distance (Unterthiner et al. 2018): one vector per window of frames instead of one per frame."""

    backbone = I3D_KINETICS
    columns: Sequence[Column] = (
        Column(
            "fvd",
            "",
            False,
            f"Frechet distance between windows of {WINDOW} frames of the outputs and of {REFERENCE}, without overlap, "
            f"on {I3D_KINETICS.described}; frames at 224 x 224, bilinear; a clip of 9 to 15 frames is one window; "
            "biased upwards if there are few windows.",
            kind="set",
        ),
        Column("fvd-windows", "windows", None, "Windows of the outputs that fvd rests on.", kind="set", decimals=0),
    )
