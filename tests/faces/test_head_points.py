"""Where points of rendered heads are told to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bcd_bench_faces.dense_landmarks.points import dense_points, project
from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.head_model.points import points_in_frames, rest_points
from bcd_bench_faces.suites.training_heads import SECOND_TAKES, HeadsTrainingClips
from bcd_bench_faces.synthesis.sampling import identity_of, motion_of


def test_points_of_the_face_are_where_the_landmarks_are_taught() -> None:
    vertices, index = dense_points().vertices, HeadModel.load().expression_index
    identity, motion = identity_of("train", 4), motion_of("train", 4, 5)
    found = points_in_frames(identity, motion.expression, motion.rotation, motion.translation)[:, : len(vertices)]
    taught = project(vertices, identity, motion.expression[:, index], motion.rotation, motion.translation) / 128 - 1
    seen = np.isfinite(found[..., 0])
    assert seen.mean() > 0.6
    off = np.linalg.norm(found - taught, axis=-1)[seen] * 64  # pixels of 128
    assert np.median(off) < 0.001
    assert np.quantile(off, 0.9) < 0.1
    assert off.max() < 1.5  # lids follow the gaze, which the landmarks leave out


def test_points_that_are_turned_away_are_not_told() -> None:
    turned = np.array([[[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]], np.float32)  # a quarter turn: the face looks sideways
    still = np.zeros((1, len(HeadModel.load().bust_expression_names)), np.float32)
    at, who = np.array([[0.0, -16, 1120]], np.float32), np.zeros(80, np.float32)
    ahead = points_in_frames(who, still, np.eye(3, dtype=np.float32)[None], at)[0]
    aside = points_in_frames(who, still, turned, at)[0]
    np.testing.assert_allclose(ahead[np.isfinite(ahead)], rest_points()[np.isfinite(ahead)], atol=1e-5)
    face = len(dense_points().vertices)
    assert np.isfinite(ahead[:face]).all(-1).mean() > 0.9
    assert np.isfinite(aside[:face]).all(-1).mean() < 0.7


def test_points_of_takes_lie_on_the_heads_that_are_drawn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path))
    clips = HeadsTrainingClips(64)
    takes, points = clips.takes([1], 2, 12)[0].astype(int), clips.take_points([1], 2, 12)[0]
    assert points.shape == (4, len(clips.rest_points), 2)
    motion = motion_of("train", 1 + SECOND_TAKES, 25)
    moves = (part[:13:12] for part in (motion.expression, motion.rotation, motion.translation))
    alone = points_in_frames(identity_of("train", 1), *moves)
    np.testing.assert_array_equal(points[2:], alone)
    background = takes[:, :6, :6].mean((1, 2))
    for frame, seen, behind in zip(takes, points, background, strict=True):
        face = seen[: len(dense_points().vertices)]
        x, y = ((face[np.isfinite(face).all(-1)] + 1) * 32).astype(int).clip(0, 63).T
        assert (np.abs(frame[y, x] - behind).sum(-1) > 20).mean() > 0.9
    with pytest.raises(ValueError, match="exceed the 25 frames of a clip"):
        clips.take_points([0], 4, 9)
    with pytest.raises(IndexError):
        clips.take_points([3000], 2, 1)
