"""The plugin of the tutorial, written down and installed from the page: its commands run and it passes the kit."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"
FILE = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```', re.MULTILINE | re.DOTALL)
COMMANDS = re.findall(r"^bcd-bench .*$", PAGE.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page, blocks with one title one after the other, and metadata as an installation writes it."""
    folder = tmp_path_factory.mktemp("tutorial") / "bcd-bench-balls"
    for name, code in FILE.findall(PAGE.read_text()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(code if not path.stat().st_size else "\n\n" + code)
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    metadata = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = [f"{name} = {module}\n" for name, module in project["entry-points"]["bcd_bench"].items()]
    (metadata / "entry_points.txt").write_text("[bcd_bench]\n" + "".join(lines))
    (folder / "bcd_bench_balls" / "__init__.py").touch()
    return folder


@pytest.fixture(scope="module")
def env(plugin: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    paths = [str(plugin), str(PAGE.parents[1]), os.environ.get("PYTHONPATH", "")]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "BCD_BENCH_PLUGINS": "balls",
        "BCD_BENCH_HOME": str(tmp_path_factory.mktemp("home")),
        "NO_COLOR": "1",
    }


def run(words: list[str], folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@pytest.fixture(scope="module")
def outputs(plugin: Path, env: dict[str, str]) -> dict[str, str]:
    """The output of every bcd-bench command of the page, run in order."""
    found = {}
    for command in COMMANDS:
        done = run(["bcd_bench", *shlex.split(command)[1:]], plugin.parent, env)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        found[command] = done.stdout
    return found


def test_the_commands_run_and_the_report_is_the_one_on_the_page(outputs: dict[str, str]) -> None:
    assert len(outputs) >= 5
    [shown] = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert outputs["bcd-bench report --format bullets"] == shown
    assert "ball-position-error" in next(text for command, text in outputs.items() if "validate-metrics" in command)


def test_the_executor_gives_the_same_outputs(outputs: dict[str, str], plugin: Path) -> None:
    [first] = plugin.parent.glob("runs/balls@1/repaint/*/record.json")
    [second] = plugin.parent.glob("runs-pool/balls@1/repaint/*/record.json")
    assert first.parent.name == second.parent.name
    assert first.read_bytes() == second.read_bytes()


def test_it_passes_the_conformance_kit(plugin: Path, env: dict[str, str]) -> None:
    done = run(["pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(plugin), str(plugin)], plugin, env)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout
