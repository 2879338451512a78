"""The conformance kit over the plugins of this repository."""

from __future__ import annotations

import pytest

from bcd_bench.plugins import load_registry
from bcd_bench.testing import checks_for

ROUNDING = 1.0
"""Grey levels by which the company in a batch may move BCD's output, through batched float arithmetic."""


def _checks() -> list[object]:
    registry = load_registry()
    loaded = {plugin.name for plugin in registry.plugins if plugin.status == "ok"}
    checks = checks_for("sprites", suite="sprites-procedural") if "sprites" in loaded else []
    checks += checks_for("fidelity") if "fidelity" in loaded else []
    if "bcd" in loaded and registry.methods["bcd"].weights:
        checks += checks_for("bcd", suite="sprites-procedural", tolerance=ROUNDING)
    return [pytest.param(check, id=str(check)) for check in checks]


@pytest.mark.parametrize("check", _checks())
def test_conformance(check) -> None:
    check()
