"""The executor `slurm`: times, parameters, the end of tasks, and jobs as processes of this machine (submitit's)."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import stat
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bcd_bench.run.elsewhere import ShardWork, TrainWork
from bcd_bench.types.errors import Interrupted, MissingDependencyError, UsageError

jobs = pytest.importorskip("bcd_bench_executors.slurm_jobs", reason="bcd-bench-executors is not installed")

SUBMITIT = pytest.mark.skipif(importlib.util.find_spec("submitit") is None, reason="submitit is not installed")


def settings(**changes: Any) -> dict[str, Any]:
    from bcd_bench_executors import plugin

    spec = next(found for found in plugin.bcd_bench_executors() if found.name == "slurm")
    return {**spec.config, "sbatch": {}, **changes}


def program(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)


def test_times_are_those_of_sbatch() -> None:
    times = {"90": 90, "90:30": 91, "1:30:00": 90, "1:00:01": 61, "2-12": 3600, "1-0:30": 1470, "1-00:00:10": 1441}
    assert {text: jobs.minutes(text) for text in times} == times
    for text in ("", "x", "1:2:3:4", "-5", "1h", "0", "00:00"):
        with pytest.raises(UsageError, match="--slurm-time"):
            jobs.minutes(text)


def test_without_submitit_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(MissingDependencyError, match="executor 'slurm' needs the package 'submitit'") as error:
        jobs.open_executor(settings(), tmp_path, "x")
    assert error.value.hint == "pip install 'bcd-bench-executors[slurm]'"


def test_the_number_of_tasks_has_to_be_given() -> None:
    from bcd_bench_executors.slurm_run import needs_jobs

    with pytest.raises(UsageError, match="--executor slurm needs --jobs N"):
        needs_jobs(settings(), "cpu")


@SUBMITIT
def test_the_script_of_a_job_has_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(UsageError, match="finds no sbatch on this machine"):
        jobs.open_executor(settings(), tmp_path, "x")
    program(tmp_path / "bin", "srun", "")
    refusal = "sbatch: error: Batch job submission failed: Invalid account"
    program(tmp_path / "bin", "sbatch", f"echo '{refusal}' >&2; exit 1")
    for change, says in (
        ({"cpus": 0}, "--slurm-cpus 0: must be at least 1"),
        ({"gpus": -1}, "--slurm-gpus -1: must not be negative"),
        ({"cluster": "pbs"}, "--slurm-cluster pbs: must be slurm or local"),
        ({"time": "soon"}, "--slurm-time soon: not a time of Slurm"),
    ):
        with pytest.raises(UsageError, match=says):
            jobs.open_executor(settings(**change), tmp_path, "x")
    chosen = settings(
        partition="gpu", time="1-00:00:00", gpus=2, cpus=4, memory="8G", warn=300, setup="module load cuda",
        sbatch={"exclude": "node1"},
    )  # fmt: skip
    executor = jobs.open_executor(chosen, tmp_path / "job", "bcd-bench bcd", nodes=3, tasks=2)
    script = executor._make_submission_file_text("work", "1")
    for line in (
        "--partition=gpu", "--time=1440", "--gpus-per-node=4", "--cpus-per-task=4", "--mem=8G", "--nodes=3",
        "--requeue", "--ntasks-per-node=2", "--signal=USR2@300", "--exclude=node1", "--job-name='bcd-bench bcd'",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in script, line
    assert "\nmodule load cuda\n" in script
    assert " --cpus-per-task=4 work" in script
    with pytest.raises(UsageError, match=r"Slurm refused the job: .*Invalid account"):
        jobs.submit(lambda: executor.submit(os.getpid))


def test_states_come_from_squeue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    job = jobs.Submitted("7")
    program(tmp_path / "bin", "squeue", 'echo "RUNNING|None"; echo "PENDING|Resources"; echo "PENDING|Resources"')
    assert job.states() == Counter({"PENDING (Resources)": 2, "RUNNING": 1})
    assert job.cancel == "scancel 7"
    (tmp_path / "jobs.json").write_text(json.dumps({"job": "7"}))
    assert jobs.Submitted.earlier(tmp_path) == job
    program(tmp_path / "bin", "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert job.states() == Counter()
    assert jobs.Submitted.earlier(tmp_path) is None
    (tmp_path / "jobs.json").write_text('{"job": "7; rm -rf ."}')
    assert jobs.Submitted.earlier(tmp_path) is None
    program(tmp_path / "bin", "squeue", "echo 'Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(OSError, match="Unable to contact slurm controller"):
        job.states()


def test_following_ends_with_the_job_and_survives_a_silent_slurm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answers: list[Any] = [Counter({"PENDING (Priority)": 2}), OSError("a"), OSError("b"), OSError("c"),
                          Counter({"RUNNING": 2}), Counter({"RUNNING": 2}), Counter()]  # fmt: skip

    class Job(jobs.Submitted):  # type: ignore[misc, name-defined]
        def states(self) -> Counter[str]:
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return Counter(answer)

    monkeypatch.setattr(jobs, "POLL", 0.0)
    monkeypatch.setattr(jobs, "ASK", 0.0)
    lines = [line for line in jobs.follow(Job("7"), lambda: iter(())) if line is not None]
    assert lines == [
        "slurm job 7: 2 pending (priority)",
        "Slurm does not answer, waiting: c",
        "slurm job 7: 2 running",
    ]


@SUBMITIT
@pytest.mark.parametrize("warned", [True, False])
def test_a_warned_task_is_queued_again_and_a_cancelled_one_is_not(tmp_path: Path, warned: bool) -> None:
    queued: list[int] = []
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        signal.signal(signal.SIGUSR2, lambda number, frame: queued.append(number))
        with pytest.raises(KeyboardInterrupt), jobs.Ending(tmp_path / "error.json") as ending:
            os.kill(os.getpid(), signal.SIGUSR1 if warned else signal.SIGTERM)
        with pytest.raises(SystemExit) as left:
            ending.leave()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert left.value.code == 143
    assert (ending.warned, len(queued)) == (warned, int(warned))
    ending.note("it failed", "do this")
    assert jobs.noted(ending.file) == ("it failed", "do this")
    ending.file.write_text("[]")
    assert jobs.noted(ending.file) is None


def test_torchrun_joins_the_tasks_of_a_job() -> None:
    from bcd_bench_executors.slurm_train import OURS, torchrun

    alone = torchrun(["train", "bcd"], tasks=1, rank=0, processes=1, host="a", port=1)
    assert alone == [sys.executable, "-m", "bcd_bench", "train", "bcd"]
    second = torchrun(["train", "bcd"], tasks=2, rank=1, processes=4, host="a", port=20007)
    assert second[1:] == [
        "-m", "torch.distributed.run", "--nnodes", "2", "--node-rank", "1", "--nproc-per-node", "4",
        "--master-addr", "a", "--master-port", "20007", "-m", "bcd_bench", "train", "bcd",
    ]  # fmt: skip
    shown = ["step 2: loss 1", "train bcd: 3/12 steps", "weights: x", "error: no", "interrupted: stopped"]
    assert [bool(OURS.match(line)) for line in shown] == [True] * 5
    hidden = ["Traceback (most recent call last):", "  File: x", "srun: error: vm", "submitit WARNING (1): x"]
    assert [bool(OURS.match(line)) for line in hidden] == [False] * 4


@SUBMITIT
def test_training_elsewhere_continues_only_with_resume(tmp_path: Path) -> None:
    from bcd_bench_executors.slurm_train import train

    work = TrainWork(("train", "net"), tmp_path, tmp_path, "cpu", True)
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        list(train(work, settings=settings(cluster="local")))
    (tmp_path / "checkpoint.pt").touch()
    with pytest.raises(UsageError, match="already contains a training run"):
        list(train(TrainWork(("train", "net"), tmp_path, tmp_path, "cpu", False), settings=settings(cluster="local")))


@SUBMITIT
@pytest.mark.slow
def test_training_runs_in_a_job(tmp_path: Path) -> None:
    from bcd_bench_executors.slurm_train import train

    arguments = ("train", "cdsvae", "--preset", "absent", "--out", str(tmp_path))
    work = TrainWork(arguments, tmp_path, tmp_path, "cpu", False)
    lines: list[str | None] = []
    with pytest.raises(UsageError, match="the training ended with exit code 2 in task 0"):
        lines.extend(train(work, settings=settings(cluster="local", warn=5)))
    assert any(line and line.startswith("error: ") for line in lines), "the reason is in the log and is shown"


@SUBMITIT
@pytest.mark.slow
def test_shards_as_jobs_give_the_record(tmp_path: Path) -> None:
    run = ["run", "--method", "copy-content", "--suite", "sprites-procedural", "--limit", "48", "--metric", "flicker"]
    environment = {**os.environ, "BCD_BENCH_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    def cli(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "bcd_bench", *run, *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
        )

    if cli("--out", "here", "--jobs", "1").returncode == 2:
        pytest.skip("bcd-bench-sprites and bcd-bench-fidelity are not installed")
    done = cli("--out", "there", "--jobs", "2", "--executor", "slurm", "--slurm-cluster", "local", "--slurm-warn", "5")
    assert done.returncode == 0, done.stderr
    assert "submitted 2 shards as job " in done.stderr
    [here], [there] = ((tmp_path / name).glob("*/*/*") for name in ("here", "there"))
    for name in ("record.json", "values.json", "env.json"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    assert not (there / "shards").exists()
    assert "48/48 pairs, recorded" in subprocess.run(
        [sys.executable, "-m", "bcd_bench", "status", str(there)], env=environment, capture_output=True, text=True,
        timeout=60, check=True,
    ).stdout  # fmt: skip


@SUBMITIT
def test_a_task_of_the_array_notes_its_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from bcd_bench.run import run_shard as module
    from bcd_bench.run.shard import Shard
    from bcd_bench_executors import slurm_run

    class Plan:
        folder = Path("run")
        device = "cpu"

    def fails(work: ShardWork, shard: Shard, **options: Any) -> None:
        assert options == {"jobs": 3, "devices": ()}
        raise UsageError("the data is not on this node", hint="--data")

    def breaks(work: ShardWork, shard: Shard, **options: Any) -> None:
        raise ZeroDivisionError("division by zero")

    def stops(work: ShardWork, shard: Shard, **options: Any) -> None:
        raise Interrupted("stopped")

    task = slurm_run.ShardTask(ShardWork(Plan(), (), tmp_path), 3)  # type: ignore[arg-type]
    (tmp_path / "run" / "slurm").mkdir(parents=True)
    numbers = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        monkeypatch.setattr(module, "run_shard", fails)
        with pytest.raises(SystemExit) as failed:
            task(Shard(1, 2))
        file = tmp_path / "run" / "slurm" / "error-0001-of-0002.json"
        assert jobs.noted(file) == ("the data is not on this node", "--data")
        assert failed.value.code == 2
        monkeypatch.setattr(module, "run_shard", breaks)
        with pytest.raises(ZeroDivisionError):
            task(Shard(1, 2))
        assert str(jobs.noted(file)).startswith("('ZeroDivisionError: division by zero (test_slurm.py:")
        monkeypatch.setattr(module, "run_shard", stops)
        with pytest.raises(SystemExit) as stopped:
            task(Shard(1, 2))
        assert stopped.value.code == 143, "cancelled, or queued again by Slurm: no result and no error"
        assert jobs.noted(file) is None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    again = task.checkpoint(Shard(1, 2))
    assert (again.function, again.args) == (task, (Shard(1, 2),))
