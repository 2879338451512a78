"""The conformance kit over what looks at faces. On practice clips, which show none, metrics fail with a reason."""

from __future__ import annotations

from bcd_bench.testing import parametrize_with_checks

METRICS = ("csim", "ard", "auh", "shape-error", "motion-error", "cross-error")


@parametrize_with_checks("faces", only=[*METRICS, "face-landmarks", "arcface", "face-mesh"])
def test_conformance(check) -> None:
    check()
