"""The landmarker and its extractor: any size, any number of faces, no memory, no noise on the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bcd_bench import Clip
from bcd_bench.types.errors import MissingAssetError
from bcd_bench_faces.landmarks.extractor import MediaPipeLandmarks
from bcd_bench_faces.landmarks.mediapipe import BLENDSHAPES, LONGEST_SIDE, POINTS, FaceLandmarker
from bcd_bench_faces.landmarks.silence_native_logs import without_chatter
from tests.faces.real_clips import Frames, black, needs_clips, needs_landmarker, real

NOSE_TIP = 1


@pytest.fixture(scope="module")
def extractor() -> MediaPipeLandmarks:
    made = MediaPipeLandmarks()
    made.load("cpu")
    return made


def landmarks(extractor: MediaPipeLandmarks, frames: Frames) -> Any:
    return extractor.extract([Clip(frames, 25.0)])[0]


@needs_landmarker
@needs_clips
def test_golden_values_of_a_real_clip(extractor: MediaPipeLandmarks) -> None:
    found = landmarks(extractor, real("p001"))
    assert {name: (array.dtype.name, array.shape) for name, array in found.items()} == {
        "points": ("float32", (3, POINTS, 3)),
        "blendshapes": ("float32", (3, 52)),
        "rotation": ("float32", (3, 3, 3)),
        "faces": ("int64", (3,)),
    }
    assert found["faces"].tolist() == [1, 1, 1]
    nose = found["points"][:, NOSE_TIP, :2]
    np.testing.assert_allclose(nose, [[110.9, 140.9], [108.4, 138.3], [109.1, 139.5]], atol=1.0)
    jaw = found["blendshapes"][:, BLENDSHAPES.index("jawOpen")]
    np.testing.assert_allclose(jaw, [0.023, 0.139, 0.019], atol=0.05)
    np.testing.assert_allclose(found["rotation"] @ np.swapaxes(found["rotation"], 1, 2), [np.eye(3)] * 3, atol=1e-4)
    assert ((found["blendshapes"] >= 0) & (found["blendshapes"] <= 1)).all()


@needs_landmarker
@needs_clips
def test_blendshapes_have_the_models_names() -> None:
    import mediapipe

    landmarker = FaceLandmarker()
    image = mediapipe.Image(image_format=mediapipe.ImageFormat.SRGB, data=real("p001")[0])
    [shapes] = landmarker._landmarker.detect(image).face_blendshapes
    assert tuple(shape.category_name for shape in shapes) == BLENDSHAPES


@needs_landmarker
@needs_clips
def test_frames_without_a_face_are_nan_and_cost_no_other(extractor: MediaPipeLandmarks) -> None:
    faces = real("p001")
    mixed = landmarks(extractor, np.stack([faces[0], black(1)[0], faces[1]]))
    assert mixed["faces"].tolist() == [1, 0, 1]
    for name in ("points", "blendshapes", "rotation"):
        assert np.isnan(mixed[name][1]).all()
        np.testing.assert_array_equal(mixed[name][[0, 2]], landmarks(extractor, faces[:2])[name])


@needs_landmarker
@needs_clips
def test_no_result_depends_on_order_or_company(extractor: MediaPipeLandmarks) -> None:
    one, two = Clip(real("p001"), 25.0), Clip(real("p004"), 25.0)
    together = extractor.extract([one, two])
    backwards = extractor.extract([two, Clip(one.frames[::-1], 25.0)])
    for name, array in together[0].items():
        np.testing.assert_array_equal(array, backwards[1][name][::-1])
        np.testing.assert_array_equal(together[1][name], backwards[0][name])


@needs_landmarker
@needs_clips
def test_the_larger_of_two_faces_is_taken_wherever_it_is(extractor: MediaPipeLandmarks) -> None:
    large, small = real("p001")[0], black(1)[0].copy()
    small[40:184, 40:184] = cv2.resize(real("p004")[0], (144, 144), interpolation=cv2.INTER_AREA)
    alone = landmarks(extractor, large[None])["points"][0, NOSE_TIP, :2]
    right = landmarks(extractor, np.concatenate([small, large], 1)[None])
    left = landmarks(extractor, np.concatenate([large, small], 1)[None])
    assert (right["faces"][0], left["faces"][0]) == (2, 2)
    np.testing.assert_allclose(left["points"][0, NOSE_TIP, :2], alone, atol=3)
    np.testing.assert_allclose(right["points"][0, NOSE_TIP, :2], alone + np.array([224, 0]), atol=3)


@needs_landmarker
@needs_clips
def test_large_frames_give_points_in_their_own_pixels(extractor: MediaPipeLandmarks) -> None:
    assert LONGEST_SIDE == 1024
    face, wide = real("p001")[0], black(1, 2160, 3840)
    wide[0, :, 840:3000] = cv2.resize(face, (2160, 2160), interpolation=cv2.INTER_CUBIC)
    found, alone = landmarks(extractor, wide), landmarks(extractor, face[None])
    moved = (found["points"][0, :, :2] - [840, 0]) * (224 / 2160)
    assert np.abs(moved - alone["points"][0, :, :2]).mean() < 1.0


@needs_landmarker
@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 2), (2160, 12)])
def test_odd_frames_do_not_raise(extractor: MediaPipeLandmarks, size: tuple[int, int]) -> None:
    found = landmarks(extractor, black(1, *size))
    assert found["faces"].tolist() == [0]
    assert found["points"].shape == (1, POINTS, 3)


@needs_landmarker
def test_a_process_with_a_landmarker_says_nothing_on_stderr() -> None:
    code = (
        "import numpy as np\n"
        "from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker\n"
        "kept = FaceLandmarker()\n"
        "dropped = FaceLandmarker()\n"
        "del dropped\n"
        "print(len(kept.detect(np.zeros((64, 64, 3), np.uint8))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=3600, check=False)
    assert (done.returncode, done.stdout) == (0, "0\n")
    assert done.stderr == ""


def test_matplotlib_is_imported_when_it_is_used() -> None:
    code = (
        "import sys\n"
        "from bcd_bench_faces.landmarks.import_mediapipe import import_tasks\n"
        "import_tasks()\n"
        "print('matplotlib' in sys.modules)\n"
        "from mediapipe.tasks.python.vision import drawing_utils\n"
        "draw = drawing_utils.plt.figure\n"
        "import matplotlib.pyplot\n"
        "print(draw is matplotlib.pyplot.figure)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=3600, check=False)
    assert (done.returncode, done.stdout) == (0, "False\nTrue\n"), done.stderr


def test_only_chatter_is_held_back(capfd: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        with without_chatter():
            os.write(2, b"W0000 00:00:1.1 6 feedback.cc:121] noise\nE0000 00:00:1.1 6 graph.cc:1] trouble\n")
            print("progress", file=sys.stderr)
            raise ValueError("as before")

    with pytest.raises(ValueError, match="as before"):
        work()
    assert sorted(capfd.readouterr().err.splitlines()) == ["E0000 00:00:1.1 6 graph.cc:1] trouble", "progress"]


def test_without_the_model_the_command_that_mends_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path))
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path))
    with pytest.raises(MissingAssetError, match="asset 'face-landmarker': not found") as caught:
        MediaPipeLandmarks().load("cpu")
    assert caught.value.hint == "bcd-bench assets fetch face-landmarker"
