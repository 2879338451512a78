"""How the suites of real faces meet the reader: turned, damaged and oddly named videos, and what is remembered."""

# ruff: noqa: F811 - fixtures of another module

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from bcd_bench.io.decode import OpenVideo
from bcd_bench.io.resample import frames_at
from bcd_bench.io.video import read_video
from bcd_bench.types.errors import UnsupportedVideoError, UsageError
from bcd_bench_faces.suites import lrs3
from bcd_bench_faces.suites import user_videos as clips_folder
from tests.faces.test_clips_folder import data, home, prepared, squares  # noqa: F401 - fixtures
from tests.faces.videos import scene, write


def turn(path: Path, numbers: tuple[int, int, int, int]) -> None:
    """Write the display matrix (a, b, c, d) into the track header of an .mp4."""
    a, b, c, d = (number << 16 for number in numbers)
    body = bytearray(path.read_bytes())
    at = body.index(b"tkhd") + 4 + 40
    body[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 1 << 30))
    path.write_bytes(body)


@pytest.mark.parametrize("numbers", [(0, 1, -1, 0), (-1, 0, 0, 1), (0, 1, 1, 0)])
def test_turned_and_mirrored_clips_are_shown_alike_by_every_reader(tmp_path: Path, numbers: tuple[int, ...]) -> None:
    path = write(tmp_path / "a" / "1.mp4", scene(30, (64, 64), red=(0, 0, 24)), codec="mpeg4")
    plain = read_video(path).frames
    turn(path, numbers)
    whole = read_video(path).frames
    assert not np.array_equal(whole, plain)
    assert np.array_equal(whole, np.stack([shown.rgb for shown in frames_at(path, 25.0, 30)]))
    write(tmp_path / "b" / "1.mp4", scene(30, (64, 64)), codec="mpeg4")
    suite = lrs3.cross_suite({"lrs3": tmp_path})
    clip = next(pair for pair in suite.pairs if pair.motion.id.startswith("a-")).motion.load()
    assert np.array_equal(clip.frames, read_video(path, size=(256, 256)).frames)


def test_the_size_of_a_face_crop_is_the_one_that_is_shown(tmp_path: Path) -> None:
    """A clip of 48 x 64 whose pixels are wider than high is square; one of 64 x 64 with such pixels is not."""
    for name in ("a", "b"):
        write(tmp_path / name / "1.avi", scene(30, (64, 32)), codec="mpeg4", aspect=2)
        (tmp_path / name / "1.avi").rename(tmp_path / name / "1.mp4")
    write(tmp_path / "c" / "1.avi", scene(30, (64, 64)), codec="mpeg4", aspect=2).rename(tmp_path / "c" / "1.mp4")
    suite = lrs3.cross_suite({"lrs3": tmp_path})
    assert len(suite.pairs) == 2
    assert suite.notes == ("c/1: left out: 128 x 64 pixels is not a face crop; clips-cross crops faces itself",)


def test_an_interlaced_clip_is_left_out_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path / name / "1.mp4", scene(30, (64, 64)), codec="mpeg4")
    whole = OpenVideo._decoded

    class Interlaced:
        def __init__(self, frame: object) -> None:
            self._frame = frame

        interlaced_frame = True

        def __getattr__(self, name: str) -> object:
            return getattr(self._frame, name)

    def decoded(self: OpenVideo, *rest: object) -> list[object]:
        found = whole(self, *rest)
        return [Interlaced(frame) for frame in found] if self._path.parent.name == "c" else found

    monkeypatch.setattr(OpenVideo, "_decoded", decoded)
    suite = lrs3.cross_suite({"lrs3": tmp_path})
    assert (len(suite.pairs), suite.notes) == (
        2,
        ("c/1: left out: interlaced: every frame combines two points in time",),
    )


def test_a_damaged_clip_fails_when_it_is_loaded(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name / "1.mp4", scene(30, (64, 64)), codec="mpeg4")
    body = bytearray((tmp_path / "a" / "1.mp4").read_bytes())
    start = body.index(b"mdat") + 3000
    for at in np.random.default_rng(0).integers(start, len(body), 200):
        body[at] ^= 0x5A
    (tmp_path / "a" / "1.mp4").write_bytes(body)
    suite = lrs3.cross_suite({"lrs3": tmp_path})
    pair = next(pair for pair in suite.pairs if pair.motion.id.startswith("a-"))
    with pytest.raises(UsageError, match=r"cannot read video .*1\.mp4: (damaged|cannot be decoded)"):
        pair.motion.load()


def test_a_colon_in_the_path_is_no_protocol_and_nothing_is_remembered(
    squares: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        write(Path("d:1").absolute() / name / "1.mkv", scene(30))
    first = clips_folder.cross_suite(data(Path("d:1")))
    assert (len(first.pairs), first.notes) == (2, ())
    shutil.copytree("d:1", "plain")
    again = clips_folder.cross_suite(data(Path("plain")))
    assert again.manifest_sha256 == first.manifest_sha256
    for pair in first.pairs:
        assert pair.motion.load().frames.shape == (30, 256, 256, 3)


@pytest.mark.parametrize("kind", ["disk", "decoder", "gone"])
def test_a_failure_to_open_is_not_remembered(
    squares: list, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = write(tmp_path / "a.mkv", scene(30))
    with monkeypatch.context() as patch:
        if kind == "decoder":

            def lacking(*_: object) -> None:
                raise UnsupportedVideoError("the installed PyAV has no decoder for it")

            patch.setattr("bcd_bench.io.decode._best_stream", lacking)
            assert prepared(path).unusable == "the installed PyAV has no decoder for it"
        else:

            def failing(*_: object) -> None:
                raise PermissionError(13, "Permission denied") if kind == "gone" else OSError(5, "Input/output error")

            patch.setattr("bcd_bench.io.decode._plain_file", failing)
            with pytest.raises(OSError, match=r"Permission denied|Input/output error"):
                prepared(path)
    assert prepared(path).frames == 30


def test_what_the_content_proves_is_remembered_for_one_pyav(
    squares: list, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mkv", scene(30))
    path.write_bytes(path.read_bytes()[:-3000])
    assert prepared(path).unusable.startswith("damaged: ")
    (noted,) = home.rglob("??/*.json")
    before = json.loads(noted.read_text())
    with monkeypatch.context() as patch:
        patch.setattr("bcd_bench_faces.preprocess.pipeline._made", lambda *_: pytest.fail("looked at again"))
        assert prepared(path).unusable.startswith("damaged: ")
    noted.write_text(json.dumps(before | {"av": "0.1"}))
    assert prepared(path).unusable.startswith("damaged: ")
    assert json.loads(noted.read_text()) == before
