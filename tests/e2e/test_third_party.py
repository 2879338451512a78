"""A plugin written by `new-plugin` in another folder installs, is listed, runs, is reported, and passes the kit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("bcd_bench_sprites", reason="the sprites plugin is not installed")


@pytest.fixture
def third_party(cli, tmp_path: Path, toy_env: dict[str, str]) -> dict[str, str]:
    """The environment in which the fresh plugin is installed (into a folder of its own, with pip)."""
    written = cli("new-plugin", "my-method")
    assert written.returncode == 0, written.stderr
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run(
        [*pip, "--target", str(target), str(tmp_path / "bcd-bench-my-method")],
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": str(target), "BCD_BENCH_PLUGINS": "my-method,sprites"}


@pytest.mark.slow
def test_it_installs_is_listed_runs_is_reported_and_conforms(
    cli, third_party: dict[str, str], tmp_path: Path, toy_env: dict[str, str]
) -> None:
    pytest.importorskip("hatchling", reason="building a plugin without a network needs hatchling installed")
    rows = json.loads(cli("list", "plugins", "--json", env=third_party).stdout)
    mine = next(row for row in rows if row["name"] == "my-method")
    assert (mine["distribution"], mine["version"], mine["status"]) == ("bcd-bench-my-method", "0.1.0", "ok")
    run = cli(
        *("run", "--method", "my-method,oracle", "--suite", "sprites-procedural", "--limit", "8"),
        *("--metric", "my-method-activity"),
        env=third_party,
    )
    assert run.returncode == 0, run.stderr
    report = json.loads(cli("report", "--format", "json", env=third_party).stdout)
    measured = {row["method"]: row for row in report if not row["reported"]}
    assert set(measured) == {"my-method", "oracle"}
    assert measured["my-method"]["partial"] is True
    value = measured["my-method"]["metrics"]["my-method-activity"]
    assert (value["n"], value["unit"]) == (8, "grey levels")
    assert value["value"] > 0
    kit = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "bcd-bench-my-method")],
        cwd=tmp_path,
        env={**toy_env, **third_party},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert kit.returncode == 0, kit.stdout
    assert " passed" in kit.stdout
    assert "skipped" not in kit.stdout
