"""Specs of LivePortrait: the method and the folder that users provide; imports nothing heavy."""

from __future__ import annotations

from bcd_bench import AssetSpec, MethodSpec, Weights
from bcd_bench_baselines.common.settings import COMMON, SEEDED

__all__ = ["ASSETS", "FILES", "HOW_TO", "METHODS"]

FILES = (
    "base_models/appearance_feature_extractor.pth",
    "base_models/motion_extractor.pth",
    "base_models/warping_module.pth",
    "base_models/spade_generator.pth",
    "retargeting_models/stitching_retargeting_module.pth",
)
"""The networks, as in the folder `liveportrait` of the published weights."""

HOW_TO = (
    "the folder liveportrait of the weights linked in the repository KwaiVGI/LivePortrait (model page "
    "KwaiVGI/LivePortrait), containing base_models and retargeting_models"
)

ASSETS = (
    AssetSpec(
        name="liveportrait",
        filename="liveportrait",
        sha256="",
        size=0,
        licence="see the model page of the weights (the code is MIT)",
        how_to=f"{HOW_TO}; or export BCD_BENCH_LIVEPORTRAIT=PATH",
        directory=True,
        files=dict.fromkeys(FILES, ""),
        variable="BCD_BENCH_LIVEPORTRAIT",
    ),
)

METHODS = (
    MethodSpec(
        name="liveportrait",
        version="1",
        summary="LivePortrait: implicit keypoints, stitching, and a face cropped, moved and pasted back.",
        factory="bcd_bench_baselines.liveportrait.method:LivePortrait",
        licence="Apache-2.0; the weights are the user's",
        paper="Guo et al., LivePortrait: Efficient Portrait Animation with Stitching and Retargeting Control, 2024",
        config={
            **COMMON,
            "batch_frames": 4,
            "mode": "relative",
            "region": "all",
            "driving": "expression-friendly",
            "multiplier": 1.0,
            "stitching": True,
            "normalize_lip": False,
            "crop": True,
            "paste_back": True,
        },
        weights=(Weights("human", suites=("*",), asset="liveportrait"),),
        identify="bcd_bench_baselines.liveportrait.identity:identify",
        seeded_by=SEEDED,
        batch_size=1,
        preprocessor="faces",
    ),
)
