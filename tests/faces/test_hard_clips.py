"""Clips at the edge: each metric of faces has the right answer or a reason for none, and no mean has a 0 in it."""

from __future__ import annotations

import math
import shutil
import tracemalloc
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bcd_bench import Clip, ClipRef, Failed, Pair
from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.decode import OpenVideo
from bcd_bench.plugin.loading import load_factory
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import load_registry
from bcd_bench.scoring.features import BatchFeatures, FeatureStore
from bcd_bench.statistics.aggregate import aggregate_rows
from bcd_bench.types.errors import UsageError
from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker
from bcd_bench_faces.preprocess.pipeline import prepare
from bcd_bench_faces.suites import lrs3
from bcd_bench_faces.synthesis.renderer import Actor
from bcd_bench_faces.synthesis.sampling import identity_of, look_of, motion_of
from tests.faces.real_clips import Frames, InMemory, black, needs_arcface, needs_landmarker
from tests.faces.videos import scene, write

PERSON, ANOTHER = 3, 11
ACROSS = Rotation.from_euler("y", 50, degrees=True), Rotation.from_euler("y", 85, degrees=True)
AWAY = Rotation.from_euler("y", 180, degrees=True)
FACELESS = ("profile", "back of a head", "black", "noise")
"""Cases in which no metric of faces has anything to say."""


class Torn:
    """A source that cannot be decoded."""

    def load(self) -> Clip:
        raise UsageError("cannot read video torn.mp4: Invalid data found when processing input")

    def describe(self) -> dict[str, Any]:
        return {"kind": "torn"}


def head(person: int, turn: Rotation, size: int = 256, count: int = 2) -> Frames:
    """A test person with the head turned from straight ahead, in frames that differ in expression."""
    motion = motion_of("test", PERSON, 25)
    rotation = np.repeat(turn.as_matrix()[None].astype(np.float32), count, axis=0)
    actor = Actor(identity_of("test", person), look_of("test", person))
    shown = slice(0, 6 * count, 6)
    return actor.frames(motion.expression[shown], rotation, np.repeat(motion.translation[:1], count, axis=0), size)


@pytest.fixture(scope="module")
def cases() -> Mapping[str, tuple[Any, Any, Frames]]:
    """Name -> content, motion and output; a content of None cannot be decoded."""
    front = head(PERSON, Rotation.identity())
    small = black(2, 256, 128)
    small[:, 64:192] = head(ANOTHER, Rotation.identity(), 128)
    noise = np.random.default_rng(0).integers(0, 256, (2, 256, 256, 3), dtype=np.uint8)
    return {
        "itself": (front, front, front),
        "turned": (front, front, head(PERSON, ACROSS[0])),
        "two faces": (front, front, np.concatenate([front, small], axis=2)),
        "one frame": (front[:1], front[:1], front[:1]),
        "profile": (front, front, head(PERSON, ACROSS[1])),
        "back of a head": (front, front, head(ANOTHER, AWAY)),
        "black": (front, front, black(2, 256, 256)),
        "noise": (front, front, noise),
        "torn": (None, front, front),
        "another length": (front, front, front[:1]),
    }


@pytest.fixture(scope="module")
def scored(cases: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Metric name -> its rows by case, and what a record would hold of it. Each clip is looked at once."""
    registry = load_registry()
    pairs = []
    for name, (content, motion, _) in cases.items():
        source = Torn() if content is None else InMemory(content)
        pairs.append(Pair(name, ClipRef(f"c-{name}", source), ClipRef(f"m-{name}", InMemory(motion))))
    outputs = [Clip(output, 25.0) for _, _, output in cases.values()]
    store = FeatureStore(registry, device="cpu", root=tmp_path_factory.mktemp("features"))
    features = BatchFeatures(store, pairs, outputs)

    def of(metric: str) -> tuple[dict[str, Any], dict[str, Any]]:
        spec = registry.metric(metric)
        made = load_factory(spec.factory)()
        made.load("cpu")
        items = [
            Scored(pair, clip, features.of(index, spec.extractors))
            for index, (pair, clip) in enumerate(zip(pairs, outputs, strict=True))
        ]
        rows = dict(zip(cases, made.score(items), strict=True))
        answered = {name: row for name, row in rows.items() if not isinstance(row, Failed)}
        values, _ = aggregate_rows(metric, made, made.columns, [(name, name) for name in cases], answered)
        return rows, values

    return of


METRICS = [
    pytest.param("csim", "csim", marks=[needs_landmarker, needs_arcface]),
    *(
        pytest.param(metric, column, marks=needs_landmarker)
        for metric, column in (
            ("ard", "ard"),
            ("auh", "auh"),
            ("shape-error-mediapipe", "shape-error-mediapipe"),
            ("motion-error-mediapipe", "motion-rotation-mediapipe"),
            ("cross-error-mediapipe", "cross-error-mediapipe"),
        )
    ),
    ("shape-error", "shape-error"),
    ("motion-error", "motion-rotation"),
    ("cross-error", "cross-error"),
]
TURNED = {"ard": (50, 12), "motion-rotation": (50, 8), "motion-rotation-mediapipe": (50, 8)}
"""Degrees that a turn by 50 reads as, and how far off it may be: landmarks of the far side are guesses."""


@pytest.mark.parametrize(("metric", "column"), METRICS)
def test_right_answers_or_reasons(scored: Any, metric: str, column: str) -> None:
    rows, values = scored(metric)
    for name in FACELESS:
        assert isinstance(rows[name], Failed), (name, rows[name])
        assert "0 of 2" in rows[name].reason
    without_content = metric.partition("-")[0] in ("ard", "auh", "motion")
    if without_content:
        assert rows["torn"][column] == pytest.approx(0, abs=1e-6)
    else:
        assert "content clip c-torn: UsageError: cannot read video torn.mp4" in rows["torn"].reason
    compares_frames = metric.partition("-")[0] not in ("csim", "shape")
    assert isinstance(rows["another length"], Failed) == compares_frames
    same, turned, two = (rows[name][column] for name in ("itself", "turned", "two faces"))
    if metric == "csim":
        assert same == pytest.approx(1, abs=0.02)
        assert 0.2 < turned < two
        assert two > 0.9
    else:
        assert same == pytest.approx(0, abs=1e-6)
        assert turned > 0 or metric == "auh"
        assert two < turned or metric in ("auh", "shape-error", "shape-error-mediapipe")
    if column in TURNED:
        about, give = TURNED[column]
        assert turned == pytest.approx(about, abs=give)
    assert math.isfinite(rows["one frame"][column])
    # what a record says: those that failed are counted, and are no part of the mean
    answers = [row[column] for row in rows.values() if not isinstance(row, Failed)]
    assert (values[column].n, values[column].n_failed) == (len(answers), len(rows) - len(answers))
    assert values[column].value == pytest.approx(np.mean(answers))
    assert not values[column].covered


# long and large videos ----------------------------------------------------------------------------------------------


def test_of_a_long_clip_only_what_is_used_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    write(tmp_path / "tree" / "a" / "1.mp4", scene(400, (64, 64)), codec="mpeg4")
    (tmp_path / "tree" / "b").mkdir()
    shutil.copyfile(tmp_path / "tree" / "a" / "1.mp4", tmp_path / "tree" / "b" / "1.mp4")
    pair = lrs3.cross_suite({"lrs3": tmp_path / "tree"}).pairs[0]
    assert pair.content.frames == lrs3.LONGEST == 250
    decoded: list[int] = []
    whole = OpenVideo._decoded
    monkeypatch.setattr(OpenVideo, "_decoded", lambda self, *rest: decoded.append(1) or whole(self, *rest))
    assert len(pair.content.load()) == 250
    assert len(decoded) == 250


@pytest.mark.slow
def test_ten_minutes_take_the_memory_of_ten_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """15,000 frames are 2.9 GB at 256 x 256."""
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    peaks = []
    for seconds in (10, 600):
        root = tmp_path / str(seconds)
        write(root / "a" / "1.mp4", np.resize(scene(50, (64, 64)), (25 * seconds, 64, 64, 3)), codec="mpeg4")
        (root / "b").mkdir()
        shutil.copyfile(root / "a" / "1.mp4", root / "b" / "1.mp4")
        tracemalloc.start()
        pairs = lrs3.cross_suite({"lrs3": root}).pairs
        assert [(len(pair.content.load()), len(pair.motion.load())) for pair in pairs] == [(250, 50)] * 2
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[0] > 250 * 256 * 256 * 3  # frames are counted
    assert peaks[1] < 1.1 * peaks[0]


@needs_landmarker
def test_a_face_in_a_4k_video_is_found_and_cropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    face = cv2.resize(head(PERSON, Rotation.identity(), count=1)[0], (900, 900), interpolation=cv2.INTER_CUBIC)
    frame = np.full((1, 2160, 3840, 3), 110, np.uint8)
    frame[0, 700:1600, 2500:3400] = face
    path = write(tmp_path / "4k.mp4", np.broadcast_to(frame, (25, *frame.shape[1:])), codec="mpeg4")
    made = prepare(path, sha256_file(path), FaceLandmarker)
    assert (made.frames, made.unusable) == (25, "")
    left, top, right, bottom = made.crop
    assert right - left == bottom - top
    assert 500 < right - left < 1100
    assert abs((left + right) / 2 - 2950) < 60
    assert abs((top + bottom) / 2 - 1150) < 200
