"""Executors of plugins: their settings, pools of workers that they provide, and shards that they run elsewhere."""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import scoring_toy
import toy_plugin

from bcd_bench import ExecutorSpec, api, hookimpl
from bcd_bench.cli.app import executor_options
from bcd_bench.cli.train import arguments_of
from bcd_bench.cli.workers import open_pool_workers, open_workers
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run import local
from bcd_bench.run import plan as plans
from bcd_bench.run import run_shard as run_shard_module
from bcd_bench.run.elsewhere import ShardWork
from bcd_bench.run.executors import check_executor, default_workers, executor_settings, split_settings, with_executor
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import generate
from bcd_bench.run.pipeline import prepare, run
from bcd_bench.run.plan import make_plan
from bcd_bench.run.run_shard import run_shard
from bcd_bench.run.shard import Shard
from bcd_bench.types.errors import BcdBenchError, UsageError
from bcd_bench.util.pool import Finished, PoolOptions

HERE = "test_executors"
CONFIG = {"address": "", "cpus": 1.0, "count": 3, "follow": True, "sbatch": {}}
SPEC = ExecutorSpec("cluster", "A cluster.", pool="test_executors:HerePool", config=CONFIG)


class HerePool:
    """A pool whose only worker is this process: the first task of `lose` is lost, as if its worker had died."""

    opened: list[HerePool]
    lose = False

    def __init__(self, start: str, argument: Any, *, what: str, jobs: int, options: PoolOptions) -> None:
        self.start, self.argument, self.options = start, argument, options
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.taken: list[Any] = []
        self._again: deque[Any] = deque()
        HerePool.opened.append(self)

    def __enter__(self) -> HerePool:
        return self

    def __exit__(self, *raised: object) -> None:
        self.closed = True

    def again(self, *tasks: Any) -> None:
        self._again.extendleft(reversed(tasks))

    def run(self, tasks: Iterator[Any], limit: Callable[[Any], float | None] = lambda task: None) -> Iterator[Any]:
        handler = load_factory(self.start)(self.argument)
        for task in tasks:
            self._again.append(task)
            while self._again:
                one = self._again.popleft()
                self.taken.append(one)
                if HerePool.lose and len(self.taken) == 1:
                    yield Finished(one, lost="the node died")
                    continue
                try:
                    yield Finished(one, handler(one), peak_memory=1.0)
                except BcdBenchError as error:
                    yield Finished(one, error=error)


def shards_here(work: ShardWork, shards: Sequence[Shard], *, settings: Mapping[str, Any]) -> Iterator[str | None]:
    """Run shards one after the other, only `count` of them."""
    yield "started"
    for shard in shards[: settings["count"]]:
        run_shard(work, shard, jobs=1)
        yield None


def shards_left(work: ShardWork, shards: Sequence[Shard], *, settings: Mapping[str, Any]) -> Iterator[str | None]:
    yield None
    raise KeyboardInterrupt


def jobs_of_cluster(settings: Mapping[str, Any], device: str) -> int:
    return int(settings["count"]) * (2 if device == "cuda" else 1)


class Plugin:
    @hookimpl
    def bcd_bench_executors(self) -> list[ExecutorSpec]:
        return [
            SPEC,
            replace(
                SPEC, name="batch", pool="", shards="test_executors:shards_here", jobs="test_executors:jobs_of_cluster"
            ),
            replace(SPEC, name="left", pool="", shards=f"{HERE}:shards_left"),
        ]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    HerePool.opened, HerePool.lose = [], False
    made = Registry.from_modules([scoring_toy, Plugin()])
    monkeypatch.setattr(run_shard_module, "load_registry", lambda: made)
    monkeypatch.setattr(plans, "PAIRS_PER_BLOCK", 1)  # parts of one batch
    return made


def contents(folder: Path) -> dict[str, bytes]:
    files = [folder / "record.json", folder / "values.json", *sorted((folder / "outputs").iterdir())]
    return {file.name: file.read_bytes() for file in files}


@pytest.mark.parametrize("lose", [False, True])
def test_a_pool_generates_and_scores_with_the_bytes_of_this_process(
    registry: Registry, tmp_path: Path, lose: bool
) -> None:
    prepared = prepare(registry, "off", "toy", metrics=("shade", "spread"))
    alone = run(registry, prepared, out=tmp_path / "alone")
    HerePool.lose = lose
    folder = run(registry, prepared, executor="cluster", out=tmp_path / "pool")
    assert contents(folder.path) == contents(alone.path)
    assert [pool.options.factory for pool in HerePool.opened] == [SPEC.pool] * 2, "one for outputs, one for scores"
    assert HerePool.opened[0].options.settings == CONFIG
    assert HerePool.opened[0].argument.outputs == folder.outputs_dir, "workers write the files"
    results = [result for result in folder.pairs().values() if result.status == "ok"]
    assert len(results) == len(list(folder.outputs_dir.iterdir())) == 11
    assert all(result.bytes == folder.output_path(result.id).stat().st_size for result in results)


def test_files_of_workers_that_died_are_removed_and_unwanted_pairs_are_not_written(tmp_path: Path) -> None:
    registry = Registry.from_modules([toy_plugin, Plugin()])
    suite = load_suite(registry, "toy")
    plan = make_plan(registry, "fragile", suite)
    folder, first = generate(registry, plan, suite, tmp_path, executor="cluster")
    assert first.n_failed == 6
    (folder.outputs_dir / ".p01.mkv.000000-1.part").write_bytes(b"left")
    (folder.outputs_dir / ".other").write_bytes(b"kept")
    before = {path.name: path.stat().st_mtime_ns for path in folder.outputs_dir.glob("p*.mkv")}
    _, again = generate(registry, plan, suite, tmp_path, executor="cluster", retry_failed=True)
    assert again.n_generated == 6
    assert {path.name: path.stat().st_mtime_ns for path in folder.outputs_dir.glob("p*.mkv")} == before
    assert sorted(path.name for path in folder.outputs_dir.glob(".*")) == [".other"]


def test_a_worker_that_cannot_write_is_one_clear_line(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = load_suite(registry, "toy")

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local, "fsync_path", full)
    with pytest.raises(UsageError, match=r"cannot write to .*outputs: No space left on device"):
        generate(registry, make_plan(registry, "off", suite), suite, tmp_path, executor="cluster")


def test_shards_that_run_elsewhere_give_the_record_of_one_process(registry: Registry, tmp_path: Path) -> None:
    prepared = prepare(registry, "off", "toy", metrics=("shade", "spread"))
    alone = run(registry, prepared, out=tmp_path / "alone", pool=PoolOptions(), jobs=1)
    folder = run(registry, prepared, executor="batch", jobs=2, out=tmp_path / "elsewhere")
    assert contents(folder.path) == contents(alone.path)
    again = run(registry, prepared, executor="batch", jobs=2, out=tmp_path / "elsewhere")
    assert contents(again.path) == contents(alone.path)


def test_shards_that_are_left_are_named_and_continued(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare(registry, "off", "toy", metrics=("shade",))
    assert (len(prepared.plan.pairs), prepared.plan.part_size) == (12, 5), "three parts"
    one = with_executor(registry.executor("batch"), PoolOptions(), {"count": 1})
    with pytest.raises(UsageError, match="shard 2/3 is missing, shard 3/3 is missing") as error:
        run(registry, prepared, executor="batch", jobs=4, pool=one, out=tmp_path)
    assert error.value.hint == "rerun the same command to continue them"
    started: list[Shard] = []
    real = run_shard_module.run_shard

    def noted(work: ShardWork, shard: Shard, **options: Any) -> None:
        started.append(shard)
        real(work, shard, **options)

    monkeypatch.setattr("test_executors.run_shard", noted)
    folder = run(registry, prepared, executor="batch", jobs=4, out=tmp_path)
    assert started == [Shard(2, 3), Shard(3, 3)]
    assert folder.record_path.exists()


def test_after_an_interrupt_the_shards_go_on(registry: Registry, tmp_path: Path) -> None:
    prepared = prepare(registry, "off", "toy", metrics=("shade",))
    with pytest.raises(UsageError, match="executor 'left' failed: KeyboardInterrupt"):
        run(registry, prepared, executor="left", jobs=2, out=tmp_path)  # not from the user
    with pytest.raises(UsageError, match="--shard and --executor left exclude each other"):
        run(registry, prepared, executor="left", jobs=2, out=tmp_path, shard=Shard(1, 2))
    with pytest.raises(UsageError, match="executor 'batch' runs whole shards, so it cannot run single batches"):
        generate(registry, prepared.plan, prepared.suite, tmp_path / "other", executor="batch")


def test_settings_have_the_types_of_their_defaults() -> None:
    given = {"address": 6379, "cpus": 2, "follow": False, "sbatch.exclude": "node1", "sbatch.mem": 8}
    assert executor_settings(SPEC, given) == {
        "address": "6379", "cpus": 2.0, "count": 3, "follow": False, "sbatch": {"exclude": "node1", "mem": 8},
    }  # fmt: skip
    assert SPEC.config["sbatch"] == {}, "the defaults stay"
    for change, says in (
        ({"adress": "x"}, "adress: no such setting; did you mean address?"),
        ({"cpus": "many"}, "--set executor.cpus=many: must be a number"),
        ({"count": 1.5}, "--set executor.count=1.5: must be a whole number"),
        ({"count": True}, "--set executor.count=True: must be a whole number"),
        ({"follow": 1}, "--set executor.follow=1: must be true or false"),
        ({"sbatch": 1}, "--set executor.sbatch=1: must be a mapping"),
        ({"address": [1]}, r"--set executor.address=\[1\]: must be text"),
    ):
        with pytest.raises(UsageError, match=says):
            executor_settings(SPEC, change)
    assert split_settings({"steps": 3, "executor.cpus": 2}) == ({"steps": 3}, {"cpus": 2})


def test_options_named_after_the_executor_are_its_settings() -> None:
    words = [
        "run",
        "--ray-address",
        "a:1",
        "--executor",
        "ray",
        "--ray-cpus=2",
        "--set",
        "steps=3",
        "--ray-in-flight",
        "4",
    ]
    assert executor_options(words) == [
        "run", "--set", "executor.address=a:1", "--executor", "ray", "--set", "executor.cpus=2", "--set", "steps=3",
        "--set", "executor.in_flight=4",
    ]  # fmt: skip
    assert executor_options(["run", "--executor=slurm", "--slurm-time", "1:00:00"])[2:] == [
        "--set", "executor.time=1:00:00",
    ]  # fmt: skip
    assert executor_options(["run", "--ray-address", "a:1"]) == ["run", "--ray-address", "a:1"], "another executor"
    with pytest.raises(UsageError, match="--ray-address needs a value"):
        executor_options(["run", "--executor", "ray", "--ray-address"])


def test_commands_choose_workers_of_the_executor(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    batch = registry.executor("batch")
    assert default_workers(batch, {"count": 5}, "cuda") == 10
    assert default_workers(registry.executor("local"), {}, "cpu") is None
    assert open_workers(None, "cpu", None, None, batch, {"count": 5}).jobs == 5
    assert "workers: 5 (executor batch); --jobs N changes it" in capsys.readouterr().err
    workers = open_pool_workers(registry, "cluster", ["executor.cpus=2"], 3, "cpu", None, 9.0)
    assert (workers.jobs, workers.pool.factory, workers.pool.timeout) == (3, SPEC.pool, 9.0)
    assert workers.pool.settings["cpus"] == 2
    for name, given, devices, says in (
        ("batch", None, None, "--executor batch: it only runs methods"),
        ("cluster", ["steps=3"], None, "--set steps: not a setting of an executor"),
        ("cluster", None, "0", "--devices: only for the GPUs of this machine"),
        ("local", ["executor.cpus=2"], None, "executor 'local': cpus: no such setting"),
    ):
        with pytest.raises(UsageError, match=says):
            open_pool_workers(registry, name, given, 1, "cpu", devices, None)
    with pytest.raises(UsageError, match="executor 'plain' has no time limit"):
        check_executor(ExecutorSpec("plain", "No limit.", "a:b"), timeout=1.0)


def test_the_arguments_of_training_elsewhere_mean_the_same(tmp_path: Path) -> None:
    data = {"latents": Path("l")}
    request = TrainRequest("tiny", {"a.b": 0.1, "c": "x", "d": None}, Path("o"), True, 5, None, "cpu", data, False, 7)
    assert arguments_of("net", request) == (
        "train", "net", "--preset", "tiny", "--out", str(Path.cwd() / "o"), "--device", "cpu", "--set", "a.b=0.1",
        "--set", "c=x", "--set", "d=null", "--data", f"latents={Path.cwd() / 'l'}", "--max-steps", "5", "--seed", "7",
    )  # fmt: skip


def test_a_shard_elsewhere_gets_the_threads_and_folders_of_the_command(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    prepared = prepare(registry, "off", "toy", metrics=("shade",))
    work = ShardWork(prepared.plan, ("shade",), tmp_path.absolute())
    assert work.environment["OMP_NUM_THREADS"] == "3"
    assert work.environment["BCD_BENCH_HOME"] == str(tmp_path / "home")
    assert "PATH" not in work.environment
    RunFolder.create(tmp_path, prepared.plan, Shard(1, 1))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_shard(work, Shard(1, 1), jobs=1)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert RunFolder(work.folder).record_path.exists()


def test_evaluate_takes_the_executor_and_its_settings(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "load_registry", lambda: registry)
    options: dict[str, Any] = {"metrics": ["shade"], "progress": False}
    alone = api.evaluate("off", "toy", out=tmp_path / "alone", **options)
    made = api.evaluate(
        "off", "toy", out=tmp_path / "pool", executor="cluster", executor_settings={"cpus": 4}, **options
    )
    assert contents(made.paths[0]) == contents(alone.paths[0])
    assert [pool.options.settings["cpus"] for pool in HerePool.opened] == [4.0, 4.0]
    with pytest.raises(UsageError, match="executor 'local': cpus: no such setting"):
        api.evaluate("off", "toy", out=tmp_path, executor_settings={"cpus": 4}, **options)
