"""One vocabulary for all commands: help that fits, examples, lists, hidden old spellings, completion, assets by use."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import scoring_toy
import toy_plugin
from rich.console import Console

from bcd_bench import AssetSpec
from bcd_bench.cli.app import VERBS, main
from bcd_bench.cli.assets import assets_for
from bcd_bench.cli.tables import _groups, _print_table
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.table import Cell, Line, Table
from bcd_bench.types.errors import UsageError


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(arguments)
    assert exit_.value.code == 0
    return capsys.readouterr().out


def test_no_line_of_the_general_help_is_cut(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = output_of(capsys, "--help")
    assert "..." not in text.partition("Options:")[2]
    assert all(summary in text for summary in VERBS.values())
    assert output_of(capsys, "-h") == text


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_examples_and_a_short_option_for_help(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    text = output_of(capsys, verb, "--help")
    assert f"Examples:\n    bcd-bench {verb}" in text
    assert output_of(capsys, verb, "-h") == text
    assert "<list[" not in text.partition("Options:")[2]


def test_old_spellings_work_and_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--config" not in output_of(capsys, "run", "--help")
    assert "--plan" not in output_of(capsys, "train", "--help")


def test_names_are_completed_also_behind_a_comma() -> None:
    def complete(line: str) -> set[str]:
        words = line.split(" ")
        environment = {
            **os.environ,
            "_BCD_BENCH_COMPLETE": "complete_bash",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(words) - 1),
            "BCD_BENCH_PLUGINS": "core",
        }
        done = subprocess.run(
            [sys.executable, "-c", "from bcd_bench.cli import main; main()"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return set(done.stdout.split())

    assert complete("bcd-bench run --method copy") == {"copy-content", "copy-motion"}
    assert complete("bcd-bench run --method oracle,copy-c") == {"oracle,copy-content"}


def test_assets_of_a_metric_a_method_and_a_suite() -> None:
    registry = Registry.from_modules([toy_plugin, scoring_toy])
    owner = registry.owner("methods", "noise")
    for name in ("lens", "film"):
        registry.add("assets", AssetSpec(name, f"{name}.bin", "", 0, "MIT", "make it"), owner)
    registry.methods["noise"] = replace(registry.methods["noise"], assets=("lens",))
    metric = next(iter(registry.metrics))
    registry.metrics[metric] = replace(registry.metrics[metric], assets=("film",))
    assert assets_for(registry, "noise") == ["lens"]
    assert assets_for(registry, metric) == ["film"]
    with pytest.raises(UsageError, match="--for nois: no such suite, metric or method; did you mean noise"):
        assets_for(registry, "nois")


@pytest.mark.parametrize("width", [50, 60, 100, 300])
def test_wide_tables_are_split_so_that_no_value_is_cut(width: int, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = (Cell("100.00", "[99.86, 100.00]"), Cell("3.14", "[2.70, 3.50]"))
    lines = tuple(Line(f"method-{index}", "", cells) for index in range(7))
    table = Table("suite@1", ("action (%) ↑", "error (mm) ↓"), ("a", "b"), lines, ("a note",))
    monkeypatch.setattr("bcd_bench.cli.tables.console", lambda: Console(width=width, highlight=False))
    _print_table(table)
    text = capsys.readouterr().out
    assert text.count("100.00 [99.86, 100.00]") == 7
    assert all(f"method-{index}" in text for index in range(7))
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines() if line.startswith("|"))
    assert [len(group) for group in _groups(table, 300)] == [7]
