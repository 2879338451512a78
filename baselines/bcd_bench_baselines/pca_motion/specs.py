"""Specs of this package; lightweight."""

from __future__ import annotations

from bcd_bench import MethodSpec

METHODS = (
    MethodSpec(
        name="pca-motion",
        version="1",
        summary="Baseline for faces without weights: a content frame warped by the driving clip's landmarks.",
        factory="bcd_bench_baselines.pca_motion.method:PcaMotion",
        licence="Apache-2.0",
        config={"mode": "absolute", "components": 12, "expression": 1.0},
        batch_size=4,
        preprocessor="faces",
        extractors=("mediapipe-landmarks",),
    ),
)
