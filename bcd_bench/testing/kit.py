"""The conformance kit: one small check per requirement of the plugin API, with an actionable message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from bcd_bench.plugin.registry import KINDS, load_registry, nearest
from bcd_bench.testing import (
    extractor_checks,
    method_checks,
    metric_checks,
    plugin_checks,
    preprocessor_checks,
    suite_checks,
)
from bcd_bench.testing.check import Check, Subject
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["Check", "Subject", "checks_for", "parametrize_with_checks"]


def _suite_for(registry: Registry, kind: str, spec: Any, suite: str | None) -> str | None:
    """The suite for testing a component: the author's choice, or the one that a metric is limited to."""
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
    """Return every check that applies to the components of the installed plugin `plugin`.

    plugin: its entry-point name, as printed by `bcd-bench list plugins`.
    suite: test methods and metrics on pairs of this suite; by default on synthetic clips of 8 frames, 64 x 64.
    tolerance: mean absolute difference in grey levels allowed between orders and batch sizes (rounding of batched float
        arithmetic); 0 requires equal bytes. Repeating the same call must always yield equal bytes.
    only: names of methods, metrics, suites and extractors to check; by default all.
    config: method -> settings for the checks, for methods that do nothing by default.

    Raises `UsageError` for a plugin that is not installed or failed to load, and for names it does not provide.
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
        "preprocessors": preprocessor_checks.CHECKS,
    }
    checks = []
    checked = set()
    for kind in KINDS:
        for name, spec in sorted(getattr(registry, kind).items()):
            if registry.owner(kind, name) != info or (only is not None and name not in only):
                continue
            checked.add(name)
            test_suite = _suite_for(registry, kind, spec, suite)
            subject = Subject(registry, info, kind, spec, test_suite, tolerance, config=config or {})
            for check in (*plugin_checks.SPEC_CHECKS, *checks_by_kind.get(kind, ())):
                checks.append(Check(check.__name__, name, partial(check, subject)))
    if only is not None and set(only) - checked:
        raise UsageError(f"plugin {plugin} provides no {', '.join(sorted(set(only) - checked))}")
    plugin_subject = Subject(registry, info, "plugins", None)
    return [Check(check.__name__, plugin, partial(check, plugin_subject)) for check in plugin_checks.CHECKS] + checks


def parametrize_with_checks(
    plugin: str,
    *,
    suite: str | None = None,
    tolerance: float = 0.0,
    only: Sequence[str] | None = None,
    config: Mapping[str, Mapping[str, Any]] | None = None,
) -> pytest.MarkDecorator:
    """Decorate `def test_conformance(check): check()` to run every check of `checks_for` as a separate test."""
    checks = checks_for(plugin, suite=suite, tolerance=tolerance, only=only, config=config)
    return pytest.mark.parametrize("check", checks, ids=[str(check) for check in checks])
