"""One check of the conformance kit, and the spec that it checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from bcd_bench.plugin.suites import load_suite
from bcd_bench.testing.synthetic import practice_pairs
from bcd_bench.types.errors import MissingAssetError, MissingDependencyError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import PluginInfo, Registry
    from bcd_bench.types.pair import Pair

__all__ = ["Check", "Subject"]


@dataclass(frozen=True)
class Check:
    """One promise of one thing. Calling it raises AssertionError where the promise is broken."""

    name: str
    subject: str
    function: Callable[[], None]

    def __call__(self) -> None:
        """Run the check; skips the test where an asset or package that the thing needs is not on this machine."""
        try:
            self.function()
        except (MissingAssetError, MissingDependencyError) as error:
            pytest.skip(str(error))

    def __str__(self) -> str:
        return f"{self.subject}-{self.name}"


@dataclass(frozen=True)
class Subject:
    """What a check looks at: a spec, and how its author wants it tried."""

    registry: Registry = field(repr=False)
    plugin: PluginInfo
    kind: str
    spec: Any
    suite: str | None = None
    tolerance: float = 0.0
    count: int = 3
    config: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Method -> settings to try it with, beside its defaults."""

    def pairs(self) -> list[Pair]:
        """The pairs to try it on: those of the suite it is made for, else practice clips."""
        if self.suite is None:
            return list(practice_pairs(self.count))
        suite = load_suite(self.registry, self.suite)
        step = max(1, len(suite.pairs) // self.count)  # spread over the suite, so that pairs differ
        return [suite.pairs[index] for index in range(0, step * self.count, step)]
