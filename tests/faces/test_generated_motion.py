"""The generation suites of rendered heads, and the metric of generated head motion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from bcd_bench.plugin.protocols import Scored
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench_faces.metrics.generated_motion import HeadsGeneration, frechet_distance, motion_features
from bcd_bench_faces.suites import heads_generate
from bcd_bench_faces.suites.heads_generate import generation_suite


def test_prompts_are_the_first_frames_of_clips_of_test_people(monkeypatch: pytest.MonkeyPatch) -> None:
    suite = generation_suite(5)
    assert suite.name == "heads-generate-prompt5"
    assert len(suite.pairs) == 60
    assert suite.pairs[3].content.frames == 5
    assert suite.pairs[3].motion is suite.pairs[3].target
    assert suite.pairs[3].cluster == "test-0003"
    monkeypatch.setattr(
        heads_generate,
        "kept_clip",
        lambda name, size, draw, length: Clip(
            np.arange(length, dtype=np.uint8)[:, None, None, None].repeat(3, -1), 25.0, name
        ),
    )
    assert suite.pairs[3].content.load().frames[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert len(suite.pairs[3].motion.load()) == 50


def test_frechet_distance_of_known_gaussians() -> None:
    a, b = np.diag([1.0, 4.0]), np.diag([9.0, 4.0])
    assert frechet_distance(np.zeros(2), a, np.array([3.0, 4.0]), b) == pytest.approx(25 + (3 - 1) ** 2)
    turn = Rotation.from_euler("z", 0.7).as_matrix()[:2, :2]
    c = turn @ a @ turn.T
    assert frechet_distance(np.ones(2), c, np.ones(2), c) == pytest.approx(0, abs=1e-12)


def track(frames: int, speed: float, start: float = 0.0) -> dict[str, Any]:
    """A head that turns by `speed` degrees per frame about the vertical axis, with a moving mouth."""
    turns = start + speed * np.arange(frames)
    wave = np.sin(np.arange(frames) / 3)
    return {
        "rotation": Rotation.from_euler("y", turns[:, None], degrees=True).as_matrix(),
        "expression": np.stack([wave, 0 * wave], 1),
        "valid": np.ones(frames, np.bool_),
    }


def test_features_are_degrees_and_differences_and_leave_out_frames_without_a_face() -> None:
    fit = track(6, 2.0)
    features = motion_features(fit["rotation"], fit["expression"])
    assert features["pose"][:, 1] == pytest.approx([0, 2, 4, 6, 8, 10])
    assert features["pose-velocity"][:, 1] == pytest.approx(2.0)
    fit["rotation"][2] = np.nan
    assert len(motion_features(fit["rotation"], fit["expression"])["pose"]) == 5


def scored(output: Any, target: Any) -> Scored:
    pair = generation_suite(1).pairs[0]
    clip = Clip(np.zeros((2, 4, 4, 3), np.uint8), 25.0)
    return Scored(pair, clip, {"face-mesh": {"output": output, "target": target}})


def test_metric_is_zero_for_real_motion_and_sees_wrong_pose_speed_and_standstill() -> None:
    metric = HeadsGeneration()
    real = track(11, 2.0)

    def values(output: Any) -> dict[str, float]:
        return dict(metric.compute(metric.update(None, [scored(output, real)])))

    same = values(real)
    assert [same[f"frechet-{part}"] for part in ("pose", "expression", "pose-velocity", "expression-velocity")] == (
        pytest.approx([0, 0, 0, 0], abs=1e-9)
    )
    assert same["head-speed"] == pytest.approx(2.0)
    assert same["head-speed-real"] == pytest.approx(2.0)
    shifted = values(track(11, 2.0, start=5.0))
    assert shifted["frechet-pose"] == pytest.approx(25.0)
    assert shifted["frechet-pose-velocity"] == pytest.approx(0, abs=1e-9)
    faster = values(track(11, 3.0))
    assert faster["frechet-pose-velocity"] == pytest.approx(1.0)
    stopping = track(11, 2.0)
    stopping["rotation"][6:] = stopping["rotation"][5]
    stopped = values(stopping)
    assert (stopped["head-speed"], stopped["head-speed-late"]) == pytest.approx((2.0, 0.0), abs=1e-9)


def test_states_merge_and_failed_fits_are_refused() -> None:
    metric = HeadsGeneration()
    items = [scored(track(9, s), track(9, 1.0)) for s in (1.0, 2.0, 4.0)]
    whole = metric.compute(metric.update(None, items))
    parts = metric.merge([metric.update(None, items[:1]), metric.update(None, items[1:]), None])
    assert metric.compute(parts) == pytest.approx(whole)
    broken = scored(Failed("no face"), track(9, 1.0))
    assert metric.refuse(broken) == Failed("no face")
    assert metric.refuse(items[0]) is None
    assert math.isnan(metric.compute(metric.update(None, [broken]))["frechet-pose"])
