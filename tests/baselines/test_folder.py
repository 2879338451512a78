"""`folder`: videos are matched by pair id, wrong ones fail alone, and their content is the run's identity."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench import Clip, Pair, Suite, SuiteSpec, hookimpl
from bcd_bench.io.decode import OpenVideo
from bcd_bench.io.image_sequence import write_frames
from bcd_bench.io.video import write_preview, write_video_lossless
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.build import write_record
from bcd_bench.run.folder import RunFolder
from bcd_bench.run.generate import generate
from bcd_bench.run.plan import make_plan
from bcd_bench.testing import practice_pairs
from bcd_bench.types.errors import UsageError
from bcd_bench_baselines import plugin


def practice(data: Mapping[str, Path]) -> Suite:
    del data
    return Suite("practice", "1", practice_pairs(9, size=(32, 48), frames=5), (32, 48), 8.0)


class Plugin:
    @hookimpl
    def bcd_bench_suites(self) -> list[SuiteSpec]:
        return [SuiteSpec("practice", "1", "practice clips", "test_folder:practice")]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    return Registry.from_modules([plugin, Plugin()])


def run(registry: Registry, out: Path, config: dict[str, Any], limit: int | None = None) -> RunFolder:
    suite = practice({})
    return generate(registry, make_plan(registry, "folder", suite, config=config, limit=limit), suite, out)[0]


def answer(pair: Pair) -> Clip:
    """A clip as another tool might make it: the driver, upside down."""
    motion = pair.motion.load()
    return Clip(np.ascontiguousarray(motion.frames[:, ::-1]), 30.0)


def test_every_kind_of_video_and_of_fault(registry: Registry, tmp_path: Path) -> None:
    videos, pairs = tmp_path / "videos", practice({}).pairs
    videos.mkdir()
    write_video_lossless(videos / f"{pairs[0].id}.MKV", answer(pairs[0]))
    write_preview(videos / f"{pairs[1].id}.mp4", answer(pairs[1]))
    write_frames(videos / pairs[2].id, answer(pairs[2]))
    write_video_lossless(videos / f"{pairs[3].id}.mkv", Clip(answer(pairs[3]).frames[:4], 8.0))
    write_video_lossless(videos / f"{pairs[4].id}.mkv", Clip(answer(pairs[4]).frames[:, :16, :32], 8.0))
    (videos / f"{pairs[5].id}.avi").write_bytes(b"no video")
    secret = tmp_path / "secret.mkv"
    write_video_lossless(secret, answer(pairs[6]))
    (videos / f"{pairs[6].id}.mkv").symlink_to(secret)
    (videos / f"{pairs[7].id}.mkv").symlink_to(videos / f"{pairs[0].id}.MKV")
    (videos / "notes.txt").write_text("hello")
    os.mkfifo(videos / f"{pairs[8].id}.mkv")
    found = run(registry, tmp_path / "runs", {"path": str(videos)})
    results = found.pairs()
    errors = {pair: result.error for pair, result in results.items() if result.status == "failed"}
    assert errors.pop("practice-5").startswith("its video cannot be read: cannot read video practice-5.avi: ")
    assert errors == {
        "practice-3": "its video has 4 frames, its driving clip 5",
        "practice-4": "its video is 16x32, the suite is 32x48 (resize=true resizes)",
        "practice-6": "its video is a link that points outside the folder (set BCD_BENCH_FOLLOW_LINKS=1 to follow)",
        "practice-8": "the folder does not contain a video of this pair",
    }
    for index in (0, 2, 7):
        expected = answer(pairs[0 if index == 7 else index]).frames
        assert np.array_equal(found.read_output(results[pairs[index].id]).frames, expected)
    lossy = found.read_output(results["practice-1"]).frames.astype(int)
    assert np.abs(lossy - answer(pairs[1]).frames).mean() < 6
    assert results["practice-0"].fps == 8.0, "frame for frame with the driver, whatever the file's rate"


def test_long_large_and_damaged_videos_fail_early(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a video that is too long one frame more is decoded than its driver has, of one too large the first alone."""
    videos, pairs = tmp_path / "videos", practice({}).pairs
    videos.mkdir()
    long = Clip(np.concatenate([answer(pairs[0]).frames] * 40), 8.0)
    write_video_lossless(videos / f"{pairs[0].id}.mkv", long)
    large = long.frames[:50].repeat(4, axis=1).repeat(4, axis=2)
    write_video_lossless(videos / f"{pairs[1].id}.mkv", Clip(large, 8.0))
    write_frames(videos / pairs[2].id, Clip(long.frames[:70], 8.0))
    write_video_lossless(videos / f"{pairs[3].id}.mkv", answer(pairs[3]))
    damaged = bytearray((videos / f"{pairs[3].id}.mkv").read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (videos / f"{pairs[3].id}.mkv").write_bytes(damaged)
    write_frames(videos / pairs[4].id, answer(pairs[4]))
    cut = videos / pairs[4].id / "000003.png"
    cut.write_bytes(cut.read_bytes()[:-100])
    decoded: list[int] = []
    whole = OpenVideo._decoded
    monkeypatch.setattr(OpenVideo, "_decoded", lambda self, *rest: decoded.append(1) or whole(self, *rest))
    found = run(registry, tmp_path / "runs", {"path": str(videos)}, limit=5).pairs()
    errors = [found[pair.id].error for pair in pairs[:5]]
    assert errors[:3] == [
        "its video has more than 5 frames, its driving clip 5",
        "its video is 128x192, the suite is 32x48 (resize=true resizes)",
        "its video has 70 frames, its driving clip 5",
    ]
    assert errors[3] == "its video cannot be read: cannot read video practice-3.mkv: damaged 0.00 seconds in"
    assert errors[4].startswith("its video cannot be read: cannot read video")
    assert errors[4].endswith("000003.png: damaged 0.00 seconds in")
    assert len(decoded) <= 6 + 1 + 0 + 1 + 4


def test_larger_videos_are_resized_if_asked(registry: Registry, tmp_path: Path) -> None:
    pair = practice({}).pairs[0]
    (tmp_path / "videos").mkdir()
    frames = answer(pair).frames.repeat(2, axis=1).repeat(2, axis=2)
    write_video_lossless(tmp_path / "videos" / f"{pair.id}.mkv", Clip(frames, 8.0))
    found = run(registry, tmp_path / "runs", {"path": str(tmp_path / "videos"), "resize": True}, limit=1)
    assert np.array_equal(found.read_output(found.pairs()[pair.id]).frames, answer(pair).frames)


def test_content_decides_the_run_and_paths_stay_out_of_the_record(registry: Registry, tmp_path: Path) -> None:
    suite, videos = practice({}), tmp_path / "videos"
    videos.mkdir()
    for pair in suite.pairs[:3]:
        write_video_lossless(videos / f"{pair.id}.mkv", answer(pair))

    def run_id(path: Path = videos, limit: int = 3, **more: Any) -> str:
        return make_plan(registry, "folder", suite, config={"path": str(path), **more}, limit=limit).run_id

    before = run_id()
    assert len({before, run_id(name="mine"), run_id(resize=True)}) == 3
    (videos / "other.mkv").write_bytes(b"of no pair")
    (videos / f"{suite.pairs[5].id}.mkv").write_bytes(b"of a pair beyond the limit")
    moved = videos.rename(tmp_path / "moved")
    assert run_id(moved) == before
    first = run(registry, tmp_path / "runs", {"path": str(moved), "name": "mine"}, limit=3)
    record = write_record(registry, first, {})
    assert (record.method.config["name"], record.method.config["n_videos"]) == ("mine", 3)
    assert str(tmp_path) not in (first.path / "record.json").read_text()
    changed = Clip(answer(suite.pairs[0]).frames + np.uint8(1), 8.0)
    write_video_lossless(moved / f"{suite.pairs[0].id}.mkv", changed)
    assert run_id(moved) != before
    again = run(registry, tmp_path / "runs", {"path": str(moved), "name": "mine"}, limit=3)
    assert again.path != first.path
    assert np.array_equal(again.read_output(again.pairs()[suite.pairs[0].id]).frames, changed.frames)


def test_what_cannot_work_is_refused_before_it_begins(registry: Registry, tmp_path: Path) -> None:
    suite, videos = practice({}), tmp_path / "videos"

    def refused(match: str, **config: Any) -> UsageError:
        with pytest.raises(UsageError, match=match) as caught:
            make_plan(registry, "folder", suite, config=config)
        return caught.value

    assert refused("requires the folder of the videos").hint == "--set path=FOLDER"
    refused("no such folder", path=str(videos))
    videos.mkdir()
    refused(r"practice-0\.mp4 or practice-0/000000\.png for the first of .* pairs, found no videos", path=str(videos))
    (videos / "clip1.mp4").write_bytes(b"")
    told = refused(r"first of 9 pairs, found 1 with other names, such as clip1\.mp4", path=str(videos))
    assert "bcd-bench export" in str(told.hint)
    (videos / "practice-1.mp4").write_bytes(b"1")
    refused(r"name=\[1\] must be text", path=str(videos), name=[1])
    (videos / "practice-1.mkv").write_bytes(b"2")
    refused(r"2 videos of pair practice-1: practice-1\.mkv, practice-1\.mp4", path=str(videos))
    refused("resize='yes' must be true or false", path=str(videos), resize="yes")


def hub(root: Path, pairs: list[Pair], *, frames: bool = False) -> Path:
    """A snapshot as a hub's cache keeps it: names that are links into a folder of blobs beside it."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, pair in enumerate(pairs):
        if frames:
            write_frames(blobs / str(number), answer(pair))
            (snapshot / pair.id).mkdir()
            for frame in (blobs / str(number)).iterdir():
                (snapshot / pair.id / frame.name).symlink_to(frame)
        else:
            write_video_lossless(blobs / f"{number}.mkv", answer(pair))
            (snapshot / f"{pair.id}.mkv").symlink_to(f"../../blobs/{number}.mkv")
    return snapshot


@pytest.mark.parametrize("frames", [False, True])
def test_links_out_of_the_folder_are_named_and_followed_only_if_asked(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frames: bool
) -> None:
    pairs = list(practice({}).pairs[:4])
    snapshot = hub(tmp_path / "hub", pairs, frames=frames)
    with pytest.raises(UsageError, match=r"4 links point outside the folder .*: practice-0") as caught:
        run(registry, tmp_path / "out", {"path": str(snapshot)}, limit=4)
    assert "BCD_BENCH_FOLLOW_LINKS=1" in str(caught.value.hint)
    monkeypatch.setenv("BCD_BENCH_FOLLOW_LINKS", "1")
    folder = run(registry, tmp_path / "out", {"path": str(snapshot)}, limit=4)
    assert [result.status for result in folder.pairs().values()] == ["ok"] * 4


def test_a_link_of_one_frame_closes_its_folder_of_frames(registry: Registry, tmp_path: Path) -> None:
    pairs, videos = practice({}).pairs, tmp_path / "videos"
    videos.mkdir()
    for pair in pairs[:2]:
        write_frames(videos / pair.id, answer(pair))
    last = videos / pairs[1].id / "000004.png"
    last.rename(tmp_path / "secret.png")
    last.symlink_to(tmp_path / "secret.png")
    folder = run(registry, tmp_path / "out", {"path": str(videos)}, limit=2)
    assert [result.status for result in folder.pairs().values()] == ["ok", "failed"]
    assert "is a link that points outside the folder" in str(folder.pairs()[pairs[1].id].error)
