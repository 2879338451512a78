"""The suites over folders of videos: each video is prepared, or left out with its reason; what was made is kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bcd_bench.assets import store as assets
from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.resample import frames_at, is_variable
from bcd_bench.io.video import read_video
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.suites import SAFE_NAME, load_suite
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.types.suite import Suite
from bcd_bench_faces import plugin
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.preprocess import pipeline as preparing
from bcd_bench_faces.preprocess.pipeline import FaceClip, prepare
from bcd_bench_faces.suites import user_videos as clips_folder
from tests.faces.test_lrs3 import MINI
from tests.faces.videos import SquareLandmarker, scene, write


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("BCD_BENCH_HOME", str(folder))
    return folder


@pytest.fixture
def squares(monkeypatch: pytest.MonkeyPatch) -> list[SquareLandmarker]:
    """Red and blue squares are faces; the list holds every landmarker that was made."""
    made: list[SquareLandmarker] = []

    def make(model: Path | None = None) -> SquareLandmarker:
        made.append(SquareLandmarker(model))
        return made[-1]

    monkeypatch.setattr(clips_folder, "FaceLandmarker", make)
    monkeypatch.setattr("bcd_bench_faces.landmarks.mediapipe.FaceLandmarker", make)
    return made


def data(root: Path) -> Mapping[str, Path]:
    return {"clips": root, "face-landmarker": root / "stands-in"}


def grey(frames: np.ndarray) -> list[float]:
    """The grey level of each frame, which tells the frame of `scene`."""
    return [float(np.median(frame[:40, :40])) for frame in frames]


def prepared(path: Path) -> preparing.Preparation:
    return prepare(path, sha256_file(path), SquareLandmarker)


def clip_of(path: Path) -> FaceClip:
    return FaceClip(path, sha256_file(path), 0, prepared(path).frames)


def folder(root: Path) -> Path:
    write(root / "anna" / "1.mkv", scene(60))
    write(root / "anna" / "2.avi", scene(30), codec="mpeg4")
    write(root / "bert" / "clip é.mp4", scene(120, (120, 100), red=(20, 30, 48)), codec="mpeg4")
    return root


def test_clips_are_square_crops_of_the_face_at_25_frames_per_second(squares: list, tmp_path: Path) -> None:
    suite = clips_folder.cross_suite(data(folder(tmp_path)))
    assert (suite.name, suite.size, suite.fps, suite.notes) == ("clips-cross", (256, 256), 25.0, ())
    assert len(suite.pairs) == 3
    for pair in suite.pairs:
        assert {pair.content.labels["subject"], pair.motion.labels["subject"]} == {"anna", "bert"}
        assert SAFE_NAME.fullmatch(pair.id)
        motion = pair.motion.load()
        assert motion.frames.shape == (pair.motion.frames, 256, 256, 3)
        red = (motion.frames[0, ..., 0] > 170) & (motion.frames[0, ..., 1] < 90)
        rows, columns = np.nonzero(red)
        assert np.ptp(rows) == pytest.approx(256 / 1.7, abs=6)
        assert columns.mean() == pytest.approx(127.5, abs=4)
        assert rows.mean() == pytest.approx(127.5 + 0.1 * 256 / 1.7, abs=4)


def test_halves_of_one_clip(squares: list, tmp_path: Path) -> None:
    suite = clips_folder.self_suite(data(folder(tmp_path)))
    assert [note.partition(":")[0] for note in suite.notes] == ["anna/2"]
    assert sorted((pair.content.frames, pair.motion.frames) for pair in suite.pairs) == [(30, 30), (50, 50)]
    pair = next(pair for pair in suite.pairs if pair.content.frames == 30)
    assert pair.target is pair.motion
    assert grey(pair.motion.load().frames)[0] - grey(pair.content.load().frames)[-1] == pytest.approx(1, abs=1)


def test_the_second_call_looks_at_no_video_and_gives_the_same_bytes(squares: list, tmp_path: Path) -> None:
    root = folder(tmp_path / "a")
    first = clips_folder.cross_suite(data(root))
    clips = [pair.motion.load().sha256 for pair in first.pairs]
    assert len(squares) == 1
    shutil.copytree(root, tmp_path / "b" / "elsewhere")
    for place in (root, tmp_path / "b" / "elsewhere"):
        again = clips_folder.cross_suite(data(place))
        assert again.manifest_sha256 == first.manifest_sha256
        assert [pair.motion.load().sha256 for pair in again.pairs] == clips
    assert len(squares) == 1
    assert str(tmp_path) not in json.dumps([pair.describe() for pair in again.pairs])


def test_another_cache_gives_the_same_bytes(
    squares: list, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = folder(tmp_path / "a")
    first = clips_folder.cross_suite(data(root))
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "other"))
    second = clips_folder.cross_suite(data(root))
    kept = [
        {path.name: path.read_bytes() for path in (place / "clips").rglob("??/*")}
        for place in (home, tmp_path / "other")
    ]
    assert len(kept[0]) == 6
    assert kept[0] == kept[1]
    assert first.manifest_sha256 == second.manifest_sha256


@pytest.mark.parametrize("ending", [".mkv", ".json"])
@pytest.mark.parametrize("damage", ["cut", "other", "gone"])
def test_a_damaged_cache_is_made_anew(squares: list, home: Path, tmp_path: Path, ending: str, damage: str) -> None:
    path = write(tmp_path / "a.mkv", scene(30))
    clip = clip_of(path).load()
    kept = next(home.rglob(f"*{ending}"))
    whole = kept.read_bytes()
    if damage == "gone":
        kept.unlink()
    elif damage == "other" and ending == ".mkv":
        other = write(tmp_path / "other.mkv", scene(30, (256, 256)))
        kept.write_bytes(other.read_bytes())
    else:
        kept.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"[]")
    again = FaceClip(path, sha256_file(path), 0, 30).load()
    assert again.sha256 == clip.sha256
    assert kept.read_bytes() == whole
    assert not list(home.rglob("*.part"))


def test_a_source_that_changed_is_refused(squares: list, home: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", scene(30))
    source = clip_of(path)
    shutil.rmtree(home)
    write(path, scene(31))
    with pytest.raises(UsageError, match="has changed since the suite was built"):
        source.load()


def test_every_bad_video_is_left_out_with_its_reason(squares: list, tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "bad").mkdir()
    (root / "bad" / "corrupt.mp4").write_bytes(b"not a video" * 500)
    (root / "bad" / "empty.mkv").write_bytes(b"")
    whole = (root / "bert" / "clip é.mp4").read_bytes()
    (root / "bad" / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    (root / "bad" / "text.txt").write_bytes(whole)
    write(root / "bad" / "black.mkv", np.zeros((40, 96, 96, 3), np.uint8))
    write(root / "bad" / "one.mkv", scene(1))
    write(root / "bad" / "short.mkv", scene(24))
    write(root / "bad" / "tiny.mkv", scene(30, red=(60, 20, 12)))
    write(root / "bad" / "runs.mkv", scene(60, (96, 400), red=(5, 20, 40), step=5))
    write(root / "bad" / "4k.mkv", scene(1, (2160, 3840), red=(900, 500, 900)), codec="mpeg4")
    seen = scene(40)
    seen[10:] = 90
    write(root / "bad" / "leaves.mkv", seen)
    suite = clips_folder.cross_suite(data(root))
    assert len(suite.pairs) == 3
    notes = dict(note.split(": left out: ") for note in suite.notes)
    assert notes.pop("bad/cut").startswith("damaged")
    assert notes == {
        "bad/4k": "too short (1 of 25 frames at 25 per second)",
        "bad/black": "no face was found",
        "bad/corrupt": "cannot be decoded: Invalid data found when processing input",
        "bad/empty": "cannot be decoded: Invalid data found when processing input",
        "bad/leaves": "a face was found in only 2 of 5 inspected frames",
        "bad/one": "too short (1 of 25 frames at 25 per second)",
        "bad/runs": "the head moves too far for one fixed crop",
        "bad/short": "too short (24 of 25 frames at 25 per second)",
        "bad/tiny": "the face is too small (the crop has 20 pixels, at least 64 are required)",
    }
    assert clips_folder.cross_suite(data(root)).notes == suite.notes
    assert len(squares) == 1


def test_a_video_that_a_library_chokes_on_is_left_out_and_tried_again(
    squares: list, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.mkv", scene(30))
    with monkeypatch.context() as patch:
        patch.setattr(SquareLandmarker, "detect", lambda self, frame: (_ for _ in ()).throw(RuntimeError("graph")))
        assert prepared(path).unusable == "cannot be preprocessed: RuntimeError: graph"
    assert prepared(path).frames == 30


def test_of_two_faces_the_largest_is_kept_and_that_is_said(squares: list, tmp_path: Path) -> None:
    root = folder(tmp_path)
    write(root / "cleo" / "two.mkv", scene(30, (96, 200), red=(20, 30, 24), blue=(120, 30, 40)))
    suite = clips_folder.cross_suite(data(root))
    assert suite.notes == ("cleo/two: a second face was detected; the largest one is used",)
    clip = clip_of(root / "cleo" / "two.mkv").load()
    blue = (clip.frames[0, ..., 2] > 170) & (clip.frames[0, ..., 0] < 90)
    assert 0.25 < blue.mean() < 0.45


def test_a_variable_frame_rate_is_resampled_by_its_time_stamps(squares: list, tmp_path: Path) -> None:
    """10 frames at 25 per second, then 20 at 10: the last comes at 2.3 s, and each is the nearest in time."""
    stamps = [40 * i for i in range(10)] + [400 + 100 * i for i in range(20)]
    path = write(tmp_path / "a.mkv", scene(30), milliseconds=stamps)
    made = prepared(path)
    assert made.frames == 58
    assert made.remarks == ("variable frame rate; resampled by its time stamps",)
    levels = np.rint(grey(clip_of(path).load().frames)).astype(int)
    nearest = [int(np.argmin([abs(stamp - 40 * k) for stamp in stamps])) for k in range(58)]
    assert (levels - levels[0]).tolist() == nearest


@pytest.mark.parametrize(("fps", "count", "expected"), [(25, 40, 40), (50, 80, 40), (30, 48, 40), (10, 16, 38)])
def test_a_constant_frame_rate_becomes_25(tmp_path: Path, fps: int, count: int, expected: int) -> None:
    path = write(tmp_path / "a.mkv", scene(count), fps=fps)
    steps: list[float] = []
    levels = np.array([np.median(shown.rgb) for shown in frames_at(path, 25.0, 100, steps)])
    assert len(levels) == expected
    assert not is_variable(steps)
    assert np.abs((levels - levels[0]) - np.arange(expected) * fps / 25).max() <= 0.5 + 1e-6


def test_only_the_first_seconds_of_a_long_video_are_decoded(squares: list, tmp_path: Path, monkeypatch) -> None:
    path = write(tmp_path / "a.mkv", scene(600))
    looked: list[int] = []
    watched = SquareLandmarker.detect
    monkeypatch.setattr(SquareLandmarker, "detect", lambda self, frame: looked.append(1) or watched(self, frame))
    made = prepared(path)
    assert made.frames == preparing.FRAMES == 100
    assert len(looked) == 13
    steps: list[float] = []
    assert len(list(frames_at(path, 25.0, 100, steps))) == 100
    assert len(steps) <= 101


def test_a_small_face_in_a_large_frame_is_found_in_windows_of_it(tmp_path: Path, monkeypatch) -> None:
    """A detector that sees only faces of a fifth of its frame or more, as MediaPipe's does."""
    whole = SquareLandmarker.detect

    def shortsighted(self: SquareLandmarker, frame: np.ndarray) -> list:
        return [face for face in whole(self, frame) if np.ptp(face.points[:, 0]) > max(frame.shape[:2]) / 5]

    monkeypatch.setattr(SquareLandmarker, "detect", shortsighted)
    path = write(tmp_path / "a.mkv", scene(26, (360, 640), red=(420, 200, 40)))
    made = prepared(path)
    assert made.unusable == ""
    left, top, right, bottom = made.crop
    assert (right - left, (left + right) / 2) == (68, pytest.approx(440, abs=1))
    assert bottom - top == 68


def test_crops_stay_within_the_frame(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", scene(26, red=(110, 0, 48)))
    made = prepared(path)
    assert made.crop == (160 - 82, 0, 160, 82)


@pytest.mark.parametrize("root", ["nothing", "one", "faceless"])
def test_a_folder_without_pairs_is_one_clear_error(squares: list, tmp_path: Path, root: str) -> None:
    if root == "one":
        write(tmp_path / "anna" / "1.mkv", scene(30))
    elif root == "faceless":
        write(tmp_path / "a" / "1.mkv", scene(30, red=None))
        write(tmp_path / "b" / "1.mkv", scene(30, red=None))
    with pytest.raises(UsageError, match="contains no valid pairs; expected") as caught:
        clips_folder.cross_suite(data(tmp_path))
    if root == "faceless":
        assert "a/1: left out: no face was found (and 1 more)" in str(caught.value)


def test_a_cache_that_cannot_be_written_is_one_clear_error(squares: list, tmp_path: Path, monkeypatch) -> None:
    root = folder(tmp_path / "a")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "file"))
    with pytest.raises(UsageError, match="cannot write"):
        clips_folder.cross_suite(data(root))


def test_without_data_the_error_says_what_is_needed() -> None:
    registry = Registry.from_modules([plugin])
    with pytest.raises(MissingAssetError, match="a folder of talking-head videos") as caught:
        load_suite(registry, "clips-cross")
    assert caught.value.hint == "--data clips=PATH"


def test_real_faces_are_found_in_frames_of_any_size(tmp_path: Path) -> None:
    """Crops pasted back into a full-HD frame: found again, framed as they were."""
    models = [place / FACE_LANDMARKER.filename for place in assets.search_path()]
    model = next((path for path in models if path.is_file()), None)
    if model is None:
        pytest.skip(f"no {FACE_LANDMARKER.filename} in BCD_BENCH_ASSETS")
    if not MINI.is_dir():
        pytest.skip(f"no LRS3 tree at {MINI} (BCD_BENCH_TEST_LRS3)")
    for name in ("p002", "p005"):
        face = read_video(MINI / "test" / name / "00002.mp4", stop=26).frames
        wide = np.full((26, 1080, 1920, 3), 110, np.uint8)
        wide[:, 300:524, 1200:1424] = face
        write(tmp_path / name / "wide.mp4", wide, codec="mpeg4")
    write(tmp_path / "nobody" / "noise.mp4", scene(26, (240, 320), red=None), codec="mpeg4")
    os.environ["BCD_BENCH_ASSETS"] = str(model.parent)
    suite: Suite = load_suite(Registry.from_modules([plugin]), "clips-cross", {"clips": tmp_path})
    assert (len(suite.pairs), suite.notes) == (2, ("nobody/noise: left out: no face was found",))
    for name in ("p002", "p005"):
        made = prepare(tmp_path / name / "wide.mp4", sha256_file(tmp_path / name / "wide.mp4"), SquareLandmarker)
        left, top, right, bottom = made.crop
        assert 150 <= right - left <= 300
        assert abs((left + right) / 2 - 1312) < 30
        assert abs((top + bottom) / 2 - 412) < 45


def test_videos_of_phones_are_turned_upright(tmp_path: Path) -> None:
    """The track header of an .mp4 can ask for a quarter turn clockwise, as upright phone videos do."""
    frames = scene(26, (96, 160), red=(0, 0, 40))
    path = write(tmp_path / "a.mp4", frames, codec="mpeg4")
    plain = next(iter(frames_at(path, 25.0, 1))).rgb
    body = bytearray(path.read_bytes())
    matrix = body.index(b"tkhd") + 4 + 40
    quarter = (0, 1 << 16, 0, -(1 << 16), 0, 0, 96 << 16, 0, 1 << 30)
    body[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in quarter)
    path.write_bytes(body)
    turned = next(iter(frames_at(path, 25.0, 1))).rgb
    assert turned.shape == (160, 96, 3)
    assert np.array_equal(turned, np.rot90(plain, -1))
    assert turned[10, -10].astype(int).tolist() == pytest.approx((220, 20, 20), abs=40)


def test_pixels_become_square(tmp_path: Path) -> None:
    path = write(tmp_path / "a.avi", scene(26, (96, 80)), codec="mpeg4", aspect=2)
    assert next(iter(frames_at(path, 25.0, 1))).rgb.shape == (96, 160, 3)
