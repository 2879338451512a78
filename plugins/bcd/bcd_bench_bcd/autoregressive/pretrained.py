"""The motion models shipped in this package. Separate from the model, so that torch is not imported."""

from __future__ import annotations

from pathlib import Path

from bcd_bench import Weights
from bcd_bench_bcd.inference.pretrained import SHIPPED

__all__ = ["SHIPPED_MOTION", "motion_model_for", "weights_with_codes"]

LANDMARK_CODES = "9d545de378b328639a037b5c7610d183e21700391d4d042c92b89ad34135bd40"
"""Hash of the weights whose codes heads-landmarks gives; a pixel path was added to them."""

SHIPPED_MOTION: tuple[Weights, ...] = tuple(
    Weights(
        name=name,
        suites=suites,
        package="bcd_bench_bcd",
        path=f"weights/motion-{name}.safetensors",
        sha256=sha256,
    )
    for name, suites, sha256 in (
        (
            "sprites-procedural-small",
            ("sprites-procedural-generate", "sprites-procedural-generate-prompt3"),
            "600246226879aa5c1deb265960580d153a2a4d66f21e34117f8bffe8cf764244",
        ),
        (
            "sprites-small",
            ("sprites-generate", "sprites-generate-prompt3"),
            "9d0188c8f6f7f002cc60bcac9f6a859157ef702804ed4163a5cd808bfd4d62e8",
        ),
        (
            "heads-small",
            ("heads-generate", "heads-generate-prompt5"),
            "84379095609eeb9f938ec8f77e7ea6f856df0e322594d18075ad8df012982408",
        ),
    )
)
"""Named as the BCD weights whose codes they generate."""


def weights_with_codes(codes_sha256: str) -> str | None:
    """Name of the shipped BCD weights that give the motion codes of the weights with this hash, None if none do."""
    if codes_sha256 == LANDMARK_CODES:
        return "heads-landmarks"
    return next((weights.name for weights in SHIPPED if weights.sha256 == codes_sha256), None)


def motion_model_for(codes_sha256: str) -> Path | None:
    """The shipped motion model for the codes of the BCD weights with this hash, None if there is none.

    Raises `MissingAssetError` if the file is missing or altered.
    """
    from bcd_bench.assets.weights import verify_weights

    name = weights_with_codes(codes_sha256)
    for weights in SHIPPED_MOTION:
        if weights.name == name:
            return verify_weights(weights, None).path
    return None
