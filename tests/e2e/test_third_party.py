"""A plugin written by `new-plugin` in another folder installs, is listed, runs, is reported, and passes the kit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("bcd_bench_sprites", reason="the sprites plugin is not installed")


def install(cli, tmp_path: Path, *arguments: str) -> dict[str, str]:
    """Write the plugin my-method and install it into a folder of its own; the environment in which it is installed."""
    written = cli("new-plugin", "my-method", *arguments)
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


def conforms(tmp_path: Path, env: dict[str, str]) -> str:
    """Run the tests that the plugin brings, and return their output."""
    kit = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path / "bcd-bench-my-method")],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert kit.returncode == 0, kit.stdout
    assert "skipped" not in kit.stdout
    return kit.stdout


@pytest.fixture
def third_party(cli, tmp_path: Path) -> dict[str, str]:
    return install(cli, tmp_path)


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
    assert " passed" in conforms(tmp_path, {**toy_env, **third_party})


@pytest.mark.slow
def test_a_plugin_with_all_parts_runs_in_processes_and_conforms(cli, tmp_path: Path, toy_env: dict[str, str]) -> None:
    pytest.importorskip("hatchling", reason="building a plugin without a network needs hatchling installed")
    env = install(cli, tmp_path, "--with", "metric,suite", "--with", "extractor,executor")
    command = ("run", "--method", "my-method,oracle", "--suite", "my-method-squares")
    outputs = []
    for extra in ((), ("--executor", "my-method-processes", "--jobs", "2")):
        out = tmp_path / f"runs{len(extra)}"
        done = cli(*command, *extra, "--out", out, env=env)
        assert done.returncode == 0, done.stderr
        records = [json.loads(path.read_text()) for path in sorted(out.rglob("record.json"))]
        outputs.append({record["method"]["name"]: record["outputs_sha256"] for record in records})
        assert all(record["values"]["my-method-activity"]["n"] == 30 for record in records)
    assert outputs[0] == outputs[1]
    assert " passed" in conforms(tmp_path, {**toy_env, **env})
