"""Specs of MCNET: the method and the weight file that users provide; imports nothing heavy."""

from __future__ import annotations

from bcd_bench import AssetSpec, MethodSpec, Weights
from bcd_bench_baselines.common.settings import COMMON, SEEDED

__all__ = ["ASSETS", "HOW_TO", "METHODS"]

HOW_TO = (
    "the checkpoint for VoxCeleb at 256 x 256 with 15 keypoints linked in the repository harlanhong/ICCV2023-MCNET, "
    "renamed to mcnet-vox256.pth.tar (it has no fixed name)"
)

ASSETS = (
    AssetSpec(
        name="mcnet-vox",
        filename="mcnet-vox256.pth.tar",
        sha256="",
        size=0,
        licence="none stated, so all rights are reserved",
        how_to=f"{HOW_TO}; or export BCD_BENCH_MCNET=PATH",
        variable="BCD_BENCH_MCNET",
        restricted="MCNET was published without a licence (all rights reserved), after training on VoxCeleb",
    ),
)

METHODS = (
    MethodSpec(
        name="mcnet",
        version="1",
        summary="FOMM's motion with a facial memory, adapted to the source, that fills in occluded areas.",
        factory="bcd_bench_baselines.mcnet.method:MCNET",
        licence="Apache-2.0; the weights are the user's",
        paper="Hong and Xu, Implicit Identity Representation Conditioned Memory Compensation Network, ICCV 2023",
        config={**COMMON, "mode": "relative", "adapt_scale": True, "best_frame": False, "noise_seed": None},
        weights=(Weights("vox", suites=("*",), asset="mcnet-vox"),),
        identify="bcd_bench_baselines.common.best_frame:identify",
        seeded_by=SEEDED,
        batch_size=1,
        preprocessor="faces",
    ),
)
