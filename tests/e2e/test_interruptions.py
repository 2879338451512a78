"""kill -9, Ctrl-C and SIGTERM in the middle of a run: nothing is lost, and the end is the same."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = ("run", "--method", "toy-slow", "--suite", "toy")


def start(env: dict[str, str], cwd: Path, *extra: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "bcd_bench", *COMMAND, *extra],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(out: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in out.rglob("pairs.jsonl"))


def stop_after(process: subprocess.Popen[str], out: Path, pairs: int, number: signal.Signals) -> str:
    """Send `number` once `pairs` pairs are noted; returns what the process said on stderr."""
    deadline = time.monotonic() + 120
    while finished(out) < pairs:
        assert process.poll() is None, f"ended by itself: {process.stderr.read()}"
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.01)
    process.send_signal(number)
    return process.communicate(timeout=3600)[1]


def contents(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run / "outputs").iterdir())}


def only_run(out: Path) -> Path:
    [plan] = out.rglob("plan.json")
    return plan.parent


def test_kill_9_three_times_then_finish(cli, toy_env: dict[str, str], tmp_path: Path) -> None:
    for pairs in (4, 8, 16):
        process = start(toy_env, tmp_path)
        stop_after(process, tmp_path / "runs", pairs, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        assert not list((tmp_path / "runs").rglob("record.json"))
    # what a killed writer may leave behind: a torn line, and a file that was not yet renamed
    run = only_run(tmp_path / "runs")
    with (run / "pairs.jsonl").open("a") as stream:
        stream.write('{"id": "c5-m3", "status": "o')
    assert finished(tmp_path / "runs") < 24
    assert cli(*COMMAND).returncode == 0
    assert cli(*COMMAND, "--out", "whole").returncode == 0
    whole = only_run(tmp_path / "whole")
    lines = [json.loads(line) for line in (run / "pairs.jsonl").read_text().splitlines()]
    planned = [pair["id"] for pair in json.loads((run / "plan.json").read_text())["pairs"]]
    assert [line["id"] for line in lines] == planned
    assert len(set(planned)) == 24
    assert contents(run) == contents(whole)
    assert sorted(path.name for path in (run / "outputs").iterdir()) == sorted(f"{name}.mkv" for name in planned)
    assert (run / "values.json").read_bytes() == (whole / "values.json").read_bytes()
    assert (run / "record.json").read_bytes() == (whole / "record.json").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_is_exit_4_and_resumable(
    cli, toy_env: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    process = start(toy_env, tmp_path)
    said = stop_after(process, tmp_path / "runs", 4, number)
    assert process.returncode == 4, said
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith(("interrupted: ", "hint: "))
    done = finished(tmp_path / "runs")
    assert 4 <= done < 24
    again = cli(*COMMAND)
    assert again.returncode == 0
    assert f"generate: {done}/24 pairs" in again.stderr


def test_two_processes_do_not_write_to_one_run(cli, tmp_path: Path) -> None:
    assert cli(*COMMAND).returncode == 0
    with (only_run(tmp_path / "runs") / ".lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # as another process that is at it would
        second = cli(*COMMAND)
    assert second.returncode == 2
    assert "is being written by another process" in second.stderr
    assert cli(*COMMAND).returncode == 0


def test_a_damaged_output_is_made_again(cli, tmp_path: Path) -> None:
    assert cli(*COMMAND).returncode == 0
    run = only_run(tmp_path / "runs")
    before = contents(run)
    victim = run / "outputs" / "c2-m1.mkv"
    victim.write_bytes(victim.read_bytes()[:100])
    assert cli(*COMMAND).returncode == 0
    assert contents(run) == before


FULL = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module("bcd_bench", run_name="__main__")
"""


def test_a_full_disk_is_one_clear_line_and_loses_nothing(cli, toy_env: dict[str, str], tmp_path: Path) -> None:
    assert cli(*COMMAND, "--out", "whole").returncode == 0
    whole = only_run(tmp_path / "whole")
    noted = (whole / "pairs.jsonl").stat().st_size
    assert (whole / "plan.json").stat().st_size < noted - 300
    # no file may grow beyond this, so that noting the last pairs fails as on a full disk
    command = [sys.executable, "-c", FULL, str(noted - 300), *COMMAND]
    full = subprocess.run(
        command, cwd=tmp_path, env=toy_env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert full.returncode == 2, full.stderr
    assert [line for line in full.stderr.splitlines() if line.startswith("error: cannot write to ")]
    assert "Traceback" not in full.stderr
    run = only_run(tmp_path / "runs")
    assert not (run / "record.json").exists()
    assert cli(*COMMAND).returncode == 0
    assert contents(run) == contents(whole)
    assert (run / "record.json").read_bytes() == (whole / "record.json").read_bytes()
