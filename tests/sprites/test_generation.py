"""The generation suites of Sprites and their metric: exact clips, wrong orders, chimeras, wrong characters."""

from __future__ import annotations

import numpy as np
import pytest

from bcd_bench.plugin.protocols import Scored
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench_sprites.characters import open_characters
from bcd_bench_sprites.generation_metric import (
    SpritesGeneration,
    entropy_bits,
    frame_distances,
    near_duplicates,
    shown_motion,
    total_variation,
)
from bcd_bench_sprites.generation_suite import generation_suite, procedural_3


def test_prompts_are_the_first_frames_of_the_real_clip() -> None:
    suite = procedural_3({})
    assert suite.name == "sprites-procedural-generate-prompt3"
    assert len(suite.pairs) == 2664
    for pair in suite.pairs[:12]:
        prompt, real = pair.content.load().frames, pair.motion.load().frames
        assert prompt.shape == (3, 64, 64, 3)
        assert np.array_equal(prompt, real[:3])
        assert pair.target is pair.motion
        assert pair.content.labels["motion"] == pair.motion.labels["motion"]
    assert generation_suite("sprites", 1).name == "sprites-generate"
    assert {pair.content.labels["motion"] for pair in suite.pairs[:9]} == set(range(9))


def clips(character: int = 7) -> np.ndarray:
    return open_characters("sprites-procedural").clips([character] * 9, np.arange(9))


def test_exact_clips_are_valid_and_other_orders_are_not() -> None:
    exact = clips()
    near = near_duplicates(exact)
    assert near.diagonal().all()
    assert 0.02 < near[np.triu_indices(72, 1)].mean() < 0.05

    def judged(frames: np.ndarray) -> tuple[int, bool]:
        return shown_motion(frame_distances(frames, exact), near)

    for motion in range(9):
        assert judged(exact[motion]) == (motion, True)
        assert judged(exact[motion][::-1])[1] is False
        assert judged(np.repeat(exact[motion][:1], 8, 0))[1] is False  # stands still
    chimera = exact[1].copy()
    chimera[4:] = exact[2][4:]
    assert judged(chimera)[1] is False
    noisy = np.clip(exact[5].astype(int) + np.random.RandomState(0).randint(-20, 21, exact[5].shape), 0, 255)
    assert judged(noisy.astype(np.uint8)) == (5, True)


def test_distances_are_exact_for_pixels() -> None:
    exact = clips()
    distances = frame_distances(exact[0][:2], exact)
    expected = ((exact[0][1].astype(np.int64) - exact[3][5].astype(np.int64)) ** 2).sum()
    assert distances.shape == (2, 9, 8)
    assert distances[1, 3, 5] == expected
    assert distances[1, 0, 1] == 0


def test_metric_scores_the_real_clip_another_character_and_another_shape() -> None:
    suite = generation_suite("sprites-procedural", 1)
    pair = suite.pairs[0]
    metric = SpritesGeneration()
    metric.load("cpu")
    real = pair.motion.load()
    stranger = open_characters("sprites-procedural").clip(0, int(pair.content.labels["motion"]))
    other_motion = open_characters("sprites-procedural").clip(
        int(str(pair.content.labels["subject"])), (int(pair.content.labels["motion"]) + 1) % 9
    )
    outputs = [real, Clip(stranger, 25.0), Clip(other_motion, 25.0), Clip(real.frames[:4], 25.0)]
    rows = metric.score([Scored(pair, output) for output in outputs])
    right, wrong, other, short = rows
    assert not isinstance(right, Failed)
    assert not isinstance(wrong, Failed)
    assert not isinstance(other, Failed)
    names = ("valid-motion", "judge-agrees", "true-motion", "content-kept")
    assert [right[name] for name in names] == [1, 1, 1, 1]
    assert right["generated-psnr"] == 60.0
    assert wrong["content-kept"] == 0
    assert wrong["generated-psnr"] < 30
    assert [other[name] for name in names] == [1, 1, 0, 1]
    assert isinstance(short, Failed)
    assert "[4, 64, 64, 3]" in short.reason
    derived = metric.derive([right, other])
    assert derived == {"motion-entropy": pytest.approx(1.0), "motion-tv": pytest.approx(50.0)}


def test_entropy_and_total_variation() -> None:
    assert entropy_bits([0, 1, 2, 3]) == pytest.approx(2.0)
    assert entropy_bits([4, 4]) == 0.0
    assert total_variation([0, 1], [0, 1]) == 0.0
    assert total_variation([0, 0], [0, 1]) == pytest.approx(0.5)
    assert total_variation([0], [8]) == pytest.approx(1.0)
