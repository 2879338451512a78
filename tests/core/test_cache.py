"""The size of the cache folder, its limit, and what is deleted."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from bcd_bench.cli.app import main
from bcd_bench.io.npz import load_tree
from bcd_bench.plugin.registry import Registry
from bcd_bench.scoring.features import FeatureStore
from bcd_bench.types.errors import UsageError
from bcd_bench.util.cache import LIMIT_VARIABLE, CacheLimit, cached_files, parse_size, prune
from bcd_bench.util.locking import locked
from tests.core import scoring_toy as toy

DAY = 86400.0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache with features last used 1, 2 and 3 days ago, a clip of 4 days ago, and files of others."""
    folder = tmp_path / "home"
    monkeypatch.setenv("BCD_BENCH_HOME", str(folder))
    put(folder / "features" / "face" / "aa" / "one.npz", 100, days=1)
    put(folder / "features" / "face" / "ab" / "two.npz", 200, days=2)
    put(folder / "features" / "lips" / "aa" / "three.npz", 300, days=3)
    put(folder / "clips" / "heads" / "v1" / "walk.mkv", 400, days=4)
    put(folder / "clips" / "verified.json", 10, days=400)
    put(folder / "clips" / "notes.txt", 10, days=400)
    put(folder / "assets" / "net.npz", 1000, days=400)
    put(folder / "holiday" / "beach.mkv", 1000, days=400)
    put(tmp_path / "elsewhere" / "mine.npz", 1000, days=400)
    (folder / "features" / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "features" / "face" / "link.npz").symlink_to(tmp_path / "elsewhere" / "mine.npz")
    return folder


def put(path: Path, size: int, *, days: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    used_before(path, days)


def used_before(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def call(*arguments: str) -> int | str | None:
    """The exit code of `bcd-bench cache ARGUMENTS`."""
    with pytest.raises(SystemExit) as stop:
        main(["cache", *arguments])
    return stop.value.code


def names(home: Path) -> set[str]:
    return {path.name for path in home.rglob("*") if path.is_file()}


KEPT = {"verified.json", "notes.txt", "net.npz", "beach.mkv", "mine.npz", "link.npz"}
"""What no option deletes."""


def test_info_counts_files_and_bytes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("info", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["contents"] == {
        "clips/heads": {"files": 1, "bytes": 400},
        "features/face": {"files": 2, "bytes": 300},
        "features/lips": {"files": 1, "bytes": 300},
    }
    assert (told["bytes"], told["limit"], told["folder"]) == (1000, None, str(home))


def test_what_was_used_longest_ago_is_deleted_first(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["prune", "--max-size", "350B"]
    assert call(*command, "--dry-run") == 0
    assert capsys.readouterr().out.endswith("would delete 2 of 4 files, 700 B; 300 B left\n")
    assert len(list(cached_files(home))) == 4
    assert call(*command) == 0
    assert capsys.readouterr().out.endswith("deleted 2 of 4 files, 700 B; 300 B left\n")
    assert {"one.npz", "two.npz"} <= names(home)
    assert not {"three.npz", "walk.mkv"} & names(home)
    assert call("prune", "--max-size", "0") == 0
    assert names(home.parent) - {"link.npz"} == KEPT - {"link.npz"}


def test_reading_counts_as_use(home: Path) -> None:
    path = home / "clips" / "heads" / "v1" / "walk.mkv"
    os.utime(path, (time.time(), path.stat().st_mtime))  # read now, written four days ago
    assert [file.path.name for file in prune(cached_files(home), max_size=600)] == ["three.npz", "two.npz"]


def test_by_kind_and_by_age(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("prune", "--unused-for", "1.5", "--only", "features") == 0
    assert {"one.npz", "walk.mkv"} <= names(home)
    assert not {"two.npz", "three.npz"} & names(home)
    assert call("prune", "--unused-for", "1.5", "--only", "clips,sprites") == 0
    assert "walk.mkv" not in names(home)
    assert KEPT - {"mine.npz", "link.npz"} < names(home)


def test_unfinished_files_are_deleted_after_a_day(home: Path) -> None:
    put(home / "features" / "face" / "aa" / ".old.npz.1.part", 5, days=1.1)
    put(home / "features" / "face" / "aa" / ".new.npz.2.part", 5, days=0.9)
    assert [file.path.name for file in prune(cached_files(home))] == [".old.npz.1.part"]
    prune(cached_files(home), max_size=0)
    assert ".new.npz.2.part" in names(home)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "say what to delete: --max-size SIZE or --unused-for DAYS"),
        (["--max-size", "big"], "--max-size: 'big' is not a size"),
        (["--max-size", "-5GB"], "--max-size: '-5GB' is not a size"),
        (["--max-size", "1GB", "--only", "assets"], "--only assets: choose from features, clips, sprites"),
    ],
)
def test_bad_requests(home: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], line: str) -> None:
    before = names(home)
    assert call("prune", *arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {line}\n")
    assert names(home) == before


def test_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "absent"))
    assert call("info") == 0
    assert call("prune", "--max-size", "0") == 0
    assert capsys.readouterr().out.endswith("deleted 0 of 0 files, 0 B; 0 B left\n")
    assert not (tmp_path / "absent").exists()


def test_sizes() -> None:
    wanted = {"0": 0, "12": 12, "1.5kB": 1500, "2 GB": 2 * 10**9, "1GiB": 2**30, "20gb": 20 * 10**9}
    assert {text: parse_size(text, "x") for text in wanted} == wanted


# ---- the limit -----------------------------------------------------------------------------------------------------
def test_features_stay_below_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = Registry.from_modules([toy])
    clips = [toy.draw(level, 2) for level in range(20, 60)]
    FeatureStore(registry, device="cpu", root=tmp_path / "free").get("brightness", clips)
    size = sum(file.size for file in cached_files(tmp_path, ["free"]))
    monkeypatch.setenv(LIMIT_VARIABLE, str(size // 4))
    store = FeatureStore(registry, device="cpu", root=tmp_path / "limited")
    for level, clip in enumerate(clips, start=20):  # one by one, so that every file is the newest once
        [found] = store.get("brightness", [clip])
        assert float(found["mean"]) == level  # type: ignore[index]
        assert 0 < sum(file.size for file in cached_files(tmp_path, ["limited"])) <= size // 4 + size // 80
    again = FeatureStore(registry, device="cpu", root=tmp_path / "limited").get("brightness", clips)
    assert [float(features["mean"]) for features in again] == list(range(20, 60))  # type: ignore[index]


def test_a_limit_that_is_no_size_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "lots")
    with pytest.raises(UsageError, match=f"{LIMIT_VARIABLE}: 'lots' is not a size"):
        FeatureStore(Registry.from_modules([toy]), device="cpu", root=tmp_path)


def test_only_one_process_deletes_at_a_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT_VARIABLE, "150")
    with locked(home / "features"):
        CacheLimit(home / "features").wrote(home / "features" / "face" / "aa" / "one.npz")
        assert {"one.npz", "two.npz", "three.npz"} <= names(home)
    CacheLimit(home / "features").wrote(home / "features" / "face" / "aa" / "one.npz")
    assert {"one.npz", "walk.mkv"} <= names(home)
    assert not {"two.npz", "three.npz"} & names(home)


def read_and_write(root: Path, process: int) -> None:
    """Extract the features of the same clips as other processes, several times, under a tight limit."""
    os.environ[LIMIT_VARIABLE] = "6000"
    order = np.random.default_rng(process)
    for _ in range(4):
        store = FeatureStore(Registry.from_modules([toy]), device="cpu", root=root)
        for level in order.permutation(range(20, 40)).tolist():
            [found] = store.get("brightness", [toy.draw(level, 2)])
            assert float(found["mean"]) == level  # type: ignore[index]


def test_many_writers_and_deletions_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=read_and_write, args=(tmp_path, number)) for number in range(3)]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers):
        prune(cached_files(tmp_path.parent, [tmp_path.name]), max_size=2000)
        shutil.rmtree(tmp_path / "brightness", ignore_errors=True)  # what a user may do
        time.sleep(0.05)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    for file in cached_files(tmp_path.parent, [tmp_path.name]):
        load_tree(file.path)  # whole, each of them
