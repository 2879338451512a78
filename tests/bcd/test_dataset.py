"""What a training run sees of a split: pairs of one person, the first clips, drawn frames, flipped clips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.frame_subset import some_of_each_half
from bcd_bench_bcd.extensions.same_identity_pairs import SameIdentityPairs
from bcd_bench_bcd.inference.weights import load_model
from bcd_bench_bcd.training import dataset
from bcd_bench_bcd.training import trainer as trainer_module
from bcd_bench_bcd.training.dataset import DeviceClips, training_view
from bcd_bench_bcd.training.trainer import train
from tests.bcd.conftest import BlockClips, TwoTakes, tiny_preset, trainer_of


class WithTakes(TwoTakes):
    """Block clips with takes, which counts what is drawn."""

    def __init__(self) -> None:
        self.drawn: list[int] = []

    def takes(self, indices: Any, frames: int, stride: int) -> np.ndarray:
        self.drawn += list(indices)
        return super().takes(indices, frames, stride)


def test_a_split_is_passed_on_where_nothing_is_asked_for() -> None:
    clips = BlockClips()
    assert training_view(clips, tiny_preset()) is clips


def test_pairs_are_drawn_once_and_kept() -> None:
    clips = WithTakes()
    view = training_view(
        clips, tiny_preset(**{"train.clips": 5, "extensions.same_identity_pairs": {"frames": 3, "stride": 2}})
    )
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
    with pytest.raises(UsageError, match=r"same_identity_pairs: .* has no same-identity clip pairs"):
        training_view(BlockClips(), tiny_preset(**{"extensions.same_identity_pairs": {"frames": 3}}))
    with pytest.raises(UsageError, match="has 48"):
        training_view(BlockClips(), tiny_preset(**{"train.clips": 49}))


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
    monkeypatch.setattr(dataset, "KEPT_BYTES", kept)
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


def test_steps_flip_about_half_of_the_clips(request_for: Any) -> None:
    overrides = {"extensions.horizontal_flip": {}, "extensions.frame_subset": {"frames": 2}}
    trainer = trainer_of(request_for(overrides=overrides))
    batch = trainer._batch(torch.Generator().manual_seed(0), 64)
    assert batch.keypoints is None
    assert batch.clips.shape == (64, 4, 32, 32, 3)
    right = batch.clips[..., 24:, :].flatten(1).any(1)  # squares that are not flipped never reach the last patches
    assert 20 <= int(right.sum()) <= 44


def test_a_model_like_that_of_heads_trains_and_loads(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = WithTakes()
    monkeypatch.setattr(trainer_module, "open_training_clips", lambda preset, request: training_view(clips, preset))
    changes = {
        "model.quantizer.groups": 4,
        "model.quantizer.dim": 8,
        "extensions.same_identity_pairs": {"frames": 3},
        "extensions.frame_subset.frames": 2,
        "extensions.keypoint_supervision": None,
        "extensions.canonical_features.warp_start": 0,
        "extensions.canonical_features.denoise_start": 0,
        "extensions.vq_start.step": 2,
        "train.log_every": 1,
    }
    request = request_for(preset="heads-small", overrides=changes, max_steps=3)
    train(request)
    loaded = load_model(request.out / "model.safetensors")
    assert loaded.description.model.encoder.content_tokens == 4  # one for each patch of 16 x 16
    assert loaded.description.inference.resize
    assert loaded.description.inference.window == 8
    assert "same_identity_pairs" in loaded.description.recipe
    assert loaded.description.labels == ("same_identity_pairs",)
    assert loaded.description.extensions.get(SameIdentityPairs) == SameIdentityPairs(frames=3)
    assert loaded.card["step"] == 3
    assert clips.drawn
