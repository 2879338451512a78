"""Training of motion read from landmarks, and transfer and bitstreams with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from torch import Tensor

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.ablations.trainings import LandmarkTraining
from bcd_bench_bcd.bitstream.codec import decode_clip, encode_clip
from bcd_bench_bcd.bitstream.container import read_packet
from bcd_bench_bcd.bitstream.streaming import StreamEncoder
from bcd_bench_bcd.extensions.model import ExtendedBCD
from bcd_bench_bcd.inference.landmarks import NoFaceError
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.weights import load_model
from bcd_bench_bcd.landmarks import train as module
from bcd_bench_bcd.landmarks.data import point_clips
from bcd_bench_bcd.landmarks.pixel_path import quantized
from bcd_bench_bcd.pixels import train as pixels
from tests.bcd.conftest import BlockClips, saved_weights, train_request
from tests.bcd.landmark_toy import KNOWN, TINY, HeadClips
from tests.bcd.pixel_toy import TINY as PIXELS
from tests.bcd.pixel_toy import CrossedBlocks
from tests.bcd.test_canonical_features import canonical_model


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return saved_weights(canonical_model(), tmp_path)


@pytest.fixture
def request_for(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch, block_landmarks: None) -> Any:
    monkeypatch.setattr(module.training, "open_training_clips", lambda suite, request: HeadClips())

    def make(name: str = "run", **changes: Any) -> TrainRequest:
        overrides = {**TINY, "bcd": str(base), **changes.pop("overrides", {})}
        fields = {"preset": "heads-landmarks", "overrides": overrides, "out": tmp_path / name}
        return train_request(**{**fields, **changes})

    return make


@pytest.mark.parametrize("interrupted", [3, 6])
def test_training_resumes_exactly_in_both_stages(request_for: Any, base: Path, interrupted: int) -> None:
    whole = request_for("whole")
    module.train(whole)
    trained = load_model(whole.out / "model.safetensors")
    assert "landmark_motion" in trained.description.recipe
    assert "landmark_motion" in trained.description.labels
    old, new = load_model(base).model.state_dict(), trained.model.state_dict()
    assert all(torch.equal(value, new[name]) for name, value in old.items() if not name.startswith("quantizer."))
    assert new["quantizer.codebook"].shape == (3, 8, 2)
    lines = [json.loads(line) for line in (whole.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4, 8]
    assert "bits" not in lines[0]
    assert 0 < lines[1]["bits"] <= 9

    module.train(request_for("parts", max_steps=interrupted))
    assert not (request_for("parts").out / "model.safetensors").exists()
    module.train(request_for("parts", resume=True))
    parts = load_model(request_for("parts").out / "model.safetensors").model.state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in new.items())


def test_training_learns_to_move_people(request_for: Any) -> None:
    request = request_for(overrides={"train.steps": 160, "train.free_steps": 80, "train.log_every": 80})
    module.train(request)
    lines = [json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines()]
    assert lines[0]["held_out_points"] < 0.5 * 64 * 0.3  # a head is about 0.4 wide
    assert lines[-1]["points"] < lines[0]["points"] * 2


def test_transfer_reads_landmarks(request_for: Any) -> None:
    module.train(request_for())
    method = BCDMethod({})
    method.attach(load_model(request_for().out / "model.safetensors"))
    content, motion = BlockClips().clips([0, 20])
    frames = method.transfer_frames(content, motion, seed=3)
    assert frames.shape == motion.shape
    codes = method.motion_codes(motion)
    assert codes.shape == (8, 3)
    recoloured = np.where(motion > 0, 255 - motion // 2, 0).astype(np.uint8)
    assert torch.equal(method.motion_codes(recoloured), codes)  # only positions matter
    dark = np.zeros_like(motion)
    with pytest.raises(NoFaceError, match="shows a face"):
        method.transfer_frames(content, dark)


def test_a_pixel_path_with_mirror_images(request_for: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module.train(request_for())
    weights = str(request_for().out / "model.safetensors")
    monkeypatch.setattr(pixels.training, "open_training_clips", lambda suite, request: CrossedBlocks())

    def train(name: str, **overrides: Any) -> Path:
        out = tmp_path / name
        settings = {**PIXELS, "bcd": weights, **{key.replace("__", "."): value for key, value in overrides.items()}}
        request = request_for(preset="heads-pixels", out=out)
        pixels.train(replace(request, overrides=settings))
        return out / "model.safetensors"

    plain = train("plain")
    path = train("mirrored", pixels__mirrored=True, train__init=str(plain), train__steps=30, train__lr=1e-2)
    loaded = load_model(path)
    assert isinstance(loaded.model, ExtendedBCD)
    assert loaded.model.pixels is not None
    assert loaded.model.pixels.fusion.pictures == 4
    assert loaded.model.pixels.fusion.down[0].first.weight[:, 24:36].any()  # it looks at the mirror image
    content, motion = BlockClips().clips([0, 20])
    shown = []
    for file in (plain, path):
        method = BCDMethod({})
        method.attach(load_model(file))
        shown.append(method.transfer_frames(content, motion, seed=3))
    assert shown[0].shape == shown[1].shape == motion.shape
    assert not np.array_equal(*shown)
    with pytest.raises(UsageError, match="no pixel path with the same settings"):
        train("back", train__init=str(path))


def test_another_code_takes_over_a_pixel_path(
    request_for: Any, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module.train(request_for())
    out = tmp_path / "pixels"
    overrides = {**PIXELS, "bcd": str(request_for().out / "model.safetensors")}
    with monkeypatch.context() as patch:
        patch.setattr(pixels.training, "open_training_clips", lambda suite, request: CrossedBlocks())
        pixels.train(replace(request_for(preset="heads-pixels", out=out), overrides=overrides))
    path = str(out / "model.safetensors")
    other = request_for("other", overrides={"landmarks.groups": 4, "train.seed": 1, "pixel_path": path})
    module.train(other)
    result = load_model(other.out / "model.safetensors")
    old, new = load_model(Path(path)).model, result.model
    assert isinstance(old, ExtendedBCD)
    assert isinstance(new, ExtendedBCD)
    assert new.quantizer.codebook.shape == (4, 8, 2)
    before, after = old.pixels.state_dict(), new.pixels.state_dict()
    reads = "fusion.condition.0."
    assert all(torch.equal(value, after[name]) for name, value in before.items() if not name.startswith(reads))
    points = load_file(other.out / "points.safetensors")["own"][:, :, :KNOWN].float()
    codes, expected = quantized(new, points), quantized(old, points)
    shown = codes @ after[reads + "weight"].mT + after[reads + "bias"]
    wanted = expected @ before[reads + "weight"].mT + before[reads + "bias"]
    left = result.card["landmark_motion"]["pixel_path_error"]
    assert left < 1
    assert (shown - wanted).square().mean() < (wanted - wanted.mean(0)).square().mean()
    method = BCDMethod({})
    method.attach(result)
    content, motion = BlockClips().clips([0, 20])
    assert method.transfer_frames(content, motion, seed=3).shape == motion.shape
    without = request_for("without", overrides={"pixel_path": str(base)})
    with pytest.raises(UsageError, match="the weights lack landmark_motion or pixel_path"):
        module.train(without)
    assert not (without.out / "points.safetensors").exists()
    assert not (without.out / "checkpoint.pt").exists()


def test_bitstreams_of_landmark_codes(request_for: Any) -> None:
    module.train(request_for())
    method = BCDMethod({})
    method.attach(load_model(request_for().out / "model.safetensors"))
    content, motion = BlockClips().clips([0, 20])
    dark = np.zeros_like(motion)
    encoded = encode_clip(method, content, motion, 25.0, seed=3)
    assert (encoded.header.groups, encoded.header.entries) == (3, 8)  # of the landmark code
    expected = method.transfer_frames(content, motion, seed=3)
    np.testing.assert_array_equal(decode_clip(method, encoded.data).frames, expected)
    for clips, role in (((dark, motion), "content"), ((content, dark), "motion")):
        with pytest.raises(NoFaceError, match=f"{role}: none of 8 frames shows a face"):
            encode_clip(method, *clips, 25.0, content_crf=50)
    size = (motion.shape[1], motion.shape[2])
    encoder = StreamEncoder(method, content, fps=25.0, size=size, window=4)
    stream = [packet for frame in (*motion, *dark) for packet in encoder.push(frame)] + encoder.finish()
    assert sum(read_packet(one)[0].frames for one in stream[1:]) == len(motion) + len(dark)
    assert encoder._last_landmarks is not None  # the face has left the picture: its last landmarks are held
    assert torch.equal(encoder._last_landmarks[0], method.pipeline.landmarks(method.values(motion))[0, -1])


def test_bitstreams_and_streams_of_corrected_poses(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    module.train(request_for())
    method = BCDMethod({})
    method.attach(load_model(request_for().out / "model.safetensors"))
    content, motion = BlockClips().clips([0, 20])
    plain = method.pipeline.motion_latents(method.values(motion))
    seen: list[int] = []

    def turns(values: Tensor) -> Tensor:
        seen.append(values.shape[1])
        turn = Rotation.from_rotvec([0, 40, 0], degrees=True).as_matrix()
        return torch.from_numpy(turn).float().repeat(len(values), 1, 1)

    monkeypatch.setattr(method.pipeline, "turns", turns)
    assert not torch.equal(method.pipeline.motion_latents(method.values(motion)), plain)
    encoded = encode_clip(method, content, motion, 25.0, seed=3)
    expected = method.transfer_frames(content, motion, seed=3)
    np.testing.assert_array_equal(decode_clip(method, encoded.data).frames, expected)
    seen.clear()
    size = (motion.shape[1], motion.shape[2])
    encoder = StreamEncoder(method, content, fps=25.0, size=size, window=4)
    for frame in motion:
        encoder.push(frame)
    encoder.finish()
    assert seen == [4]  # the first window decides


def test_weights_that_cannot_be_extended_are_refused(request_for: Any, base: Path) -> None:
    module.train(request_for())
    again = str(request_for().out / "model.safetensors")
    with pytest.raises(UsageError, match="other than pixel_path and landmark_motion"):
        module.train(request_for("again", overrides={"bcd": again}))
    with pytest.raises(UsageError, match="suite 'blocks' has no points of heads"):
        point_clips(BlockClips(), "blocks")


def test_the_plan_names_the_rate(request_for: Any, capsys: pytest.CaptureFixture[str]) -> None:
    request = request_for(plan_only=True)
    module.train(request)
    assert "3 groups of 8 entries, at most 9 bits per frame" in capsys.readouterr().out
    assert not request.out.exists()


def test_trainings_of_the_same_data_share_what_is_prepared(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = request_for("first"), request_for("other", overrides={"landmarks.groups": 4, "train.seed": 1})
    fewer = request_for("fewer", overrides={"train.people": 20, "train.translation_clips": 3})
    alone = request_for("separate", overrides=dict(other.overrides))
    module.train(first)
    module.train(alone)
    module.train(fewer, others=[first.out])  # of other data, so it prepares its own
    tensors = load_file(fewer.out / "translation.safetensors")
    assert tensors["landmarks"].shape == (3, 8, KNOWN, 2)
    assert len(load_file(fewer.out / "points.safetensors")["own"]) == 20

    damaged = first.out.with_name("damaged")
    damaged.mkdir()
    (damaged / "points.safetensors").write_bytes(b"no points")
    with monkeypatch.context() as patch:
        patch.setattr(HeadClips, "random_points", None)
        patch.setattr(HeadClips, "clips", None)
        LandmarkTraining().train(other)  # looks into the folders beside its own
    for name in ("points.safetensors", "translation.safetensors"):
        assert (other.out / name).read_bytes() == (first.out / name).read_bytes()
    state, expected = (load_file(one.out / "model.safetensors") for one in (other, alone))
    assert all(torch.equal(value, state[name]) for name, value in expected.items())


def test_trainings_that_differ_in_the_code_share_the_first_stage(
    request_for: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    module.train(request_for("first"))
    shared = "steps 1 to 4 (without quantiser): as in "
    for name, taken, overrides in (
        ("wider", True, {"landmarks.groups": 4, "train.commitment": 0.01}),
        ("seed", False, {"train.seed": 1}),
        ("rate", False, {"train.lr": 1e-3}),
    ):
        alone = request_for(f"alone-{name}", overrides=overrides)
        other = request_for(name, overrides=overrides)
        module.train(alone)
        assert shared not in capsys.readouterr().out
        module.train(other, others=[request_for("first").out])
        assert (f"{shared}{request_for('first').out}" in capsys.readouterr().out) is taken
        assert (other.out / "log.jsonl").read_text() == (alone.out / "log.jsonl").read_text()
        state, expected = (load_file(one.out / "model.safetensors") for one in (other, alone))
        assert all(torch.equal(value, state[key]) for key, value in expected.items())


def test_a_translation_needs_two_clips_with_faces(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HeadClips, "clips", lambda self, numbers: np.zeros_like(BlockClips.clips(self, numbers)))
    with pytest.raises(UsageError, match="0 of 4 training clips show a face, two are needed"):
        module.train(request_for())
    assert (request_for().out / "checkpoint.pt").exists()
