"""The conformance kit over what looks at faces. On practice clips, which show none, metrics fail with a reason."""

from __future__ import annotations

from bcd_bench.testing import parametrize_with_checks

ERRORS = ("shape-error", "motion-error", "cross-error")
METRICS = (
    "csim",
    "csim-sface",
    "ard",
    "auh",
    "apd-3ddfa",
    "theval-lips-mediapipe",
    *ERRORS,
    *(f"{name}-mediapipe" for name in ERRORS),
)
EXTRACTORS = ("mediapipe-landmarks", "dense-landmarks", "arcface", "sface", "face-mesh", "face-mesh-mediapipe", "tddfa")


@parametrize_with_checks("faces", only=[*METRICS, *EXTRACTORS])
def test_conformance(check) -> None:
    check()
