"""Faces in `bcd-bench transfer` and photos in suites over folders: the crop is that of the suites, for any length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bcd_bench as bb
from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.image_sequence import encode_png
from bcd_bench.io.video import read_video
from bcd_bench.types.errors import UsageError
from bcd_bench_faces.preprocess.crop import FaceCropper
from bcd_bench_faces.preprocess.pipeline import prepare
from bcd_bench_faces.suites import user_videos
from tests.faces.real_clips import needs_clips, needs_landmarker, real
from tests.faces.test_clips_folder import data, folder, home, squares  # noqa: F401 - fixtures
from tests.faces.videos import SquareLandmarker, scene, write

# ruff: noqa: F811 - fixtures of another module


class Shown:
    def __init__(self, rgb: np.ndarray) -> None:
        self.rgb = rgb


def cropper() -> FaceCropper:
    found = FaceCropper()
    found.load({"face-landmarker": Path("stands-in")})
    return found


def test_the_crop_is_that_of_the_suites(squares: list, tmp_path: Path) -> None:
    frames = scene(60, (120, 100), red=(20, 30, 48), step=0)
    path = write(tmp_path / "a.mkv", frames)
    crop = cropper().find(map(Shown, frames))
    assert (crop.left, crop.top, crop.right, crop.bottom) == prepare(path, sha256_file(path), SquareLandmarker).crop
    assert crop.notes == ()
    two = scene(1, (96, 200), red=(20, 30, 24), blue=(120, 30, 40))
    assert cropper().find(map(Shown, two)).notes == ("a second face was detected; the largest one is used",)


def test_only_every_eighth_frame_is_looked_at(squares: list) -> None:
    class Watched(Shown):
        looked = 0

        def __getattribute__(self, name: str) -> object:
            if name == "rgb":
                Watched.looked += 1
            return super().__getattribute__(name)

    cropper().find([Watched(frame) for frame in scene(17)])
    assert squares[0].asked == 3


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        (scene(9, red=None), "no face was found"),
        (scene(9, red=(60, 20, 12)), "the face is too small"),
        (np.concatenate([scene(2), scene(30, red=None)]), "a face was found in only 1 of 4 inspected frames"),
    ],
)
def test_clips_without_a_usable_face_are_refused_with_the_reason(
    squares: list, frames: np.ndarray, reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        cropper().find(map(Shown, frames))


def test_photos_are_content_once_and_leave_the_other_pairs_alone(squares: list, tmp_path: Path) -> None:
    before = user_videos.cross_suite(data(folder(tmp_path)))
    (tmp_path / "cleo").mkdir()
    upright = scene(1, (96, 160))[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(upright))).save(tmp_path / "cleo" / "1.jpg", exif=exif, quality=98)
    (tmp_path / "anna" / "1.png").write_bytes(encode_png(upright))  # beside the video 1.mkv
    (tmp_path / "cleo" / "empty.png").write_bytes(encode_png(np.zeros((90, 90, 3), np.uint8)))
    suite = user_videos.cross_suite(data(tmp_path))
    pairs = {pair.id: pair for pair in suite.pairs}
    assert [pair.id for pair in suite.pairs if ".jpg" not in pair.id and ".png" not in pair.id] == [
        pair.id for pair in before.pairs
    ]
    added = sorted(set(pairs) - {pair.id for pair in before.pairs})
    assert [name.partition("-from-")[0] for name in added] == ["anna-1.png", "cleo-1.jpg"]
    assert suite.notes == ("cleo/empty.png: left out: no face was found",)
    for name in added:
        pair = pairs[name]
        assert pair.content.frames == 1
        assert pair.content.labels["subject"] != pair.motion.labels["subject"]
        frame = pair.content.load().frames
        assert frame.shape == (1, 256, 256, 3)
        red = (frame[0, ..., 0] > 170) & (frame[0, ..., 1] < 90)
        rows, columns = np.nonzero(red)
        assert np.ptp(rows) == pytest.approx(np.ptp(columns), abs=4)
        assert rows.mean() > columns.mean() + 5  # below the centre: the photo is upright
    assert user_videos.cross_suite(data(tmp_path)).manifest_sha256 == suite.manifest_sha256
    with_self = user_videos.self_suite(data(tmp_path))
    assert all(".png" not in pair.id and ".jpg" not in pair.id for pair in with_self.pairs)


def test_one_video_and_photos_of_others_are_enough(squares: list, tmp_path: Path) -> None:
    write(tmp_path / "anna" / "1.mkv", scene(30))
    for name in ("bert", "cleo"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.png").write_bytes(encode_png(scene(1)[0]))
    suite = user_videos.cross_suite(data(tmp_path))
    assert {pair.id for pair in suite.pairs} == {"bert-x.png-from-anna-1", "cleo-x.png-from-anna-1"}


@needs_clips
@needs_landmarker
def test_a_real_photo_is_moved_by_a_real_video(tmp_path: Path) -> None:
    wide = np.full((400, 600, 3), 110, np.uint8)
    wide[100:324, 200:424] = real("p002", "00002", 1)[0]
    (tmp_path / "photo.png").write_bytes(encode_png(wide))
    driving = np.full((12, 360, 480, 3), 90, np.uint8)
    driving[:, 60:284, 120:344] = real("p005", "00001", 12)
    write(tmp_path / "m.mkv", driving)
    result = bb.transfer(
        "pca-motion", content=tmp_path / "photo.png", motion=tmp_path / "m.mkv", output=tmp_path / "o.mkv",
        paste_back=True,
    )  # fmt: skip
    assert result.frames.shape == (12, 256, 256, 3)
    pasted = read_video(tmp_path / "o.mkv").frames
    assert (pasted[:, :40] == wide[:40]).all()
    assert (pasted[3] != wide).any()
