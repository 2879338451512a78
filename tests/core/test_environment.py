"""The versions of packages in a record: those that ran, independent of what happens to be imported."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from bcd_bench.run.environment import package_versions


def versions_with(monkeypatch: pytest.MonkeyPatch, module: str, version: str) -> dict[str, str]:
    monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__=version))  # type: ignore[misc]
    return package_versions(["bcd-bench"])


@pytest.mark.parametrize("spelling", ["v{}", "{}", "{}+cpu"])
def test_a_version_that_a_module_spells_differently_leaves_the_record_as_it_is(
    monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    monkeypatch.delitem(sys.modules, "pooch", raising=False)
    without_import = package_versions(["bcd-bench"])
    with_import = versions_with(monkeypatch, "pooch", spelling.format(without_import["pooch"]))
    assert with_import == without_import


def test_a_module_of_another_version_than_its_metadata_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = package_versions(["bcd-bench"])["pooch"]
    assert versions_with(monkeypatch, "pooch", "0.0.1")["pooch"] == f"0.0.1 (metadata: {stated})"


def test_a_module_whose_version_is_no_version_number_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    stated = package_versions(["bcd-bench"])["pooch"]
    assert versions_with(monkeypatch, "pooch", "unknown")["pooch"] == f"unknown (metadata: {stated})"
