"""Workers, shards and merging from the command line: equal files, and accidents that cost one pair and one line."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

RUN = ("run", "--method", "toy-swap", "--suite", "toy")
EQUAL = ("record.json", "values.json", "env.json", "plan.json")


def only_run(out: Path) -> Path:
    [plan] = out.rglob("plan.json")
    return plan.parent


def contents(run: Path) -> dict[str, bytes]:
    files = {name: (run / name).read_bytes() for name in EQUAL}
    return files | {path.name: path.read_bytes() for path in sorted((run / "outputs").iterdir())}


def test_jobs_and_shards_write_the_bytes_of_one_worker(cli, tmp_path: Path) -> None:
    assert cli(*RUN, "--jobs", "1", "--out", "one").returncode == 0
    assert cli(*RUN, "--jobs", "2", "--out", "two").returncode == 0
    one = only_run(tmp_path / "one")
    assert contents(only_run(tmp_path / "two")) == contents(one)
    assert len(contents(one)) == 24 + len(EQUAL)
    done = cli(*RUN, "--jobs", "1", "--out", "parts", "--shard", "2/3")
    assert done.returncode == 0, done.stderr
    assert "shard 2/3: 8 pairs finished, 0 failed" in done.stdout
    assert "not merged yet: shard 1/3 is missing" in done.stderr, "24 pairs make two parts of up to 16"
    parts = only_run(tmp_path / "parts")
    assert not (parts / "record.json").exists()
    status = json.loads(cli("status", "parts", "--json").stdout)[0]
    assert (status["n_pairs"], status["recorded"]) == (24, False)
    assert [(part["shard"], part["n_pairs"], part["state"]) for part in status["parts"]] == [("2/3", 8, "finished")]
    shards = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "0"}
    last = cli(*RUN, "--jobs", "1", "--out", "parts", "--shard", "auto", env=shards)
    assert last.returncode == 0, last.stderr
    assert contents(parts) == contents(one)
    assert not (parts / "shards").exists()
    status = cli("status", "parts").stdout
    assert "24/24 pairs, recorded" in status


def test_a_run_in_parts_that_is_not_complete_says_what_is_missing(cli, tmp_path: Path) -> None:
    assert cli(*RUN, "--shard", "1/2").returncode == 0
    run = only_run(tmp_path / "runs")
    for arguments, says in (
        (("merge", run), "cannot be merged: shard 2/2 is missing"),
        (RUN, "contains shards that are not merged"),
        ((*RUN, "--shard", "1/3"), "contains shards of 2, not of 3"),
        ((*RUN, "--shard", "3/2"), "--shard 3/2: the number must be from 1 to 2"),
        ((*RUN, "--shard", "auto"), "--shard auto: none of SLURM_ARRAY_TASK_ID, RANK and SLURM_PROCID is set"),
        ((*RUN, "--devices", "0"), "--devices 0: only for --device cuda"),
        ((*RUN, "--timeout", "0"), "--timeout 0: must be a positive number of seconds"),
        ((*RUN, "--log-json", "absent/log"), "--log-json absent/log: No such file or directory"),
        (("merge", "absent"), "absent is not a run folder"),
    ):
        done = cli(*arguments, "--out", "other") if "--devices" in arguments else cli(*arguments)
        assert done.returncode == 2, (arguments, done.stderr)
        [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert says in error
        assert "Traceback" not in done.stderr


def workers_of(pid: int) -> list[int]:
    """The processes that a process has started, without multiprocessing's resource tracker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(path.read_text().rpartition(")")[2].split()[1])
            command = (path.parent / "cmdline").read_text()
        except (OSError, ValueError):
            continue
        if parent == pid and "spawn_main" in command:
            found.append(int(path.parent.name))
    return found


@pytest.fixture
def slow(toy_env: dict[str, str], tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def start(*extra: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bcd_bench", "run", "--method", "toy-slow", "--suite", "toy", *extra]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=tmp_path, env=toy_env, text=True, **pipes)

    return start


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.02)


def noted(out: Path) -> int:
    return sum(len(path.read_text().splitlines()) for path in out.rglob("pairs.jsonl"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_workers_killed_from_outside_cost_a_retry(cli, slow, tmp_path: Path) -> None:
    process = slow("--jobs", "2", "--log-json", "log.jsonl")
    wait_for(lambda: noted(tmp_path / "runs") >= 4, process)
    for pid in workers_of(process.pid):
        os.kill(pid, signal.SIGKILL)
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    deaths = [event["reason"] for event in events if event["event"] == "worker_died"]
    assert deaths
    assert set(deaths) == {"the worker was killed by SIGKILL, out of memory?"}
    assert cli("run", "--method", "toy-slow", "--suite", "toy", "--jobs", "1", "--out", "whole").returncode == 0
    assert contents(only_run(tmp_path / "runs")) == contents(only_run(tmp_path / "whole"))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_the_command(slow, tmp_path: Path, number: signal.Signals) -> None:
    process = slow("--jobs", "2")
    wait_for(lambda: noted(tmp_path / "runs") >= 4, process)
    workers = workers_of(process.pid)
    assert len(workers) == 2
    process.send_signal(number)
    process.communicate(timeout=600)
    assert process.returncode == (4 if number == signal.SIGINT else -signal.SIGKILL)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() and state(pid) != "Z" for pid in workers):
        assert time.monotonic() < deadline, "a worker outlives the command"
        time.sleep(0.05)


def state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "Z"


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("crash", "its worker died 3 times (the worker was killed by SIGSEGV, segmentation fault)"),
        ("oom", "its worker died 3 times (the worker was killed by SIGKILL, out of memory?)"),
        ("hang", "no result within 3 s (--timeout)"),
    ],
)
def test_a_method_that_crashes_or_hangs_costs_its_pair_one_line_and_exit_code_1(
    cli, tmp_path: Path, damage: str, reason: str
) -> None:
    options = ("--set", f"damage={damage}", "--set", "bad=c1-m3", "--timeout", "3", "--jobs", "2")
    done = cli("run", "--method", "toy-flaky", "--suite", "toy", *options)
    assert done.returncode == 1, done.stderr
    lines = [json.loads(line) for line in (only_run(tmp_path / "runs") / "pairs.jsonl").read_text().splitlines()]
    assert {line["id"]: line["error"] for line in lines if line["status"] == "failed"} == {"c1-m3": reason}
    assert len(lines) == 24
    assert [line for line in done.stderr.splitlines() if "c1-m3" in line] == [f"pair c1-m3 failed: {reason}"]
    assert "Traceback" not in done.stderr
