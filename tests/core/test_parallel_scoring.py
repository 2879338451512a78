"""Scoring in worker processes and in shards: the same files and records as in one process."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import scoring_toy as toy

from bcd_bench import Column, Failed, MetricSpec, Scored, hookimpl
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.build import write_record
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.pipeline import Prepared, run
from bcd_bench.run.plan import make_plan
from bcd_bench.run.shard import Shard
from bcd_bench.run.timing import read_timing
from bcd_bench.scoring import score as scoring
from bcd_bench.scoring.cache import MetricResult
from bcd_bench.scoring.parallel import ParallelScoring
from bcd_bench.scoring.score import score_run
from bcd_bench.types.errors import UsageError
from bcd_bench.util.pool import PoolOptions
from bcd_bench.util.progress import NoTask, Progress, Task

METRICS = (
    "shade",
    "spread",
    "plain-spread",
    "picky",
    "choosy-spread",
    "featured",
    "set-of-featured",
    "broken",
    "bad-derive",
)


class SetOfFeatured(toy.Spread):
    """Adds up features, in an order that the last bits of the sum depend on."""

    columns = (Column("total", "levels", None, "sum of brightness", kind="set"),)

    def refuse(self, item: Scored) -> Failed | None:
        found = item.features["brightness"]["output"]
        return found if isinstance(found, Failed) else None

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        total = 0.1 if state is None else float(state["sums"])
        for item in items:
            total = total * 1.1 + float(item.features["brightness"]["output"]["mean"]) / 3
        return {"sums": total}

    def merge(self, states: Sequence[Any]) -> Any:
        return {"sums": sum(float(state["sums"]) / 7 for state in states)}

    def compute(self, state: Any) -> Mapping[str, float]:
        return {"total": float(state["sums"])}


class FragileSpread(toy.Spread):
    """Over a part of the pairs: raises, or ends its process the first time."""

    def compute(self, state: Any) -> Mapping[str, float]:
        how, died = os.environ["TOY_HOW"], Path(os.environ["TOY_DIED"])
        if state["sums"][0] < 11 * 2 * 8 * 8 * 3:
            if how == "raise":
                raise ValueError("too few pairs")
            if how == "die" and not died.exists():
                died.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return super().compute(state)


class Deadly(toy.Shade):
    """Ends its process, or hangs, on pair p05."""

    columns = (Column("deadly", "levels", None, "mean shade"),)

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any]]:
        if any(item.pair.id == "p05" for item in items):
            if os.environ["TOY_HOW"] == "hang":
                time.sleep(600)
            os.kill(os.getpid(), signal.SIGSEGV)
        return [{"deadly": float(item.output.frames.mean())} for item in items]


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    here = "test_parallel_scoring"
    return [
        MetricSpec("deadly", "1", "deadly", f"{here}:Deadly"),
        MetricSpec("fragile-spread", "1", "spread", f"{here}:FragileSpread", level="set"),
        MetricSpec("set-of-featured", "1", "sum", f"{here}:SetOfFeatured", level="set", extractors=("brightness",)),
    ]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(scoring, "PIXELS_PER_BATCH", 4 * 64)  # blocks of 4 pairs
    import test_parallel_scoring

    return Registry.from_modules([toy, test_parallel_scoring])


def scored(registry: Registry, run: RunFolder, metrics: Sequence[str], **options: Any) -> dict[str, MetricResult]:
    results = score_run(registry, run, metrics, **options)
    write_record(registry, run, results)
    return results


def files(run: RunFolder) -> dict[str, bytes]:
    names = [run.record_path, run.path / "values.json", *run.scores_dir.iterdir()]
    return {path.name: path.read_bytes() for path in names if not path.name.startswith(".")}


@pytest.mark.parametrize("jobs", [1, 2])
def test_workers_write_the_record_of_one_process(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    alone = toy.make_run(registry, tmp_path / "alone")
    expected = scored(registry, alone, METRICS)
    assert expected["broken"].info.error == "ImportError: no such library"
    assert expected["picky"].info.failures, "one pair raises"
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "another-home"))
    workers = toy.make_run(registry, tmp_path / "workers")
    results = scored(registry, workers, METRICS, jobs=jobs, pool=PoolOptions())
    assert results == expected
    there, here = files(workers), files(alone)
    assert there.keys() == here.keys()
    for name, content in here.items():
        if name.endswith(".jsonl"):  # blocks end in any order
            assert sorted(there[name].splitlines()) == sorted(content.splitlines())
        else:
            assert there[name] == content, name
    timing, timing_alone = (read_timing(run.path) for run in (workers, alone))
    assert timing["workers"]["score"]["peak_memory_mib"] > 20
    assert timing["score_seconds"].keys() == timing_alone["score_seconds"].keys() == set(METRICS)


class Counted(Progress):
    """All units, those done before, and those done now, of every task."""

    def __init__(self) -> None:
        self.units: dict[str, list[int]] = {}

    @contextmanager
    def task(self, name: str, *, total: int, done: int = 0, unit: str = "pairs") -> Iterator[Task]:
        units = self.units[name] = [total, done, 0]

        class Counting(NoTask):
            def advance(self, n: int = 1) -> None:
                units[2] += n

        yield Counting()


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_features_of_set_metrics_are_extracted_with_progress(registry: Registry, tmp_path: Path, jobs: int) -> None:
    folder, progress = toy.make_run(registry, tmp_path / "runs"), Counted()
    scored(registry, folder, ("set-of-featured", "spread"), jobs=jobs, pool=PoolOptions(), progress=progress)
    assert progress.units["score"] == [11, 0, 11]  # of 12 outputs, one failed
    assert progress.units["combine"] == [2, 0, 2]


@pytest.mark.parametrize("how", ["work", "raise", "die"])
def test_workers_share_the_interval_of_a_set_metric(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("TOY_DIED", str(tmp_path / "died"))
    monkeypatch.setenv("TOY_HOW", "work" if how == "die" else how)
    alone = toy.make_run(registry, tmp_path / "alone")
    expected = scored(registry, alone, ("fragile-spread", "shade"))
    assert (expected["fragile-spread"].info.error is None) == (how != "raise")

    tasks: Counter[str] = Counter()
    combined = ParallelScoring._combined

    def counted(self: ParallelScoring, end: Any, pool: Any) -> MetricResult | None:
        tasks[type(end.task).__name__] += 1
        return combined(self, end, pool)

    monkeypatch.setattr(ParallelScoring, "_combined", counted)
    monkeypatch.setenv("TOY_HOW", how)
    workers = toy.make_run(registry, tmp_path / "workers")
    assert scored(registry, workers, ("fragile-spread", "shade"), jobs=2, pool=PoolOptions()) == expected
    assert workers.record_path.read_bytes() == alone.record_path.read_bytes()
    assert [path.name for path in workers.scores_dir.iterdir() if path.name.startswith(".")] == []
    if how == "work":
        assert tasks == {"AddUp": 1, "Replicate": 4, "FinishSet": 1, "Aggregate": 1}, "all pairs, then without a third"
    else:
        assert tasks["AddUp"] == 2, "one worker starts again, alone"
        assert tasks["FinishSet"] == 0


def test_stored_scores_are_not_scored_again(registry: Registry, tmp_path: Path) -> None:
    folder = toy.make_run(registry, tmp_path / "runs")
    first = scored(registry, folder, ("shade", "spread"))
    before = files(folder)
    assert scored(registry, folder, ("shade", "spread"), jobs=2, pool=PoolOptions()) == first
    assert files(folder) == before


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("SIGSEGV", "its worker died 3 times (the worker was killed by SIGSEGV, segmentation fault)"),
        ("hang", "not scored within 6 s (--timeout)"),
    ],
)
def test_a_metric_that_kills_its_process_loses_that_pair_alone(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, reason: str
) -> None:
    monkeypatch.setenv("TOY_HOW", how)
    folder = toy.make_run(registry, tmp_path / "runs")
    timeout = 6.0 if how == "hang" else None
    results = scored(registry, folder, ("deadly", "shade"), jobs=2, pool=PoolOptions(timeout=timeout))
    assert results["deadly"].info.failures == {reason: 1}
    assert results["deadly"].info.error is None
    assert results["deadly"].values["deadly"].n == 10, "11 outputs, of which one kills"
    assert results["shade"].info.failures == {}
    assert results["shade"].values["distance"].n == 11


def prepared(registry: Registry) -> Prepared:
    suite = toy.suite({})
    return Prepared(make_plan(registry, "off", suite), suite, METRICS)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 20 pairs are more than the suite has: 5 pairs in a batch, 4 in a block."""
    monkeypatch.setattr("bcd_bench.run.plan.RunPlan.part_size", 4)


def dealt(registry: Registry) -> Prepared:
    """A plan whose batches and blocks both have 4 pairs, so that it has three parts."""
    ready = prepared(registry)
    plan = ready.plan.model_copy(update={"batch_size": 4})
    return Prepared(plan, ready.suite, ready.metrics)


def test_merged_shards_are_the_run_without_shards(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # a worker's default, and part of the record
    ready = dealt(registry)
    whole = run(registry, ready, out=tmp_path / "whole")
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "another-home"))
    for number in (2, 4, 3):
        part = run(registry, ready, out=tmp_path / "parts", shard=Shard(number, 4))
        assert part.shard == Shard(number, 4)
        assert not part.record_path.exists()
    assert sorted(part.root().shards()[Shard(2, 4)].pairs()) == ["p04", "p05", "p06", "p07"]
    last = run(registry, ready, out=tmp_path / "parts", shard=Shard(1, 4), jobs=2)
    assert last.shard is None
    assert files(last).keys() == files(whole).keys()
    for name, content in files(whole).items():
        if name.endswith(".jsonl"):  # the blocks of pairs on which a metric raised are scored again after the merge
            assert set(files(last)[name].splitlines()) == set(content.splitlines())
        else:
            assert files(last)[name] == content, name
    assert {path.name: path.read_bytes() for path in last.outputs_dir.iterdir()} == {
        path.name: path.read_bytes() for path in whole.outputs_dir.iterdir()
    }
    assert not (last.path / "shards").exists()
    timing = read_timing(last.path)["shards"]
    assert list(timing) == [f"{number:04d}-of-0004" for number in (1, 2, 3, 4)]
    assert timing["0002-of-0004"]["score_seconds"].keys() >= {"shade", "featured"}
    again = run(registry, ready, out=tmp_path / "parts", shard=Shard(2, 4))
    assert again.shard is None, "a merged run is finished for every shard"
    more = Prepared(ready.plan, ready.suite, ("shade", "halves"))
    with pytest.raises(UsageError, match="is merged, without metric halves"):
        run(registry, more, out=tmp_path / "parts", shard=Shard(2, 4))
    with pytest.raises(UsageError, match="is merged") as caught:
        run(registry, ready, out=tmp_path / "parts", shard=Shard(1, 4), retry_failed=True)
    assert "without --shard" in str(caught.value.hint)


def test_shards_need_no_locks(
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    small_parts: None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As on a network file system without flock."""
    fcntl = pytest.importorskip("fcntl")

    def without(*arguments: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    ready = dealt(registry)
    whole = run(registry, ready, out=tmp_path / "whole")
    monkeypatch.setattr(fcntl, "flock", without)
    for number in (1, 2, 3):
        last = run(registry, ready, out=tmp_path / "parts", shard=Shard(number, 3))
    assert last.record_path.read_bytes() == whole.record_path.read_bytes()
    assert "the file system has no locks" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["_collect", "_merge_rows", "score_run", "write_record", "shutil.rmtree"])
def test_a_merge_that_is_interrupted_is_repeated(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_parts: None, stage: str
) -> None:
    from bcd_bench.run import merge as merging

    ready = dealt(registry)
    whole = run(registry, ready, out=tmp_path / "whole")

    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    run(registry, ready, out=tmp_path / "parts", shard=Shard(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(f"{merging.__name__}.{stage}", stop)
        with pytest.raises(KeyboardInterrupt):
            run(registry, ready, out=tmp_path / "parts", shard=Shard(2, 2))
    merged = merging.merge(registry, tmp_path / "parts" / ready.plan.folder)
    assert merged.record_path.read_bytes() == whole.record_path.read_bytes()
    assert not (merged.path / "shards").exists()
    with pytest.raises(UsageError, match="has no shards, or they are merged already"):
        merging.merge(registry, merged.path)


def test_missing_unfinished_and_doubled_shards_are_named(registry: Registry, tmp_path: Path, small_parts: None) -> None:
    from bcd_bench.run.merge import merge

    ready = dealt(registry)
    part = run(registry, ready, out=tmp_path, shard=Shard(2, 3))
    with pytest.raises(UsageError, match="cannot be merged: shard 1/3 is missing, shard 3/3 is missing") as caught:
        merge(registry, part.path)
    assert caught.value.hint == "run the same command with --shard 1/3, 3/3"
    with pytest.raises(UsageError, match="contains shards that are not merged"):
        run(registry, ready, out=tmp_path)
    other = run(registry, ready, out=tmp_path, shard=Shard(1, 3))
    noted = other.pairs_path.read_bytes().splitlines(keepends=True)
    other.pairs_path.write_bytes(b"".join(noted[:2]))
    with pytest.raises(UsageError, match="shard 1/3 has 0 of 4 pairs, shard 3/3 is missing"):
        merge(registry, part.path)
    other.pairs_path.write_bytes(part.pairs_path.read_bytes())
    with pytest.raises(UsageError, match="shard 1/3 contains pair p04 of another shard"):
        merge(registry, part.path)
    other.pairs_path.write_bytes(b"".join(noted))
    with pytest.raises(UsageError, match="contains shards of 3, not of 2"):
        run(registry, ready, out=tmp_path, shard=Shard(1, 2))
    (part.path / "shards" / "0001-of-0002").mkdir()
    with pytest.raises(UsageError, match=r"shards of 2 different numbers \(of 2: 1; of 3: 1, 2\)"):
        merge(registry, part.path)


def test_a_run_without_shards_is_not_continued_with_them(registry: Registry, tmp_path: Path, small_parts: None) -> None:
    ready = dealt(registry)
    folder = run(registry, ready, out=tmp_path)
    noted = folder.pairs_path.read_bytes().splitlines(keepends=True)
    folder.pairs_path.write_bytes(b"".join(noted[:4]))
    folder.record_path.unlink()
    with pytest.raises(UsageError, match="was started without --shard"):
        run(registry, ready, out=tmp_path, shard=Shard(1, 2))


def test_shards_are_read_from_the_environment() -> None:
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "5"}
    assert Shard.parse("auto", {**array, "SLURM_ARRAY_TASK_MAX": "7", "RANK": "0"}) == Shard(3, 3)
    assert Shard.parse("auto", {"RANK": "0", "WORLD_SIZE": "4"}) == Shard(1, 4)
    assert Shard.parse("auto", {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}) == Shard(2, 2)
    assert Shard.parse("3/16") == Shard(3, 16)
    for text, environ, reason in (
        ("0/4", {}, "must be from 1 to 4"),
        ("5/4", {}, "must be from 1 to 4"),
        ("1/0", {}, "must be at least one shard"),
        ("1", {}, "must be I/N or auto"),
        ("auto", {}, "none of SLURM_ARRAY_TASK_ID, RANK and SLURM_PROCID is set"),
        ("auto", {"RANK": "x", "WORLD_SIZE": "2"}, "RANK is 'x', not a number"),
        ("auto", {**array, "SLURM_ARRAY_TASK_MAX": "9"}, "have gaps"),
    ):
        with pytest.raises(UsageError, match=reason):
            Shard.parse(text, environ)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_every_pair_is_in_exactly_one_shard(count: int) -> None:
    owners = [[s.number for s in (Shard(n, count) for n in range(1, count + 1)) if s.has(i, 6)] for i in range(50)]
    assert all(len(owner) == 1 for owner in owners)
    assert all(owners[i] == owners[i - i % 6] for i in range(50)), "parts are not divided"
