"""Specs of FOMM: the method and the weight file that users provide; imports nothing heavy."""

from __future__ import annotations

from bcd_bench import AssetSpec, MethodSpec, Weights
from bcd_bench_baselines.common.settings import COMMON, SEEDED

__all__ = ["ASSETS", "HOW_TO", "METHODS"]

HOW_TO = (
    "vox-cpk.pth.tar or vox-adv-cpk.pth.tar, the checkpoints for VoxCeleb at 256 x 256 linked in the repository "
    "AliaksandrSiarohin/first-order-model"
)

ASSETS = (
    AssetSpec(
        name="fomm-vox",
        filename="vox-cpk.pth.tar",
        sha256="",
        size=0,
        licence="none stated for the weights (the code is MIT)",
        how_to=f"{HOW_TO}; or export BCD_BENCH_FOMM=PATH",
        also=("vox-adv-cpk.pth.tar",),
        variable="BCD_BENCH_FOMM",
        restricted="FOMM's weights were published without a licence, after training on VoxCeleb",
    ),
)

METHODS = (
    MethodSpec(
        name="fomm",
        version="1",
        summary="First-order motion model: keypoints with local affine maps warp the first content frame.",
        factory="bcd_bench_baselines.fomm.method:FOMM",
        licence="Apache-2.0; the weights are the user's",
        paper="Siarohin et al., First Order Motion Model for Image Animation, NeurIPS 2019",
        config={**COMMON, "mode": "relative", "adapt_scale": True, "best_frame": False, "align_corners": False},
        weights=(Weights("vox", suites=("*",), asset="fomm-vox"),),
        identify="bcd_bench_baselines.common.best_frame:identify",
        seeded_by=SEEDED,
        batch_size=1,
        preprocessor="faces",
    ),
)
