"""BCD as a method: what its results depend on, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.types.clip import Clip, ClipRef, Generated
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.weights import save_model
from bcd_bench_bcd.paper.config import SamplerConfig
from tests.bcd.conftest import BlockClips, description_of, tiny_model


def block_clip(index: int, length: int = 8) -> Clip:
    return Clip(BlockClips().clips([index])[0][:length], 8.0, str(index))


def small_clip() -> Clip:
    return Clip(np.zeros((8, 16, 16, 3), np.uint8), 8.0, "small")


def pair(content: int, motion: int, length: int = 8) -> Pair:
    here = "tests.bcd.test_method:block_clip"
    return Pair(
        f"{content}-{motion}-{length}",
        ClipRef(str(content), Generated(here, {"index": content})),
        ClipRef(str(motion), Generated(here, {"index": motion, "length": length})),
    )


@pytest.fixture
def method(tmp_path: Path) -> BCDMethod:
    model = tiny_model()
    description = description_of(model, sampler=SamplerConfig(name="euler", steps=2, guidance=1.0))
    save_model(tmp_path / "w.safetensors", model, description, {})
    bcd = BCDMethod({})
    bcd.load(tmp_path / "w.safetensors", "cpu")
    return bcd


def test_results_do_not_depend_on_batch_or_order(method: BCDMethod) -> None:
    pairs = [pair(0, 17), pair(5, 40), pair(9, 3, 4), pair(2, 33)]
    together = list(method.transfer(pairs, seed=1))
    alone = [next(iter(method.transfer([p], seed=1))) for p in pairs]
    turned = list(method.transfer(pairs[::-1], seed=1))[::-1]
    for a, b, c, p in zip(together, alone, turned, pairs, strict=True):
        assert a.id == p.id
        assert len(a) == len(p.motion.load())
        assert np.abs(a.frames.astype(int) - b.frames).max() <= 1  # batch sizes may round differently
        assert np.abs(a.frames.astype(int) - c.frames).max() <= 1


def test_content_frames_are_the_first_ones(tmp_path: Path, method: BCDMethod) -> None:
    few = BCDMethod({"content_frames": 3})
    few.load(tmp_path / "w.safetensors", "cpu")
    case = pair(5, 40)
    [result] = few.transfer([case], seed=1)
    content, motion = block_clip(5).frames, block_clip(40).frames
    expected, whole = (
        few.transfer_frames(frames, motion, seed=pair_seed(1, case.id)) for frames in (content[:3], content)
    )
    np.testing.assert_array_equal(result.frames, expected)
    assert (whole != expected).any()
    [all_of_them] = method.transfer([case], seed=1)
    np.testing.assert_array_equal(all_of_them.frames, whole)


def test_seeds_matter_and_repeat(method: BCDMethod) -> None:
    first, again, other = (next(iter(method.transfer([pair(0, 17)], seed=s))) for s in (1, 1, 2))
    assert first.sha256 == again.sha256
    assert first.sha256 != other.sha256


def test_clips_of_another_size_fail_alone(method: BCDMethod) -> None:
    wrong = Pair("wrong", ClipRef("s", Generated("tests.bcd.test_method:small_clip")), pair(0, 1).motion)
    good, bad = method.transfer([pair(0, 17), wrong], seed=0)
    assert isinstance(good, Clip)
    assert isinstance(bad, Failed)
    assert "(16, 16) pixels, the weights require (32, 32)" in bad.reason


def test_method_config_and_missing_weights() -> None:
    with pytest.raises(UsageError, match="--set steps"):
        BCDMethod({"steps": 0})
    with pytest.raises(UsageError, match="--set content_frames"):
        BCDMethod({"content_frames": 0})
    with pytest.raises(UsageError, match="needs weights"):
        BCDMethod({}).load(None, "cpu")


def test_config_changes_the_sampler(tmp_path: Path, method: BCDMethod) -> None:
    changed = BCDMethod({"solver": "heun", "steps": 3, "guidance": 1.25})
    changed.load(tmp_path / "w.safetensors", "cpu")
    assert changed.sampler == method.sampler.model_copy(update={"name": "heun", "steps": 3, "guidance": 1.25})
    assert (method.sampler.name, method.sampler.steps, method.sampler.guidance) == ("euler", 2, 1.0)


def test_reconstruction_and_codes(method: BCDMethod) -> None:
    clip = block_clip(3)
    assert method.reconstruct(clip.frames).shape == clip.frames.shape
    codes = method.motion_codes(clip.frames)
    assert codes.shape == (8, 1)
    assert codes.min() >= 0
    assert codes.max() < 8
