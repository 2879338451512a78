"""pytest fixtures for plugin authors, registered through the entry point `pytest11`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["bcd_bench_cli", "bcd_bench_home"]


@pytest.fixture
def bcd_bench_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder for a single test (`BCD_BENCH_HOME`)."""
    home = tmp_path / "bcd-bench-home"
    monkeypatch.setenv("BCD_BENCH_HOME", str(home))
    return home


@pytest.fixture
def bcd_bench_cli(bcd_bench_home: Path, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `bcd-bench ARGUMENTS…` in a separate process, in the test's folder, and return the completed process.

    Keyword `env` adds environment variables, `cwd` sets a different folder, `timeout` is in seconds.
    """

    def run(
        *arguments: str | Path, env: dict[str, str] | None = None, cwd: Path = tmp_path, timeout: float | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bcd_bench", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )

    return run
