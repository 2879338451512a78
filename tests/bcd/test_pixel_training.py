"""Training of the pixel path, and transfer, bitstreams and generation with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.autoregressive import train as motion_train
from bcd_bench_bcd.autoregressive.generator import MotionGenerator, bcd_of
from bcd_bench_bcd.autoregressive.methods import BCDGenerate
from bcd_bench_bcd.autoregressive.sampling import SamplingConfig
from bcd_bench_bcd.autoregressive.weights import load_motion_model
from bcd_bench_bcd.bitstream.codec import decode_clip, encode_clip
from bcd_bench_bcd.bitstream.container import BitstreamError, pack_file, read_file
from bcd_bench_bcd.bitstream.content import CodedContent
from bcd_bench_bcd.bitstream.pictures import decode_pictures, encode_pictures
from bcd_bench_bcd.bitstream.streaming import StreamDecoder, StreamEncoder
from bcd_bench_bcd.extensions.base import Extensions
from bcd_bench_bcd.extensions.field_smoothing import FieldSmoothing
from bcd_bench_bcd.extensions.fusion_damping import FusionDamping
from bcd_bench_bcd.extensions.pixel_path import PixelPath
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.pixels import carries_pixels
from bcd_bench_bcd.inference.weights import load_model, save_model
from bcd_bench_bcd.metrics.motion_bitrate import INFO_KEY
from bcd_bench_bcd.pixels import train as module
from bcd_bench_bcd.pixels.data import PixelPair
from bcd_bench_bcd.pixels.presets import resolve_preset
from bcd_bench_bcd.presets.registry import resolve_preset as bcd_preset
from tests.bcd.conftest import BlockClips, saved_weights, train_request
from tests.bcd.pixel_toy import TINY, CrossedBlocks
from tests.bcd.test_canonical_features import canonical_model
from tests.bcd.test_coded_method import Source as Frames
from tests.bcd.test_motion_train import TINY as MOTION


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return saved_weights(canonical_model(), tmp_path)


@pytest.fixture
def request_for(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module.training, "open_training_clips", lambda suite, request: CrossedBlocks())

    def make(name: str = "run", **changes: Any) -> TrainRequest:
        overrides = {**TINY, "bcd": str(base), **changes.pop("overrides", {})}
        fields = {"preset": "heads-pixels", "overrides": overrides, "out": tmp_path / name}
        return train_request(**{**fields, **changes})

    return make


def test_training_keeps_the_bcd_weights_and_resumes_exactly(request_for: Any, base: Path) -> None:
    whole = request_for("whole")
    module.train(whole)
    trained = load_model(whole.out / "model.safetensors")
    assert carries_pixels(trained.model)
    assert "pixel_path" in trained.description.recipe
    assert "pixel_path" in trained.description.labels
    assert trained.codes_sha256 == load_model(base).sha256 != trained.sha256
    assert trained.card["pixel_path"]["step"] == 4
    old, new = load_model(base).model.state_dict(), trained.model.state_dict()
    assert all(torch.equal(value, new[name]) for name, value in old.items())
    lines = [json.loads(line) for line in (whole.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    assert {"psnr", "psnr_transformer", "held_out_points", "drawn_share", "structure"} <= set(lines[0])

    module.train(request_for("parts", max_steps=3))
    pair = request_for("parts").out / "pairs" / "00000.safetensors"
    written = pair.stat().st_mtime_ns
    module.train(request_for("parts", resume=True))
    assert pair.stat().st_mtime_ns == written  # pairs are not prepared again
    parts = load_model(request_for("parts").out / "model.safetensors").model.state_dict()
    assert all(torch.equal(value, parts[name]) for name, value in new.items())


def test_a_run_continues_the_pixel_path_of_an_earlier_one(request_for: Any) -> None:
    module.train(request_for("first"))
    first = str(request_for("first").out / "model.safetensors")
    module.train(request_for("second", overrides={"train.init": first, "train.lr": 1e-9, "train.field_lr": 1e-9}))
    before, after = (
        load_model(request_for(n).out / "model.safetensors").model.state_dict() for n in ("first", "second")
    )
    assert all(torch.allclose(value, after[name], atol=1e-6) for name, value in before.items())
    with pytest.raises(UsageError, match="no pixel path with the same settings"):
        module.train(request_for("third", overrides={"train.init": first, "pixels.gap": 2}))


def test_a_run_with_a_critic_resumes_exactly(request_for: Any) -> None:
    settings = {"train.adversarial": 0.1, "train.features": 1.0, "train.log_every": 1}
    module.train(request_for("whole", overrides=settings))
    lines = [json.loads(line) for line in (request_for("whole").out / "log.jsonl").read_text().splitlines()]
    terms = {"structure": 1.0, "contrast": 0.0, "carried": 0.3, "drawn": 0.2, "points": 1.0, "smoothness": 0.5}
    terms |= {"pixels": 1.0, "adversarial": 0.1, "features": 1.0}
    for line in lines:
        assert line["critic"] > 0
        assert sum(weight * line[name] for name, weight in terms.items()) == pytest.approx(line["loss"], abs=1e-4)
    module.train(request_for("parts", overrides=settings, max_steps=3))
    module.train(request_for("parts", overrides=settings, resume=True))
    whole, parts = (
        load_model(request_for(name).out / "model.safetensors").model.state_dict() for name in ("whole", "parts")
    )
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


def test_mirror_images_need_landmarks(request_for: Any) -> None:
    with pytest.raises(UsageError, match="requires weights with landmark_motion"):
        module.train(request_for(overrides={"pixels.mirrored": True}))


def test_training_reduces_the_loss(request_for: Any, base: Path, tmp_path: Path) -> None:
    preset = resolve_preset(
        "heads-pixels",
        {
            **TINY,
            "bcd": str(base),
            "train.steps": 40,
            "train.batch": 4,
            "train.warmup": 5,
            "train.jitter": 0,
            "train.single": 0,
            "train.lr": 2e-3,
        },
    )
    bcd, clips = BCD.from_pretrained(base), CrossedBlocks()
    pairs = [module_pair(bcd, clips, preset, number) for number in range(6)]
    trainer = module.Trainer(
        preset, bcd, module.extended(bcd, preset), pairs, torch.from_numpy(clips.point_weights()), "cpu", tmp_path
    )
    losses = [trainer.train_step(step)["loss"] for step in range(40)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


def module_pair(bcd: BCD, clips: CrossedBlocks, preset: Any, number: int) -> PixelPair:
    from bcd_bench_bcd.pixels.data import prepare_pair

    return prepare_pair(bcd, clips, preset.train, number)


def test_transfer_shows_the_pixels_at_every_size_and_does_not_depend_on_the_batch(request_for: Any) -> None:
    module.train(request_for())
    method = BCDMethod({})
    method.attach(load_model(request_for().out / "model.safetensors"))
    content, motion = BlockClips().clips([0, 20])
    alone = method.transfer_frames(content, motion, seed=3)
    assert alone.shape == motion.shape
    assert method.frame_size == (64, 64)  # twice that of the transformer
    double = np.repeat(np.repeat(motion, 2, 1), 2, 2)
    assert method.transfer_frames(np.repeat(np.repeat(content, 2, 1), 2, 2), double, seed=3).shape == double.shape
    both, _ = method._transfer([content, motion], [motion, motion], [3, 4])
    assert np.abs(both[0].astype(int) - alone).max() <= 1
    # the transformer alone draws something else, and so does another content of the same tokens
    model = method.model
    assert model is not None
    with torch.no_grad():
        model.pixels.fusion.blend.bias[: 4 * 3] = -50  # type: ignore[union-attr, index]
    assert np.abs(method.transfer_frames(content, motion, seed=3).astype(int) - alone).max() > 10
    bcd = BCD.from_pretrained(request_for().out / "model.safetensors")
    assert np.array_equal(bcd(content, motion, seed=3)[0].numpy(), alone)


def test_a_bitstream_has_the_pixels_of_the_content(request_for: Any, base: Path) -> None:
    module.train(request_for())
    weights = request_for().out / "model.safetensors"

    def method(**settings: Any) -> BCDMethod:
        bcd = BCDMethod(settings)
        bcd.load(weights, "cpu")
        return bcd

    content, motion = BlockClips().clips([0, 20])
    cases: tuple[dict[str, Any], ...] = ({"content_frames": 3}, {"dtype": "bfloat16"}, {})
    for settings in cases:
        encoded = encode_clip(method(**settings), content, motion, 25.0, seed=4)
        assert encoded.header.content_coding == "ffv1"
        decoded = decode_clip(method(), encoded.data).frames
        shown = content[: settings.get("content_frames")]
        np.testing.assert_array_equal(decoded, method(**settings).transfer_frames(shown, motion, seed=4))
    small = encode_clip(method(), content, motion, 25.0, seed=4, content_crf=50)
    assert (small.header.content_coding, small.content_bytes < encoded.content_bytes) == ("av1", True)
    sent = decode_pictures(CodedContent("av1", 0, read_file(small.data)[1]))
    wanted = method().transfer_frames(sent, motion, seed=4)
    np.testing.assert_array_equal(decode_clip(method(), small.data).frames, wanted)
    header, section, codes = read_file(encoded.data)
    pair = Pair("p", ClipRef("c", Frames(content)), ClipRef("m", Frames(motion)))
    [clip] = method().transfer([pair], seed=0)
    assert isinstance(clip, Clip)
    assert clip.info["content_bits"] == 8 * len(section)  # those of the pictures, not of the tokens

    size = (motion.shape[1], motion.shape[2])
    encoder = StreamEncoder(method(), content, fps=25.0, size=size, seed=4, window=len(motion))
    first, *packets = [packet for frame in motion for packet in encoder.push(frame)] + encoder.finish()
    decoder = StreamDecoder(method(), first)
    streamed = np.concatenate([decoder.push(packet) for packet in packets])
    np.testing.assert_array_equal(streamed, method().transfer_frames(content, motion, seed=4))

    for coding, message in (("float32", "they need pictures"), ("av1", "content section of the bitstream is")):
        with pytest.raises(BitstreamError, match=message):
            decode_clip(method(), pack_file(replace(header, content_coding=coding), section, codes))
    other = encode_pictures(np.zeros((1, 32, 16, 3), np.uint8)).payload
    with pytest.raises(BitstreamError, match=r"the clip has \(32, 16\) pixels"):
        decode_clip(method(), pack_file(header, other, codes))
    with pytest.raises(UsageError, match="content_bits quantises content tokens"):
        encode_clip(method(content_bits=4), content, motion, 25.0)
    with pytest.raises(UsageError, match="the autoregressive model predicts from content tokens"):
        encode_clip(method(), content, motion, 25.0, model="autoregressive")


def test_generated_motion_shows_the_pixels_of_the_prompt(request_for: Any, base: Path) -> None:
    module.train(request_for())
    weights = request_for().out / "model.safetensors"
    request = request_for("motion", preset="sprites-small")
    motion_train.train(replace(request, overrides={**MOTION, "bcd": str(weights)}))
    motion = load_motion_model(request.out / "model.safetensors")
    assert motion.bcd_sha256 == load_model(base).sha256  # a pixel path leaves the codes as they are
    plain, sharp = (MotionGenerator(bcd_of(motion, path), motion, SamplingConfig()) for path in (base, weights))
    clip = BlockClips().clips([20])[0]
    known = clip[:3]
    assert (plain.frame_size, sharp.frame_size) == ((32, 32), (64, 64))
    codes = sharp.codes(sharp.prompt(known), 6, [1])
    assert torch.equal(codes, plain.codes(plain.prompt(known), 6, [1]))
    assert torch.equal(codes[0, :3], sharp.real_codes(known[None])[0])
    drawn = plain.frames(plain.prompt(known), codes, [1])[0].numpy()
    shown = sharp.frames(sharp.prompt(known), codes, [1])[0].numpy()
    method = BCDMethod({})
    method.load(weights, "cpu")
    prompt = sharp.prompt(known)
    wanted = method.render(drawn, (32, 32), known, prompt.content[0], sharp.bcd.pipeline.motion_of(codes)[0])
    np.testing.assert_array_equal(shown, wanted)
    large = known.repeat(2, 1).repeat(2, 2)
    assert sharp.frames(sharp.prompt(large), codes, [1]).shape == (1, 6, 64, 64, 3)
    with pytest.raises(ValueError, match="frames must be uint8"):
        plain.prompt(large)

    def generated(known: np.ndarray, real: np.ndarray) -> Clip | Failed:
        method = BCDGenerate({"bcd": str(weights)})
        method.load(request.out / "model.safetensors", "cpu")
        pair = Pair("p", ClipRef("c", Frames(known)), ClipRef("m", Frames(real)))
        return next(iter(method.transfer([pair], seed=0)))

    small, twice = generated(known, clip), generated(large, clip.repeat(2, 1).repeat(2, 2))
    assert isinstance(small, Clip)
    assert isinstance(twice, Clip)
    assert (small.frames.shape, twice.frames.shape) == ((8, 32, 32, 3), (8, 64, 64, 3))
    assert small.info[INFO_KEY][:3] == codes[0, :3].tolist()
    assert isinstance(generated(known[:, :16], clip), Failed)


def test_a_pixel_path_is_replaced(request_for: Any, base: Path) -> None:
    module.train(request_for())
    first = request_for().out / "model.safetensors"
    trained = load_model(first)
    more = Extensions([*trained.description.extensions, FieldSmoothing(), FusionDamping()])
    save_model(first, trained.model, trained.description.model_copy(update={"extensions": more}), trained.card)
    module.train(request_for("again", overrides={"bcd": str(first), "pixels.sources": 1}))
    again = load_model(request_for("again").out / "model.safetensors")
    assert again.codes_sha256 == load_model(base).sha256
    path = again.description.extensions.get(PixelPath)
    assert path is not None
    assert path.sources == 1
    assert again.description.recipe.count("pixel_path") == 1
    assert "field_smoothing" in again.description.recipe
    assert "fusion_damping" not in again.description.recipe
    old, new = load_model(base).model.state_dict(), again.model.state_dict()
    assert all(torch.equal(value, new[name]) for name, value in old.items())


def test_what_the_pixel_path_cannot_do_is_refused(request_for: Any) -> None:
    module.train(request_for())
    with pytest.raises(UsageError, match="extends weights with canonical_features"):
        module.train(request_for("sprites", overrides={"bcd": "sprites-procedural-small"}))
    with pytest.raises(UsageError, match="already contains a training run"):
        module.train(request_for())
    with pytest.raises(UsageError, match=r"different preset: train\.lr was"):
        module.train(request_for(resume=True, overrides={"train.lr": 1e-5}))
    with pytest.raises(UsageError, match="a pair of other weights or settings"):
        module.train(request_for(resume=True, overrides={"train.stride": 1}))
    with pytest.raises(UsageError, match="there are 48 training clips"):
        module.train(request_for("more", overrides={"train.clips": 99}))
    with pytest.raises(UsageError, match="held_out 6 must be less than clips 6"):
        module.train(request_for("held", overrides={"train.held_out": 6}))
    with pytest.raises(UsageError, match="added to trained weights, by bcd-bench train bcd-pixels"):
        bcd_preset("heads-small", {"extensions.pixel_path": {}})


def test_a_suite_without_targets_is_refused(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.training, "open_training_clips", lambda suite, request: BlockClips())
    with pytest.raises(UsageError, match="has no exact targets"):
        module.train(request_for("plain"))


def test_plan_writes_nothing(request_for: Any, capsys: pytest.CaptureFixture[str]) -> None:
    request = request_for(plan_only=True)
    module.train(request)
    out = capsys.readouterr().out
    assert "6 pairs, 2 of them held out" in out
    assert "pairs to prepare: 6" in out
    assert not request.out.exists()
