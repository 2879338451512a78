"""The set metric `kid`: the kernel Inception distance, over all frames or a fixed sample of many."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.statistics.intervals import delete_group_jackknife, jackknife_groups
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity.backbones import INCEPTION, Backbone
from bcd_bench_fidelity.bottom_k_sample import Sample, keys_of
from bcd_bench_fidelity.feature_set_metric import REFERENCE, ROLES, FeatureSetMetric, features_of
from bcd_bench_fidelity.mmd import kernel_distances

__all__ = ["KID", "SAMPLE"]

SAMPLE = 4096
"""Maximum number of frames kept of outputs, and of references: 34 MB each. KID is usually averaged over subsets of
1,000 frames, so this is less noisy, and it does not depend on the order."""

GROUPS = 20


class KID(FeatureSetMetric):
    """Frames are streamed into two bounded samples; everything else is computed at the end.

    The interval is computed here, since the kernel sums between groups give every jackknife replicate at once, and
    since all replicates must use the same sample.
    """

    backbone: ClassVar[Backbone] = INCEPTION
    columns: Sequence[Column] = (
        Column(
            "kid",
            "",
            False,
            f"Unbiased squared maximum mean discrepancy, kernel (x . y / {INCEPTION.width} + 1)^3, between the frames "
            f"of the outputs and those of {REFERENCE}, on {INCEPTION.described}; of more than {SAMPLE:,} frames, that "
            "many picked by hash; interval by delete-group jackknife over content identities.",
            kind="set",
            decimals=4,
        ),
        Column("kid-frames", "frames", None, "Frames of the outputs that kid rests on.", kind="set", decimals=0),
    )

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        """The state with the frames of further items added; None is the empty state."""
        grown = {}
        for side in ROLES:
            sample = Sample.empty(SAMPLE, self.backbone.width) if state is None else Sample.from_tree(state[side])
            for item in items:
                vectors = features_of(item, self.backbone.extractor, side)
                if not isinstance(vectors, Failed):
                    sample = sample.add(*_keys(item, side, len(vectors)), vectors)
            grown[side] = sample.to_tree()
        return grown

    def merge(self, states: Sequence[Any]) -> Any:
        """The state of one pass over the items of all states, bitwise."""
        return {side: Sample.merge([Sample.from_tree(state[side]) for state in states]).to_tree() for side in ROLES}

    def compute(self, state: Any) -> Mapping[str, Any]:
        """(KID, low, high), NaN if there is too little data for a value or an interval, and the number of frames."""
        output, reference = (Sample.from_tree(state[side]) for side in ROLES)
        names = {int(cluster): f"{int(cluster):016x}" for cluster in {*output.clusters, *reference.clusters}}
        groups = jackknife_groups(list(names.values()), GROUPS) if names else {}
        x, y = (
            np.array([groups[names[int(cluster)]] for cluster in sample.clusters], dtype=np.intp)
            for sample in (output, reference)
        )
        value, replicates = kernel_distances(output.rows, x, reference.rows, y, max(groups.values(), default=0) + 1)
        interval = delete_group_jackknife(value, replicates)
        low, high = (math.nan, math.nan) if interval is None else (interval.low, interval.high)
        return {"kid": (value, low, high), "kid-frames": (len(output.rows), math.nan, math.nan)}


def _keys(item: Scored, side: str, frames: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
    """Key and cluster of every frame. The key includes the side, so that a sample does not pair outputs with their
    references: these pairs would then have a higher weight in the cross term than among all frames."""
    keys = keys_of([f"{side}/{item.pair.id}/{frame}" for frame in range(frames)])
    return keys, np.repeat(keys_of([item.pair.cluster]), frames)
