"""What `export` writes can be read by other tools, is exact, continues, and never mixes suites."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from bcd_bench import Clip, Pair, Suite
from bcd_bench.io.export import export_suite
from bcd_bench.io.image_sequence import encode_png, list_frames, read_frames, write_frames
from bcd_bench.io.video import read_video
from bcd_bench.testing import practice_pairs
from bcd_bench.types.errors import UsageError


def practice_suite(version: str = "1", ids: tuple[str, ...] = ()) -> Suite:
    pairs: list[Pair] = list(practice_pairs(3, size=(24, 32), frames=4))
    pairs += [dataclasses.replace(pairs[0], id="again")]
    for index, clip_id in enumerate(ids):
        pairs[index] = dataclasses.replace(pairs[index], motion=dataclasses.replace(pairs[index].motion, id=clip_id))
    return Suite("practice", version, pairs, (24, 32), 8.0)


def rows(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]


def test_clips_are_written_once_and_without_loss(tmp_path: Path) -> None:
    suite = practice_suite()
    export_suite(suite, tmp_path)
    found = rows(tmp_path)
    assert [row["pair"] for row in found] == ["practice-0", "practice-1", "practice-2", "again"]
    assert len(list((tmp_path / "clips").iterdir())) == 6
    for pair, row in zip(suite.pairs, found, strict=True):
        assert read_video(tmp_path / str(row["content"])).sha256 == pair.content.load().sha256
        assert read_video(tmp_path / str(row["motion"])).sha256 == pair.motion.load().sha256
        assert (row["frames"], row["fps"], row["height"], row["width"]) == (4, 8.0, 24, 32)
        assert row["output"] == f"{pair.id}.mkv"
    facts = json.loads((tmp_path / "suite.json").read_text())
    assert (facts["suite"], facts["manifest_sha256"], facts["n_pairs"]) == ("practice", suite.manifest_sha256, 4)


def test_the_target_is_not_given_away(tmp_path: Path) -> None:
    suite = practice_suite()
    export_suite(suite, tmp_path, limit=1)
    target = suite.pairs[0].target
    assert target is not None
    assert target.load().sha256 not in {read_video(path).sha256 for path in (tmp_path / "clips").iterdir()}


def test_a_stopped_export_continues(tmp_path: Path) -> None:
    suite = practice_suite()
    export_suite(suite, tmp_path, limit=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "clips").iterdir()}
    assert len(before) == 2
    (tmp_path / "pairs.jsonl").unlink()  # stopped before its end: lengths are read from the clips again
    assert len(export_suite(suite, tmp_path)) == len(rows(tmp_path)) == 4
    assert {path: path.stat().st_mtime_ns for path in before} == before
    with pytest.raises(UsageError, match="holds a different suite, or the same suite in another format"):
        export_suite(suite, tmp_path, kind="png")
    with pytest.raises(UsageError, match="holds a different suite"):
        export_suite(practice_suite("2"), tmp_path)


def test_frames_are_exact_pngs_in_order(tmp_path: Path) -> None:
    suite = practice_suite()
    export_suite(suite, tmp_path, limit=1, kind="png")
    [row] = rows(tmp_path)
    folder = tmp_path / str(row["motion"])
    assert [path.name for path in list_frames(folder)] == [f"{index:06d}.png" for index in range(4)]
    assert np.array_equal(read_frames(folder), suite.pairs[0].motion.load().frames)
    assert row["output"] == "practice-0"


def test_clip_ids_that_are_no_file_names_do_no_harm(tmp_path: Path) -> None:
    suite = practice_suite(ids=("../../out", "a/b", "S1M2-4"))  # the last one is another clip's id, but for the case
    export_suite(suite, tmp_path / "here")
    assert [path.name for path in tmp_path.iterdir()] == ["here"]
    for pair, row in zip(suite.pairs, rows(tmp_path / "here"), strict=True):
        assert read_video(tmp_path / "here" / str(row["motion"])).sha256 == pair.motion.load().sha256


def test_frames_of_other_tools(tmp_path: Path) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    for number in (10, 9, 1):
        (tmp_path / f"f{number}.png").write_bytes(encode_png(np.full_like(frame, number)))
    (tmp_path / ".f2.png").write_bytes(b"hidden")
    (tmp_path / "notes.txt").write_text("no frame")
    assert read_frames(tmp_path)[:, 0, 0, 0].tolist() == [1, 9, 10]
    (tmp_path / "f11.png").write_bytes(encode_png(frame[:5]))
    with pytest.raises(UsageError, match=r"f11\.png differs in size from the first frame"):
        read_frames(tmp_path)
    (tmp_path / "f11.png").write_bytes(b"\x89PNG no")
    with pytest.raises(UsageError, match="cannot read video"):
        read_frames(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="empty has no frames"):
        read_frames(tmp_path / "empty")


def test_frames_are_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = Clip(np.zeros((3, 4, 4, 3), np.uint8), 25.0)
    calls = iter([b"one", OSError("disk full")])

    def fail(rgb: object) -> bytes:
        found = next(calls)
        if isinstance(found, OSError):
            raise found
        return found

    monkeypatch.setattr("bcd_bench.io.image_sequence.encode_png", fail)
    with pytest.raises(OSError, match="disk full"):
        write_frames(tmp_path / "clip", clip)
    assert list(tmp_path.iterdir()) == []
