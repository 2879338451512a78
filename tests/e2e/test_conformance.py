"""The conformance kit over the plugins of this repository."""

from __future__ import annotations

import pytest

from bcd_bench.plugin.registry import load_registry
from bcd_bench.testing import checks_for, plugin_checks

ROUNDING = 1.0
"""Grey levels by which the company in a batch may move BCD's output, through batched float arithmetic."""

LIGHT = {check.__name__ for check in (*plugin_checks.CHECKS, *plugin_checks.SPEC_CHECKS)}
TRIED = ("cdsvae",)
"""Of the baselines, the one that runs on practice clips in seconds. `folder` and `external` want settings and are tried
in their own tests; the others take a second a frame, or clips with faces."""

GENERATORS = ("bcd-generate", "bcd-markov", "bcd-training-motion")
"""Methods that continue the content clip; their default weights are those of the generation suites."""


def _checks() -> list[object]:
    registry = load_registry()
    loaded = {plugin.name for plugin in registry.plugins if plugin.status == "ok"}
    checks = checks_for("sprites", suite="sprites-procedural") if "sprites" in loaded else []
    checks += checks_for("fidelity") if "fidelity" in loaded else []
    if "bcd" in loaded and registry.methods["bcd"].weights:
        found = checks_for("bcd", suite="sprites-procedural", tolerance=ROUNDING)
        checks += [check for check in found if check.subject not in GENERATORS]
        found = checks_for("bcd", suite="sprites-procedural-generate", tolerance=ROUNDING)
        checks += [check for check in found if check.subject in GENERATORS]
    if "baselines" in loaded:
        found = checks_for("baselines", suite="sprites-procedural")
        checks += [check for check in found if check.name in LIGHT or check.subject in TRIED]
    return [pytest.param(check, id=str(check)) for check in checks]


@pytest.mark.parametrize("check", _checks())
def test_conformance(check) -> None:
    check()
