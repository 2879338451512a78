"""The executor `ray`: a real local cluster if Ray is installed, and clear errors if it is not or does not answer."""

from __future__ import annotations

import importlib.util
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bcd_bench.plugin.specs import ExecutorSpec
from bcd_bench.types.errors import MissingDependencyError, UsageError

cluster = pytest.importorskip("bcd_bench_executors.ray_cluster", reason="bcd-bench-executors is not installed")

HERE = Path(__file__).parent
RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
SETTINGS = {"address": "", "cpus": 1.0, "gpus": -1.0, "wait": 600}


def spec() -> ExecutorSpec:
    from bcd_bench_executors import plugin

    return next(found for found in plugin.bcd_bench_executors() if found.name == "ray")


def test_without_ray_one_line_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match="executor 'ray' needs the package 'ray'") as error:
        cluster.default_jobs(SETTINGS, "cpu")
    assert error.value.hint == "pip install 'bcd-bench-executors[ray]'"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0", "nothing is sent to the internet"
    assert os.environ["RAY_worker_niceness"] == "0", "workers have the priority of the command"  # noqa: SIM112


@RAY
def test_an_address_that_does_not_answer_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    for address, says in (
        (f"127.0.0.1:{port}", f"the Ray cluster at 127.0.0.1:{port} does not answer: Connection refused"),
        (f"ray://127.0.0.1:{port}", "does not answer"),
        ("head", "--ray-address head: must be HOST:PORT"),
        ("head:99999", "must be HOST:PORT"),
    ):
        with pytest.raises(UsageError, match=says):
            cluster.connect({**SETTINGS, "address": address})
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    with pytest.raises(UsageError, match="does not answer"):
        cluster.connect(SETTINGS)


def test_gpus_follow_the_device() -> None:
    assert cluster.gpus_per_worker(SETTINGS, "cuda") == 1
    assert cluster.gpus_per_worker(SETTINGS, "cpu") == 0
    assert cluster.gpus_per_worker({**SETTINGS, "gpus": 0.5}, "cuda") == 0.5


def test_reasons_are_a_few_words() -> None:
    pool = pytest.importorskip("bcd_bench_executors.ray_pool")
    names = ("ActorDiedError", "NodeDiedError", "OutOfMemoryError", "ActorUnavailableError", "OtherError")
    texts = [
        pool._reason(type(name, (Exception,), {})("The actor\n\tclass_name: A died unexpectedly")) for name in names
    ]
    assert texts == [
        "the process of the worker ended",
        "the node of the worker died",
        "the worker was killed, out of memory?",
        "the process of the worker ended",
        "OtherError: The actor class_name: A died unexpectedly",
    ]
    dead = type("ActorDiedError", (Exception,), {})("The actor died because its node has died. Node Id: 1")
    assert pool._reason(dead) == "the node of the worker died"


def test_the_settings_are_those_of_the_pool() -> None:
    assert dict(spec().config) == SETTINGS


@RAY
@pytest.mark.slow
def test_a_local_cluster_reports_how_every_task_ended() -> None:
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, HERE / "pool_script.py"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)  # Ray has printed nothing there
    assert result["ends"] == {
        "a": "aa",
        "raise": ["no such task", "another one"],
        "kill": ["the process of the worker ended", False],
        "hang": ["it took too long", True],
        "threads": "1",
        "b": "bb",
        "c": "cc",
    }
    assert result["ahead"] <= 3, "a task is taken only when a worker is about to receive it"
    assert (result["started"], result["died"]) in ((3, 2), (4, 2)), "a worker that is gone is replaced if there is work"
    assert result["unloadable"] == ["nothing to load", "a factor"]
