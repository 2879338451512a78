"""What FOMM and MCNET share as methods, with networks small enough to run at once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bcd_bench import Clip, Pair
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.run.plan import make_plan
from bcd_bench.types.clip import ClipRef
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.types.failed import Failed
from bcd_bench_baselines.common import first_order_method
from bcd_bench_baselines.common.first_order import DenseMotion, KeypointDetector, sample
from bcd_bench_baselines.common.first_order_method import FirstOrderMethod
from bcd_bench_baselines.common.keypoints import Keypoints
from bcd_bench_baselines.common.landmarks import NoFaceError
from bcd_bench_baselines.fomm import specs as fomm
from bcd_bench_baselines.fomm.method import FOMM
from bcd_bench_baselines.mcnet import specs as mcnet
from bcd_bench_baselines.mcnet.method import MCNET

SIDE = 64


class Small(FirstOrderMethod):
    """Warps the source image; a detector and a dense motion of a few channels, at 64 x 64."""

    name = "small"
    how_to = "a file of small"
    keypoints = 4

    def make_generator(self) -> DenseMotion:
        return DenseMotion(4, base=4, most=8, blocks=2)

    def encode(self, image: Tensor, source: Keypoints) -> tuple[Tensor, Tensor]:
        return image, self.generator.down(image)

    def decode(self, encoded: tuple[Tensor, Tensor], source: Keypoints, target: Keypoints) -> Tensor:
        poses = (source.value, source.jacobian), (target.value, target.jacobian)
        motion = self.generator(encoded[1], *poses)
        places = torch.nn.functional.interpolate(motion.deformation.movedim(-1, 1), (SIDE, SIDE), mode="bilinear")
        return sample(encoded[0], places.movedim(1, -1)).clamp(0, 1)


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_order_method, "SIZE", (SIDE, SIDE))
    monkeypatch.setattr(first_order_method, "KeypointDetector", lambda keypoints: KeypointDetector(keypoints, 4, 8, 1))


class InMemory:
    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames

    def load(self) -> Clip:
        return Clip(self.frames, 25.0)

    def describe(self) -> dict[str, object]:
        return {}


def pair(seed: int, frames: int, size: tuple[int, int] = (48, 80)) -> Pair:
    rng = np.random.default_rng(seed)
    clips = [rng.integers(0, 256, (count, *size, 3), dtype=np.uint8) for count in (1, frames)]
    content, motion = (ClipRef(f"{seed}-{i}", InMemory(clip)) for i, clip in enumerate(clips))
    return Pair(f"p{seed}", content, motion)


def loaded(**config: object) -> Small:
    method = Small({"seeded": 5, "batch_frames": 4, **config})
    method.load(None, "cpu")
    return method


def test_every_length_and_size_gives_the_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    method = loaded()
    pairs = [pair(0, 1), pair(1, 4), pair(2, 9, (33, 21))]
    outputs = list(method.transfer(pairs, seed=0))
    assert [output.frames.shape for output in outputs] == [(1, 48, 80, 3), (4, 48, 80, 3), (9, 33, 21, 3)]
    assert [output.fps for output in outputs] == [25.0] * 3
    again = list(method.transfer(pairs[::-1], seed=1))[::-1]
    for one, other in zip(outputs, again, strict=True):
        np.testing.assert_array_equal(one.frames, other.frames)


def test_batches_of_frames_change_nothing_but_rounding() -> None:
    case = [pair(3, 7)]
    [few], [many] = (list(loaded(batch_frames=size).transfer(case, seed=0)) for size in (1, 16))
    assert np.abs(few.frames.astype(int) - many.frames).max() <= 1


def test_modes_differ_and_relative_motion_begins_with_the_source() -> None:
    case = pair(4, 3)
    outputs = {
        name: next(iter(loaded(**config).transfer([case], seed=0)))
        for name, config in {
            "relative": {},
            "unscaled": {"adapt_scale": False},
            "absolute": {"mode": "absolute"},
        }.items()
    }
    assert not np.array_equal(outputs["relative"].frames[2], outputs["absolute"].frames[2])
    # frame 0 of relative motion is no motion: any source drives itself to the same picture
    np.testing.assert_array_equal(outputs["relative"].frames[0], outputs["unscaled"].frames[0])
    other = loaded(mode="relative")
    still = np.repeat(case.content.load().frames, 2, 0)
    np.testing.assert_allclose(other.animate(still[0], still)[1].astype(int), outputs["relative"].frames[0], atol=1)


def test_seeds_decide_the_weights() -> None:
    case = [pair(5, 2)]
    one, same, other = (next(iter(loaded(seeded=seed).transfer(case, seed=0))).frames for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_bfloat16_is_near() -> None:
    case = [pair(6, 2)]
    exact, rough = (next(iter(loaded(dtype=dtype).transfer(case, seed=0))).frames for dtype in ("float32", "bfloat16"))
    assert 0 < np.abs(exact.astype(int) - rough).mean() < 8


def test_without_weights_or_seed_it_says_what_to_bring() -> None:
    with pytest.raises(UsageError, match="method small needs weights: a file of small"):
        Small({}).load(None, "cpu")
    with pytest.raises(UsageError, match="no such device"):
        Small({"seeded": 1}).load(None, "tpu")


@pytest.mark.parametrize(
    ("method", "config", "message"),
    [
        (FOMM, {"mode": "sideways"}, "fomm: --set mode: Input should be 'relative' or 'absolute'"),
        (FOMM, {"noise_seed": 1}, "fomm: --set noise_seed: no such setting"),
        (MCNET, {"batch_frames": 0}, "mcnet: --set batch_frames: Input should be greater than or equal to 1"),
    ],
)
def test_settings_are_judged(method: type[FirstOrderMethod], config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        method(config)


def test_the_anchor_is_the_closest_frame_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Chooser:
        def choose(self, source: np.ndarray, driving: np.ndarray) -> int:
            assert source.ndim == 3
            if len(driving) < 3:
                raise NoFaceError("no face was found")
            return 2

    monkeypatch.setattr(first_order_method, "FrameChooser", Chooser)
    case, short = pair(7, 4), pair(8, 1)
    plain, [chosen, failed] = loaded(), list(loaded(best_frame=True).transfer([case, short], seed=0))
    assert failed == Failed("best_frame: no face was found")
    wanted = plain.animate(case.content.load().frames[0], case.motion.load().frames, 2)
    np.testing.assert_array_equal(chosen.frames, wanted)


@pytest.mark.parametrize(("name", "specs", "model"), [("fomm", fomm, FOMM), ("mcnet", mcnet, MCNET)])
def test_specs_and_methods_agree(name: str, specs: object, model: type[FirstOrderMethod]) -> None:
    [spec] = specs.METHODS  # type: ignore[attr-defined]
    defaults = model({}).config.model_dump()
    assert dict(spec.config) == defaults
    assert model(spec.config).config.model_dump() == defaults


@pytest.mark.parametrize("name", ["fomm", "mcnet"])
def test_a_plan_needs_the_file_or_a_seed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path / "assets"))
    registry = load_registry()
    suite = load_suite(registry, "heads-cross-64")
    with pytest.raises(MissingAssetError, match=r"\.pth\.tar.*licence none stated") as caught:
        make_plan(registry, name, suite)
    assert f"bcd-bench assets add {name}-vox PATH" in str(caught.value.hint)
    assert make_plan(registry, name, suite, config={"seeded": 1}).seeded
    (tmp_path / "file.pth").write_bytes(b"anything")
    monkeypatch.setenv(f"BCD_BENCH_{name.upper()}", str(tmp_path / "file.pth"))
    made = make_plan(registry, name, suite)
    assert not made.seeded
    assert made.weights is not None
    assert made.weights.name == "vox"
