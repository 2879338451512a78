"""The conformance kit: every promise a plugin makes, as one small check with a message that says what to mend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from bcd_bench.plugin.registry import KINDS, load_registry, nearest
from bcd_bench.testing import extractor_checks, method_checks, metric_checks, plugin_checks, suite_checks
from bcd_bench.testing.check import Check, Subject
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["Check", "Subject", "checks_for", "parametrize_with_checks"]


def _suite_for(registry: Registry, kind: str, spec: Any, suite: str | None) -> str | None:
    """The suite to try a thing on: the author's choice, or the one that a metric is limited to."""
    if kind == "metrics" and "*" not in spec.suites and suite not in spec.suites:
        return next((name for name in spec.suites if name in registry.suites), None)
    return suite


def checks_for(
    plugin: str,
    *,
    suite: str | None = None,
    tolerance: float = 0.0,
    only: Sequence[str] | None = None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Check]:
    """Every check that applies to what the installed plugin `plugin` hands in.

    plugin: its entry-point name, as `bcd-bench list plugins` prints it.
    suite: try methods and metrics on pairs of this suite; by default on practice clips of 8 frames, 64 x 64.
    tolerance: mean absolute difference in grey levels that order and batch may make (rounding of batched float
        arithmetic); 0 asks for equal bytes. The same call twice must always give equal bytes.
    only: names of methods, metrics, suites and extractors to check; by default all.
    config: method -> settings to try it with, for methods that do nothing without.

    Raises UsageError for a plugin that is not installed or did not load, and for names it does not bring.
    """
    registry = load_registry()
    info = next((p for p in registry.plugins if p.name == plugin), None)
    if info is None:
        raise UsageError(f"no plugin {plugin!r} is installed; {nearest(plugin, [p.name for p in registry.plugins])}")
    if info.status != "ok":
        raise UsageError(f"plugin {plugin} is BROKEN: {info.error}", hint="bcd-bench doctor")
    checks_by_kind = {
        "methods": method_checks.CHECKS,
        "metrics": metric_checks.CHECKS,
        "suites": suite_checks.CHECKS,
        "extractors": extractor_checks.CHECKS,
    }
    checks = []
    found = set()
    for kind in KINDS:
        for name, spec in sorted(getattr(registry, kind).items()):
            if registry.owner(kind, name) != info or (only is not None and name not in only):
                continue
            found.add(name)
            chosen = _suite_for(registry, kind, spec, suite)
            subject = Subject(registry, info, kind, spec, chosen, tolerance, config=config or {})
            for check in (*plugin_checks.SPEC_CHECKS, *checks_by_kind.get(kind, ())):
                checks.append(Check(check.__name__, name, partial(check, subject)))
    if only is not None and set(only) - found:
        raise UsageError(f"plugin {plugin} brings no {', '.join(sorted(set(only) - found))}")
    whole = Subject(registry, info, "plugins", None)
    return [Check(check.__name__, plugin, partial(check, whole)) for check in plugin_checks.CHECKS] + checks


def parametrize_with_checks(
    plugin: str,
    *,
    suite: str | None = None,
    tolerance: float = 0.0,
    only: Sequence[str] | None = None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> pytest.MarkDecorator:
    """Decorate `def test_conformance(check): check()` to run every check of `checks_for` as a test of its own."""
    checks = checks_for(plugin, suite=suite, tolerance=tolerance, only=only, config=config)
    return pytest.mark.parametrize("check", checks, ids=[str(check) for check in checks])
