"""Gives the end-to-end tests a toy plugin, installed into a folder on PYTHONPATH, and `bcd-bench` as a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


def install(site: Path, distribution: str, entry_point: str, module: str) -> None:
    """Write the metadata that makes a folder on the path an installed distribution."""
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[bcd_bench]\n{entry_point} = {module}\n")


@pytest.fixture(scope="session")
def install_plugin() -> Callable[[Path, str, str, str], None]:
    """`install_plugin(site, distribution, entry_point, module)`: see `install`."""
    return install


@pytest.fixture(scope="session")
def toy_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the toy plugin as an installed distribution."""
    site = tmp_path_factory.mktemp("site")
    shutil.copytree(HERE / "toy" / "bcd_bench_toy", site / "bcd_bench_toy", ignore=shutil.ignore_patterns("*.pyc"))
    install(site, "bcd-bench-toy", "toy", "bcd_bench_toy.plugin")
    return site


def environment(toy_site: Path, home: Path) -> dict[str, str]:
    """The environment of a process that sees the core and the toy plugin alone, with its cache in `home`."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("BCD_BENCH_", "TOY_"))}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(toy_site), os.environ.get("PYTHONPATH")])),
        "BCD_BENCH_PLUGINS": "toy",
        "BCD_BENCH_HOME": str(home),
        "COLUMNS": "200",
        "NO_COLOR": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def command(folder: Path, default: dict[str, str]) -> Cli:
    """`bcd-bench ARGUMENTS…` in a folder, with an environment that the keyword `env` changes."""

    def run(*arguments: str | Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bcd_bench", *map(str, arguments)],
            cwd=folder,
            env={**default, **(env or {})},
            capture_output=True,
            text=True,
            timeout=3600,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run


@pytest.fixture
def toy_env(toy_site: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a test's processes: the core and the toy plugin alone, a cache folder of its own."""
    return environment(toy_site, tmp_path / "home")


@pytest.fixture
def cli(toy_env: dict[str, str], tmp_path: Path) -> Cli:
    """Run `bcd-bench ARGUMENTS…` in the test's folder. Keyword `env` changes the environment."""
    return command(tmp_path, toy_env)


@pytest.fixture(scope="module")
def module_cli(toy_site: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Cli, Path]:
    """The same in a folder that the tests of a module share, and that folder."""
    folder = tmp_path_factory.mktemp("shared")
    return command(folder, environment(toy_site, folder / "home")), folder
