"""Specs of this package; lightweight."""

from __future__ import annotations

from bcd_bench import AssetSpec, MethodSpec, Weights

__all__ = ["ASSETS", "FILES", "METHODS"]

PAPER = (
    "Bounareli et al., HyperReenact: One-Shot Reenactment via Jointly Learning to Refine and Retarget Faces, ICCV 2023"
)

FILES = (
    "e4e-voxceleb.pt",
    "insight_face.pth",
    "data/deca_model.tar",
    "stylegan-voxceleb.pt",
    "hypernetwork.pt",
)
"""The published files, as in the original's folder `pretrained_models`."""

ASSETS = (
    AssetSpec(
        name="hyperreenact",
        filename="hyperreenact",
        sha256="",
        size=0,
        licence="none stated for HyperReenact's own; non-commercial research for DECA's and StyleGAN2-ada's",
        how_to="the folder pretrained_models of the repository StelaBou/HyperReenact; or export "
        "BCD_BENCH_HYPERREENACT=PATH",
        directory=True,
        files=dict.fromkeys(FILES, ""),
        variable="BCD_BENCH_HYPERREENACT",
        restricted="HyperReenact comes without a licence; DECA and StyleGAN2-ada are for non-commercial research",
    ),
)

METHODS = (
    MethodSpec(
        name="hyperreenact",
        version="1",
        summary="HyperReenact's networks with landmarks of mediapipe-landmarks, from its published files.",
        factory="bcd_bench_baselines.hyperreenact.method:HyperReenactMethod",
        licence="Apache-2.0; the files have no licence or one for non-commercial research (DECA, StyleGAN2-ada)",
        paper=PAPER,
        config={"batch_frames": 4, "mean_seed": 0},
        weights=(Weights("published", suites=("*",), asset="hyperreenact"),),
        batch_size=1,
        preprocessor="faces",
        extractors=("mediapipe-landmarks",),
    ),
    MethodSpec(
        name="hyperreenact-checkout",
        version="1",
        summary="The original HyperReenact in your checkout and Python environment: --set checkout=FOLDER.",
        factory="bcd_bench_baselines.hyperreenact.checkout:Checkout",
        licence="none stated by the original",
        paper=PAPER,
        config={"checkout": "", "python": "python", "timeout": 1800},
        batch_size=1,
        preprocessor="faces",
        identify="bcd_bench_baselines.hyperreenact.checkout:identify",
    ),
)
