"""The conformance kit over what looks at faces. On practice clips, which show none, metrics fail with a reason."""

from __future__ import annotations

from bcd_bench.testing import parametrize_with_checks


@parametrize_with_checks("faces", only=["csim", "ard", "auh", "face-landmarks", "arcface"])
def test_conformance(check) -> None:
    check()
