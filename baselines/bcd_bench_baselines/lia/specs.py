"""Specs of LIA: the method and the weight file that users provide; imports nothing heavy."""

from __future__ import annotations

from bcd_bench import AssetSpec, MethodSpec, Weights
from bcd_bench_baselines.common.settings import COMMON, SEEDED

__all__ = ["ASSETS", "HOW_TO", "METHODS"]

HOW_TO = "vox.pt, the checkpoint for VoxCeleb at 256 x 256 linked in the repository wyhsirius/LIA"

ASSETS = (
    AssetSpec(
        name="lia-vox",
        filename="lia-vox.pt",
        sha256="",
        size=0,
        licence="none stated for the weights (the code is CC BY-NC 4.0)",
        how_to=f"{HOW_TO}; or export BCD_BENCH_LIA=PATH",
        also=("vox.pt",),
        variable="BCD_BENCH_LIA",
        restricted="LIA is for non-commercial research (CC BY-NC 4.0); its weights have no separate licence",
    ),
)

METHODS = (
    MethodSpec(
        name="lia",
        version="1",
        summary="Latent image animator: a walk along learned orthogonal directions moves the first content frame.",
        factory="bcd_bench_baselines.lia.method:LIAMethod",
        licence="Apache-2.0; the weights are the user's",
        paper="Wang et al., Latent Image Animator: Learning to Animate Images via Latent Space Navigation, ICLR 2022",
        config={**COMMON, "mode": "relative"},
        weights=(Weights("vox", suites=("*",), asset="lia-vox"),),
        seeded_by=SEEDED,
        batch_size=1,
        preprocessor="faces",
    ),
)
