"""The shipped judges: right on test clips, hard to mislead, refused when altered."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.types.errors import UsageError
from bcd_bench_sprites.classifier import HEADS, judge_clips, load_judge, shipped_judge
from bcd_bench_sprites.factors import ATTRIBUTES, attributes_of_all, split
from bcd_bench_sprites.layers import LayeredCharacters
from bcd_bench_sprites.pretrained import SHIPPED, shipped_weights
from bcd_bench_sprites.train_classifier import accuracy_on_test

SETS = [("procedural", "sprites-procedural"), ("lpc", "sprites")]


@pytest.mark.parametrize(("name", "suite"), SETS)
def test_a_sample_of_the_test_split_is_judged_without_error(
    name: str, suite: str, request: pytest.FixtureRequest
) -> None:
    characters: LayeredCharacters = request.getfixturevalue(name)
    numbers = np.repeat(split("test")[::6], 9)
    motions = np.tile(np.arange(9), len(numbers) // 9)
    found = judge_clips(shipped_judge(suite), characters.clips(numbers, motions))
    assert np.array_equal(found.classes["motion"], motions)
    assert np.array_equal(np.stack([found.classes[a] for a in ATTRIBUTES], 1), attributes_of_all(numbers))
    assert found.motion_probabilities.shape == (len(numbers), 9)
    assert np.allclose(found.motion_probabilities.sum(1), 1)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "suite"), SETS)
def test_every_head_is_right_on_every_test_clip(name: str, suite: str, request: pytest.FixtureRequest) -> None:
    accuracy = accuracy_on_test(shipped_judge(suite), request.getfixturevalue(name))
    assert accuracy == dict.fromkeys(HEADS, 100.0)


def test_noise_does_not_mislead_the_judge_but_mixtures_do(procedural: LayeredCharacters) -> None:
    rng = np.random.default_rng(0)
    numbers, motions = rng.choice(split("test"), 48), rng.integers(0, 9, 48)
    judge = shipped_judge("sprites-procedural")
    clips = procedural.clips(numbers, motions).astype(np.float32)
    noisy = (clips + 24 * rng.standard_normal(clips.shape)).round().clip(0, 255).astype(np.uint8)
    assert np.array_equal(judge_clips(judge, noisy).classes["motion"], motions)
    still = np.repeat(procedural.clips(numbers, motions)[:, :1], 8, axis=1)
    assert (judge_clips(judge, still).classes["motion"] == motions).mean() < 0.9  # one frame does not show a motion


def test_no_clips_are_no_judgements() -> None:
    found = judge_clips(shipped_judge("sprites-procedural"), np.empty((0, 8, 64, 64, 3), np.uint8))
    assert found.motion_probabilities.shape == (0, 9)


@pytest.mark.parametrize("suite", SHIPPED)
def test_the_shipped_files_are_small_and_tell_their_story(suite: str) -> None:
    weights = shipped_weights(suite)
    assert weights.stat().st_size < 500_000
    assert sha256_file(weights) == SHIPPED[suite]
    story = json.loads(weights.with_suffix(".json").read_text())
    assert story["sha256"] == SHIPPED[suite]
    assert story["suite"] == suite
    assert story["test_accuracy_percent"] == dict.fromkeys(HEADS, 100.0)
    assert story["test_clips"] == 2664


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    source = shipped_weights("sprites-procedural")
    for suffix in (".safetensors", ".json"):
        shutil.copy(source.with_suffix(suffix), (tmp_path / "judge").with_suffix(suffix))
    return tmp_path / "judge.safetensors"


def test_a_copy_loads(copy: Path) -> None:
    assert not load_judge(copy).training


def test_altered_weights_are_refused(copy: Path) -> None:
    data = bytearray(copy.read_bytes())
    data[-1] ^= 1
    copy.write_bytes(data)
    with pytest.raises(UsageError, match="were modified"):
        load_judge(copy)


def test_other_weights_are_not_taken_for_the_expected_ones(copy: Path) -> None:
    with pytest.raises(UsageError, match="were modified"):
        load_judge(copy, expected="0" * 64)


def test_a_missing_config_is_named(copy: Path) -> None:
    copy.with_suffix(".json").unlink()
    with pytest.raises(UsageError, match=r"judge\.safetensors"):
        load_judge(copy)


def test_weights_of_another_network_are_refused(copy: Path) -> None:
    config = json.loads(copy.with_suffix(".json").read_text())
    config["network"]["features"] = 64
    copy.with_suffix(".json").write_text(json.dumps(config))
    with pytest.raises(UsageError, match="do not fit"):
        load_judge(copy)


def test_a_file_that_is_no_safetensors_is_refused(copy: Path) -> None:
    copy.write_bytes(b"\x80\x04pickle")
    config = json.loads(copy.with_suffix(".json").read_text())
    copy.with_suffix(".json").write_text(json.dumps({**config, "sha256": sha256_file(copy)}))
    with pytest.raises(UsageError, match="do not fit"):
        load_judge(copy)


def test_weights_are_half_precision() -> None:
    tensors = safetensors.torch.load_file(shipped_weights("sprites"))
    assert {str(value.dtype) for value in tensors.values()} == {"torch.float16"}
