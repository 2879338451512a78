"""What a training run sees of a split: takes, the first clips, frames drawn from halves, mirrored clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.errors import UsageError
from bcd_bench_bcd import training_view as training_view_module
from bcd_bench_bcd.configs import TrainConfig
from bcd_bench_bcd.model import load_model
from bcd_bench_bcd.presets import resolve_preset
from bcd_bench_bcd.train import Trainer, train
from bcd_bench_bcd.training_view import DeviceClips, some_of_each_half, training_view
from tests.bcd.conftest import BlockClips, TwoTakes


class WithTakes(TwoTakes):
    """Block clips with takes, which counts what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def takes(self, indices: Any, frames: int, stride: int) -> np.ndarray:
        self.drawn += list(indices)
        return super().takes(indices, frames, stride)


def test_a_split_is_passed_on_where_nothing_is_asked_for() -> None:
    clips = BlockClips()
    assert training_view(clips, TrainConfig()) is clips


def test_takes_are_drawn_once_and_kept() -> None:
    clips = WithTakes()
    view = training_view(clips, TrainConfig(take_frames=3, take_stride=2, clips=5))
    assert len(view) == 5
    assert view.fps == clips.fps / 2
    first = view.clips([4, 0, 4])
    assert first.shape == (3, 6, 32, 32, 3)
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(first[1], clips.takes([0], 3, 2)[0])
    view.clips([0, 4])
    assert sorted(clips.drawn) == [0, 0, 4]  # the second 0 is this test's
    with pytest.raises(IndexError):
        view.clips([5])


def test_what_a_split_cannot_give_is_refused() -> None:
    with pytest.raises(UsageError, match="no takes"):
        training_view(BlockClips(), TrainConfig(take_frames=3))
    with pytest.raises(UsageError, match="has 48"):
        training_view(BlockClips(), TrainConfig(clips=49))


class Counted(BlockClips):
    """Block clips that count what is fetched."""

    def __init__(self) -> None:
        self.fetched: list[int] = []

    def clips(self, indices: Any) -> np.ndarray:
        self.fetched += list(indices)
        return super().clips(indices)


def test_batches_on_the_cpu_are_the_clips_themselves() -> None:
    batch = DeviceClips(BlockClips(), torch.device("cpu")).batch([5, 0, 5])
    np.testing.assert_array_equal(batch.numpy(), BlockClips().clips([5, 0, 5]))


@pytest.mark.parametrize(("kept", "fetched"), [(3 << 30, [0, 5, 7]), (0, [0, 5, 0, 5, 7])])
def test_elsewhere_clips_are_fetched_once_while_there_is_room(
    monkeypatch: pytest.MonkeyPatch, kept: int, fetched: list[int]
) -> None:
    monkeypatch.setattr(training_view_module, "KEPT_BYTES", kept)
    clips = Counted()
    store = DeviceClips(clips, torch.device("meta"))  # a device without values: what is asked for counts
    assert store.batch([5, 0, 5]).shape == (3, *BlockClips().clips([0]).shape[1:])
    assert store.batch([7, 5, 0]).device.type == "meta"
    assert clips.fetched == fetched


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_batches_hold_the_same_values() -> None:
    store = DeviceClips(BlockClips(), torch.device("cuda"))
    for _ in range(2):
        np.testing.assert_array_equal(store.batch([5, 0, 5]).cpu().numpy(), BlockClips().clips([5, 0, 5]))


def test_frames_come_from_both_halves_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        chosen = some_of_each_half(16, 3, generator)
        assert len(set(chosen.tolist())) == 6
        assert (chosen[:3] < 8).all()
        assert (chosen[3:] >= 8).all()
        assert torch.equal(chosen, chosen.sort().values)


def test_steps_mirror_about_half_of_the_clips(request_for: Any) -> None:
    preset = resolve_preset("sprites-small", {**request_for().overrides, "train.mirror": True, "train.half_frames": 2})
    trainer = Trainer(preset, BlockClips(), request_for().out, "cpu")
    batch = trainer._batch(torch.Generator().manual_seed(0), 64)
    assert batch.shape == (64, 4, 32, 32, 3)
    right = batch[..., 24:, :].flatten(1).any(1)  # unmirrored squares never reach the last column of patches
    assert 20 <= int(right.sum()) <= 44


def test_a_model_like_that_of_heads_trains_and_loads(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import bcd_bench_bcd.train

    monkeypatch.setattr(bcd_bench_bcd.train, "open_training_clips", lambda suite, request: WithTakes())
    groups = {"model.quantizer.groups": 4, "model.quantizer.dim": 8, "train.take_frames": 3, "train.half_frames": 2}
    early = {f"objective.{name}": 0 for name in ("guide", "canvas_from", "draw_from")}
    late = {**groups, **early, "objective.quantize_from": 2, "train.log_every": 1}
    request = request_for(preset="heads-small", overrides=late, max_steps=3)
    train(request)
    model, card = load_model(request.out / "model.safetensors")
    assert model.config.encoder.content_tokens == 4  # one for each patch of 16 x 16
    assert model.config.resize
    assert card["train"]["take_frames"] == 3
