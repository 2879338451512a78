"""What this folder offers; light."""

from __future__ import annotations

from bcd_bench import MethodSpec

__all__ = ["METHODS"]

PAPER = (
    "Bounareli et al., HyperReenact: One-Shot Reenactment via Jointly Learning to Refine and Retarget Faces, ICCV 2023"
)

METHODS = (
    MethodSpec(
        name="hyperreenact",
        version="1",
        summary="HyperReenact's networks with landmarks of face-landmarks: --weights FOLDER (pretrained_models).",
        factory="bcd_bench_baselines.hyperreenact.method:HyperReenactMethod",
        licence="Apache-2.0; the files have no licence or one for non-commercial research (DECA, StyleGAN2-ada)",
        paper=PAPER,
        config={"batch_frames": 4, "mean_seed": 0},
        batch_size=1,
        extractors=("face-landmarks",),
    ),
    MethodSpec(
        name="hyperreenact-checkout",
        version="1",
        summary="The original HyperReenact in a checkout and Python of yours: --config checkout=FOLDER.",
        factory="bcd_bench_baselines.hyperreenact.checkout:Checkout",
        licence="none stated by the original",
        paper=PAPER,
        config={"checkout": "", "python": "python", "timeout": 1800},
        batch_size=1,
        identify="bcd_bench_baselines.hyperreenact.checkout:identify",
    ),
)
