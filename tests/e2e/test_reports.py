"""LaTeX that compiles, and the figures that papers report."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

needs_latex = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


def compile_latex(source: Path) -> str:
    """Run pdflatex twice as one does; returns its log."""
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source.name],
            cwd=source.parent,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=3600,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-2000:]
    assert source.with_suffix(".pdf").read_bytes().startswith(b"%PDF")
    return done.stdout


@needs_latex
def test_a_latex_report_compiles(cli, tmp_path: Path) -> None:
    assert cli("run", "--method", "toy-swap,copy-content,oracle", "--suite", "toy").returncode == 0
    assert cli("run", "--method", "toy-swap", "--suite", "toy", "--set", "noise=9").returncode == 0
    assert cli("run", "--method", "toy-flaky", "--suite", "toy").returncode == 1
    assert cli("report", "--format", "latex", "--output", "table.tex").returncode == 0
    source = (tmp_path / "table.tex").read_text()
    assert "\\toprule" in source
    assert "Paper \\& Sons\\_1" in source
    assert "\\textbf{" in source
    log = compile_latex(tmp_path / "table.tex")
    assert "Undefined control sequence" not in log


@needs_latex
def test_the_papers_rows_compile_as_reported(cli, tmp_path: Path) -> None:
    pytest.importorskip("bcd_bench_sprites", reason="the sprites plugin is not installed")
    env = {"BCD_BENCH_PLUGINS": "sprites"}
    arguments = ("report", tmp_path, "--suite", "sprites")
    assert cli(*arguments, "--format", "latex", "--output", "table.tex", env=env).returncode == 0
    source = (tmp_path / "table.tex").read_text()
    below = source.partition("(reported)")[2]
    assert [line for line in below.splitlines() if "BCD" in line and "100.00" in line]
    compile_latex(tmp_path / "table.tex")
    rows = json.loads(cli(*arguments, "--format", "json", env=env).stdout)
    [bcd] = [row for row in rows if row["method"] == "BCD"]
    assert (bcd["reported"], bcd["run_id"]) == (True, None)
    accuracies = {name: bcd["metrics"][name]["value"] for name in ("action", "skin", "pants", "top", "hair")}
    assert set(accuracies.values()) == {100.0}


def test_the_oracle_is_right_about_everything_on_sprites(cli, tmp_path: Path) -> None:
    pytest.importorskip("bcd_bench_sprites", reason="the sprites plugin is not installed")
    env = {"BCD_BENCH_PLUGINS": "sprites"}
    run = ("run", "--method", "oracle,copy-motion,copy-content", "--suite", "sprites-procedural", "--limit", "12")
    done = cli(*run, env=env)
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row["metrics"] for row in json.loads(cli("report", "--format", "json", env=env).stdout)}
    for name in ("action", "skin", "pants", "top", "hair", "exact-nearest"):
        assert rows["oracle"][name]["value"] == 100.0, name
    assert rows["copy-motion"]["action"]["value"] == 100.0
    assert rows["copy-motion"]["skin"]["value"] < 50
    assert rows["copy-content"]["hair"]["value"] == 100.0
    assert rows["copy-content"]["action"]["value"] < 50
