"""Run folders: results of pairs, torn lines, damaged outputs, locks, and finding runs; and whole benchmarks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import toy_plugin

from bcd_bench import hookimpl
from bcd_bench.io import atomic
from bcd_bench.io.atomic import append_jsonl, read_jsonl, write_bytes_atomic, write_json_atomic
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run import pipeline as benchmark
from bcd_bench.run.folder import PairResult, RunFolder, find_runs
from bcd_bench.run.plan import make_plan
from bcd_bench.types.errors import MissingAssetError, UsageError


class Told:
    """A plugin that wants to know of finished runs, and one thing goes wrong in it."""

    def __init__(self) -> None:
        self.runs: list[Path] = []

    @hookimpl
    def bcd_bench_run_finished(self, run_dir: Path) -> None:
        self.runs.append(run_dir)
        assert (run_dir / "record.json").exists()
        raise RuntimeError("the server is down")


@pytest.fixture
def registry() -> Registry:
    return Registry.from_modules([toy_plugin])


@pytest.fixture
def folder(registry: Registry, tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "runs", make_plan(registry, "noise", load_suite(registry, "toy")))


def test_results_are_the_latest_of_each_pair_in_plan_order(folder: RunFolder) -> None:
    late, early = PairResult("p05", "ok", 0.5, "a" * 64, 4, 8.0, 99), PairResult("p01", "failed", 0.5, error="no")
    folder.append_pairs([late, early, PairResult("stranger", "ok", 1.0)])
    folder.append_pairs([PairResult("p01", "ok", 0.1, "b" * 64, 4, 8.0, 98)])
    found = folder.pairs()
    assert list(found) == ["p01", "p05"]
    assert found["p01"].output_sha256 == "b" * 64
    assert found["p05"] == late
    assert not folder.complete


def test_a_torn_line_is_ignored_and_does_not_spoil_the_next(folder: RunFolder) -> None:
    folder.append_pairs([PairResult("p00", "failed", 0.5, error="é")])
    with folder.pairs_path.open("ab") as stream:
        stream.write('{"id": "p01", "error": "é'.encode()[:-1])
    assert list(folder.pairs()) == ["p00"]
    folder.append_pairs([PairResult("p02", "failed", 0.5, error="no")])
    assert list(folder.pairs()) == ["p00", "p02"]
    with folder.pairs_path.open("ab") as stream:
        stream.write(b'[1, 2]\n{"unknown": 1}\n')
    assert list(folder.pairs()) == ["p00", "p02"]


def test_a_damaged_output_is_noticed_when_read(registry: Registry, tmp_path: Path) -> None:
    run = benchmark.run(registry, benchmark.prepare(registry, "noise", "toy"), out=tmp_path)
    results = run.pairs()
    run.output_path("p00").write_bytes(run.output_path("p01").read_bytes())
    with pytest.raises(UsageError, match=r"p00\.mkv has changed since it was written"):
        run.read_output(results["p00"])


def test_a_folder_holds_one_plan(registry: Registry, folder: RunFolder, tmp_path: Path) -> None:
    again = RunFolder.create(tmp_path / "runs", make_plan(registry, "noise", load_suite(registry, "toy")))
    assert again.path == folder.path
    plan = json.loads((folder.path / "plan.json").read_text())
    write_json_atomic(folder.path / "plan.json", {**plan, "batch_size": 5})
    with pytest.raises(UsageError, match="contains a different plan"):
        RunFolder.create(tmp_path / "runs", make_plan(registry, "noise", load_suite(registry, "toy")))


def test_the_lock_keeps_a_second_writer_out_until_it_is_free(folder: RunFolder) -> None:
    second = RunFolder(folder.path).locked()
    with folder.locked(), pytest.raises(UsageError, match="is being written by another process"), second:
        pass
    with folder.locked():
        pass


def test_runs_are_found_at_and_below_paths(folder: RunFolder, tmp_path: Path) -> None:
    assert [run.path for run in find_runs([tmp_path])] == [folder.path]
    assert [run.path for run in find_runs([folder.path, tmp_path / "runs"])] == [folder.path]
    with pytest.raises(UsageError, match="no run folder found"):
        find_runs([tmp_path / "runs" / "nothing"])
    with pytest.raises(UsageError, match="is not a run folder"):
        RunFolder(tmp_path)


def test_a_changed_suite_is_noticed(registry: Registry, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    assert folder.suite(registry).manifest_sha256 == folder.plan.suite.manifest_sha256
    real = toy_plugin.make_suite
    monkeypatch.setattr(toy_plugin, "make_suite", lambda data: real(data, n=11))
    with pytest.raises(UsageError, match=r"suite 'toy' differs from the one that .* was run on"):
        folder.suite(registry)


def test_a_benchmark_is_recorded_once_and_equal_runs_give_equal_records(registry: Registry, tmp_path: Path) -> None:
    first = benchmark.run(registry, benchmark.prepare(registry, "fragile", "toy"), out=tmp_path / "a")
    second = benchmark.run(registry, benchmark.prepare(registry, "fragile", "toy"), out=tmp_path / "b")
    assert first.record_path.read_bytes() == second.record_path.read_bytes()
    record = first.record()
    assert record is not None
    assert (record["n_pairs"], record["n_failed"], record["run_id"]) == (10, 6, first.plan.run_id)
    before = first.record_path.read_bytes()
    benchmark.run(registry, benchmark.prepare(registry, "fragile", "toy"), out=tmp_path / "a")
    assert first.record_path.read_bytes() == before


def test_default_metrics_are_the_suites_and_the_methods_own(registry: Registry) -> None:
    suite = dataclasses.replace(load_suite(registry, "toy"), default_metrics=("sharp", "near"))
    registry.methods["noise"] = dataclasses.replace(registry.methods["noise"], metrics=("bits", "near"))
    assert benchmark.default_metrics(registry, suite, "noise") == ["sharp", "near", "bits"]
    assert benchmark.default_metrics(registry, suite, "a-method-that-is-gone") == ["sharp", "near"]


def test_a_default_metric_that_nobody_brings_is_left_out_with_a_note(registry: Registry) -> None:
    suite = dataclasses.replace(load_suite(registry, "toy"), default_metrics=("absent",), notes=("one file is gone",))
    prepared = benchmark.prepare(registry, "noise", suite)
    assert prepared.metrics == []
    assert prepared.notes == ("one file is gone", "default metric absent is skipped: no installed plugin provides it")
    with pytest.raises(UsageError, match="unknown metric 'absent'"):
        benchmark.prepare(registry, "noise", suite, metrics=["absent"])


def test_names_and_assets_are_checked_before_anything_is_made(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown metric 'psnr'"):
        benchmark.prepare(registry, "noise", "toy", metrics=["psnr"])
    with pytest.raises((UsageError, MissingAssetError), match="nowhere"):
        benchmark.prepare(registry, "noise", "toy-asset")
    assert not list(tmp_path.iterdir())


def test_plugins_hear_of_a_finished_run_and_their_errors_are_lines(tmp_path: Path) -> None:
    told, said = Told(), []
    registry = Registry.from_modules([toy_plugin, told])
    run = benchmark.run(registry, benchmark.prepare(registry, "oracle", "toy"), out=tmp_path, warn=said.append)
    assert told.runs == [run.path]
    assert len(said) == 1
    assert said[0].startswith("warning: after the run, plugin test_runs: RuntimeError: the server is down")


def test_the_oracle_fails_where_there_are_no_targets(registry: Registry, tmp_path: Path) -> None:
    run = benchmark.run(registry, benchmark.prepare(registry, "oracle", "toy-open"), out=tmp_path)
    record = run.record()
    assert record is not None
    assert record["failures"] == {"the pair has no ground-truth target": 10}


def test_an_atomic_write_that_fails_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_bytes_atomic(path, b"old")

    def fail(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["x"]


def test_jsonl_refuses_what_json_cannot_hold(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_jsonl(tmp_path / "x.jsonl", [{"ok": 1}, {"bad": float("nan")}])
    assert read_jsonl(tmp_path / "x.jsonl") == [], "all of a call's records or none"
