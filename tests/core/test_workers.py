"""Worker processes: the same bytes as in one process, and deaths and hangs that cost one pair."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path

import pool_toy
import pytest
import toy_plugin

import bcd_bench
from bcd_bench import Column, MetricSpec, Scored
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import GenerateSummary, generate
from bcd_bench.run.plan import make_plan
from bcd_bench.types.errors import MissingDependencyError, UsageError
from bcd_bench.util.pool import PoolOptions, WorkerPool, worker_threads


@pytest.fixture
def registry() -> Registry:
    return Registry.from_modules([toy_plugin, pool_toy])


def run(
    registry: Registry, out: Path, method: str, *, jobs: int = 2, retry: bool = False, **options: object
) -> tuple[RunFolder, GenerateSummary]:
    suite = load_suite(registry, "toy")
    pool = PoolOptions(**options)  # type: ignore[arg-type]
    plan = make_plan(registry, method, suite)
    return generate(registry, plan, suite, out, jobs=jobs, pool=pool, retry_failed=retry)


def here(registry: Registry, out: Path, method: str) -> RunFolder:
    """The run in this process, one batch after another."""
    suite = load_suite(registry, "toy")
    return generate(registry, make_plan(registry, method, suite), suite, out)[0]


def outputs(folder: RunFolder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.outputs_dir.iterdir())}


def failures(folder: RunFolder) -> dict[str, str | None]:
    return {result.id: result.error for result in folder.pairs().values() if result.status == "failed"}


@pytest.mark.parametrize("jobs", [1, 3])
def test_workers_write_the_bytes_of_one_process(registry: Registry, tmp_path: Path, jobs: int) -> None:
    alone = here(registry, tmp_path / "alone", "noise")
    folder, summary = run(registry, tmp_path / "workers", "noise", jobs=jobs)
    assert (summary.n_generated, summary.n_failed) == (10, 0)
    assert outputs(folder) == outputs(alone)
    assert len(outputs(folder)) == 10
    assert [result.output_sha256 for result in folder.pairs().values()] == [
        result.output_sha256 for result in alone.pairs().values()
    ]
    assert [json.loads(line)["id"] for line in folder.pairs_path.read_text().splitlines()] == [
        f"p{i:02d}" for i in range(10)
    ]
    workers = json.loads((folder.path / "timing.json").read_text())["workers"]["generate"]
    assert workers["jobs"] == jobs
    assert workers["peak_memory_mib"] > 20
    assert workers["wall_seconds"] > 0


def test_every_kind_of_failing_pair_is_the_same_as_in_one_process(registry: Registry, tmp_path: Path) -> None:
    alone = here(registry, tmp_path / "alone", "fragile")
    folder, _ = run(registry, tmp_path / "workers", "fragile")
    assert failures(folder) == failures(alone)
    assert outputs(folder) == outputs(alone)
    assert folder.pairs()["p09"].info == {"codes": [1, 2]}


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("SIGSEGV", "its worker died 3 times (the worker was killed by SIGSEGV, segmentation fault)"),
        ("SIGKILL", "its worker died 3 times (the worker was killed by SIGKILL, out of memory?)"),
        ("exit", "its worker died 3 times (the worker ended with exit code 7)"),
    ],
)
def test_a_method_that_kills_its_process_costs_that_pair_alone(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    monkeypatch.setenv("TOY_KILLS", "p05")
    monkeypatch.setenv("TOY_HOW", how)
    folder, summary = run(registry, tmp_path, "deadly")
    assert failures(folder) == {"p05": reason}
    assert (summary.n_pairs, summary.n_failed, len(folder.pairs())) == (10, 1, 10)
    assert sorted(outputs(folder)) == [f"p{i:02d}.mkv" for i in range(10) if i != 5]


def test_a_worker_killed_once_costs_a_retry_and_nothing_else(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = run(registry, tmp_path / "whole", "deadly")
    monkeypatch.setenv("TOY_KILLS", "p05")
    monkeypatch.setenv("TOY_HOW", "SIGKILL")
    monkeypatch.setenv("TOY_ONCE", str(tmp_path / "struck"))
    folder, summary = run(registry, tmp_path / "struck-run", "deadly")
    assert (tmp_path / "struck").exists()
    assert summary.n_failed == 0
    assert outputs(folder) == outputs(whole), "the batch was repeated whole: its size is in the pixels"


def test_a_method_that_hangs_costs_that_pair_alone(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KILLS", "p02,p09")
    monkeypatch.setenv("TOY_HOW", "hang")
    started = time.monotonic()
    folder, _ = run(registry, tmp_path, "deadly", timeout=1.5)
    assert failures(folder) == dict.fromkeys(("p02", "p09"), "no result within 1.5 s (--timeout)")
    assert len(outputs(folder)) == 8
    assert time.monotonic() - started < 60


def test_failed_pairs_are_retried_when_asked(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOY_KILLS", "p05")
    monkeypatch.setenv("TOY_HOW", "SIGKILL")
    folder, _ = run(registry, tmp_path, "deadly")
    monkeypatch.setenv("TOY_KILLS", "p00")
    _, summary = run(registry, tmp_path, "deadly", retry=True)
    assert (summary.n_generated, summary.n_failed) == (1, 0)
    assert failures(folder) == {}


@pytest.mark.parametrize(
    ("method", "error", "text"),
    [
        ("unloadable", UsageError, "method 'unloadable' cannot be loaded: ValueError: no such device"),
        ("needs-package", MissingDependencyError, "method 'needs-package' needs the package 'a_package_that_is"),
        ("dies-loading", UsageError, "method 'dies-loading' cannot be loaded: its process died 3 times .*SIGSEGV"),
    ],
)
def test_a_method_that_cannot_be_loaded_is_one_line(
    registry: Registry, tmp_path: Path, method: str, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        run(registry, tmp_path, method)


def test_workers_have_their_threads_and_their_device(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    folder, _ = run(registry, tmp_path, "reports", jobs=2, devices=("3", "5"))
    seen = [result.info or {} for result in folder.pairs().values()]
    assert {info["OMP_NUM_THREADS"] for info in seen} == {info["MKL_NUM_THREADS"] for info in seen} == {"1"}
    assert {info["CUDA_VISIBLE_DEVICES"] for info in seen} == {"3", "5"}
    assert len({info["pid"] for info in seen}) == 2
    assert os.getpid() not in {info["pid"] for info in seen}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
    assert folder.env()["threads"] == "1"


def test_the_threads_of_a_worker_do_not_depend_on_the_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, threads in (("", 1), ("6", 6), ("4,2", 4), ("many", 1), ("0", 1)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert worker_threads() == threads


def second_dies(marker: str) -> object:
    """Loads in the first process, and kills every later one."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        os.kill(os.getpid(), signal.SIGKILL)

    def handle(task: int) -> int:
        time.sleep(8)
        return task

    return handle


def test_workers_that_die_loading_leave_the_work_to_the_others(tmp_path: Path) -> None:
    start = f"{__name__}:second_dies"
    with WorkerPool[int](start, str(tmp_path / "first"), what="it", jobs=2, options=PoolOptions()) as workers:
        values = [end.value for end in workers.run(iter([0, 1, 2]))]
        kinds = [kind for kind, _ in workers.events]
    assert values == [0, 1, 2]
    assert kinds.count("worker_died") >= 3
    assert kinds[-1] == "workers_reduced"


def doubler(add: int) -> object:
    def handle(task: int) -> int:
        if task < 0:
            raise ValueError(f"negative: {task}")
        if task == 99:
            time.sleep(600)
        return 2 * task + add

    return handle


def pool(jobs: int = 2, start: str = "test_workers:doubler") -> WorkerPool[int]:
    return WorkerPool(start, 1, what="a doubler", jobs=jobs, options=PoolOptions())


def test_a_pool_runs_every_task_once_and_passes_errors_on() -> None:
    with pool() as workers:
        ends = list(workers.run(iter([1, 2, -3, 4])))
    assert sorted(end.value for end in ends if end.error is None) == [3, 5, 9]
    [error] = [end.error for end in ends if end.error is not None]
    assert str(error) == "negative: -3"


def test_a_pool_ends_its_workers_when_it_is_left_early() -> None:
    with pool() as workers:
        next(workers.run(iter([1, 99, 99])))
        pids = [details["pid"] for kind, details in workers.events if kind == "worker_started"]
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_killed_while_it_is_idle_is_replaced() -> None:
    with pool(jobs=1) as workers:
        values = []
        for end in workers.run(iter([1, 2])):
            values.append(end.value)
            pid = next(details["pid"] for kind, details in workers.events if kind == "worker_started")
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                time.sleep(0.2)
    assert values == [3, 5]


def test_evaluate_from_python_with_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry) -> None:
    monkeypatch.setattr("bcd_bench.api.load_registry", lambda: registry)
    options = {"metrics": ["toy-shade"], "progress": False}
    registry.add("metrics", MetricSpec("toy-shade", "1", "shade", f"{__name__}:Shade"), registry.plugins[0])
    alone = bcd_bench.evaluate("noise", "toy", out=tmp_path / "alone", **options)
    workers = bcd_bench.evaluate("noise", "toy", out=tmp_path / "workers", jobs=2, timeout=60, **options)
    [one], [two] = (sorted(results.paths[0].glob("**/values.json")) for results in (alone, workers))
    assert one.read_bytes() == two.read_bytes()
    assert workers.pairs()["value"].notna().sum() == 10


class Shade:
    columns = (Column("shade", "levels", None, "mean shade"),)

    def load(self, device: str) -> None:
        del device

    def score(self, items: Sequence[Scored]) -> list[dict[str, float]]:
        return [{"shade": float(item.output.frames.mean())} for item in items]
