"""Training and using a motion model on block clips: files, exact resume, learning, generation, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.video import read_video
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import Limits
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import UsageError
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.autoregressive import train as module
from bcd_bench_bcd.autoregressive.codes import ClipCodes
from bcd_bench_bcd.autoregressive.config import PromptEncoderConfig
from bcd_bench_bcd.autoregressive.generate import generate_video
from bcd_bench_bcd.autoregressive.generator import MotionGenerator, bcd_of
from bcd_bench_bcd.autoregressive.methods import (
    BCDGenerate,
    MarkovMotion,
    RepeatLast,
    TrainingMotion,
    nearest_training_sequence,
)
from bcd_bench_bcd.autoregressive.model import ALONE, FIRST, MIDDLE
from bcd_bench_bcd.autoregressive.presets import resolve_preset
from bcd_bench_bcd.autoregressive.prompt_encoder import PromptEncoderTraining, adapted_names, prompt_pipeline
from bcd_bench_bcd.autoregressive.sampling import SamplingConfig
from bcd_bench_bcd.autoregressive.weights import load_motion_model
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.metrics.motion_bitrate import INFO_KEY
from bcd_bench_bcd.metrics.motion_generation import GENERATION, MotionGeneration, repeated_share
from bcd_bench_bcd.training.dataset import DeviceClips
from tests.bcd.conftest import BlockClips, saved_weights, tiny_model, train_request

TINY: dict[str, Any] = {
    "gpt.layers": 1, "gpt.width": 32, "gpt.heads": 2, "train.steps": 6, "train.batch": 8, "train.held_out": 8,
    "train.log_every": 2, "train.checkpoint_every": 3, "train.precision": "fp32", "gpt.dropout": 0.1,
    "prompt_encoder.steps": 0,
}  # fmt: skip


@pytest.fixture
def bcd_path(tmp_path: Path) -> Path:
    return saved_weights(tiny_model(), tmp_path)


@pytest.fixture
def request_for(tmp_path: Path, bcd_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module.training, "open_training_clips", lambda suite, request: BlockClips())

    def make(name: str = "run", **changes: Any) -> TrainRequest:
        overrides = {**TINY, "bcd": str(bcd_path), **changes.pop("overrides", {})}
        fields = {"preset": "sprites-small", "overrides": overrides, "out": tmp_path / name}
        return train_request(**{**fields, **changes})

    return make


def test_a_run_writes_weights_codes_and_a_log_with_the_ngram_models(request_for: Any, bcd_path: Path) -> None:
    request = request_for()
    module.train(request)
    read = load_motion_model(request.out / "model.safetensors")
    assert read.bcd_sha256 == sha256_file(bcd_path)
    assert read.sequences.shape == (40, 8, 1)
    codes = BCD.from_pretrained(bcd_path).encode_motion(BlockClips().clips(range(40))).codes
    assert torch.equal(read.sequences, codes)
    assert int(read.counts.sum()) == codes.numel()
    lines = [json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    markov = read.markov
    held_out = BCD.from_pretrained(bcd_path).encode_motion(BlockClips().clips(range(40, 48))).codes.numpy()
    assert lines[-1]["markov_bits"] == pytest.approx(markov.bits(held_out).mean(), abs=1e-4)
    assert lines[-1]["unigram_bits"] == pytest.approx(markov.unigram_bits(held_out).mean(), abs=1e-4)
    assert torch.equal(read.model.codebook, BCD.from_pretrained(bcd_path).model.quantizer.codebook)


def test_resumed_run_equals_an_uninterrupted_one(request_for: Any) -> None:
    module.train(request_for("whole"))
    module.train(request_for("parts", max_steps=4))
    shard = request_for("parts").out / "codes" / "00000.safetensors"
    written = shard.stat().st_mtime_ns
    module.train(request_for("parts", resume=True))
    assert shard.stat().st_mtime_ns == written  # the clips are not encoded again
    whole, parts = (load_motion_model(request_for(name).out / "model.safetensors") for name in ("whole", "parts"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, parts.model.state_dict()[name]), name
    logs = [(request_for(name).out / "log.jsonl").read_text() for name in ("whole", "parts")]
    assert logs[0] == logs[1]


def test_folders_and_settings_that_do_not_fit_are_refused(request_for: Any, tmp_path: Path) -> None:
    module.train(request_for(max_steps=1))
    with pytest.raises(UsageError, match="already contains a training run"):
        module.train(request_for())
    with pytest.raises(UsageError, match=r"different preset: train\.lr was"):
        module.train(request_for(resume=True, overrides={"train.lr": 1e-5}))
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        module.train(request_for("new", resume=True))
    with pytest.raises(UsageError, match="learns the codes of a BCD model"):
        module.train(request_for(preset="table-a9", overrides={"bcd": None}))
    with pytest.raises(UsageError, match="no such file"):
        module.train(request_for(overrides={"bcd": str(tmp_path / "missing")}))
    with pytest.raises(UsageError, match="must be less than the 48 clips"):
        module.train(request_for("other", overrides={"train.held_out": 48}))


def test_plan_writes_nothing(request_for: Any, capsys: pytest.CaptureFixture[str]) -> None:
    request = request_for(plan_only=True)
    module.train(request)
    out = capsys.readouterr().out
    assert "48 training clips, 8 of them held out" in out
    assert "clips to encode: 48" in out
    assert not request.out.exists()


def test_batches_are_cropped_halved_and_prompted_with_their_probabilities() -> None:
    codes = torch.arange(8)[None, :, None].repeat(5, 1, 1)
    data = ClipCodes(codes, torch.full((5, 1), 9), torch.zeros(5, 1, 2), torch.ones(5, 1, 2))
    off = {"train.half_rate": 0, "train.crop": 0, "train.prompt": 0, "train.batch": 200}

    def batch(seed: int = 0, **changes: Any) -> Any:
        preset = resolve_preset("sprites-small", {**off, **changes})
        return module.sample_batch(data, preset, torch.Generator().manual_seed(seed))

    content, plain, start = batch()
    assert torch.equal(plain, codes[:1].expand(200, -1, -1))
    assert (start == FIRST).all()
    assert not content.any()
    content, halved, _ = batch(**{"train.half_rate": 1})
    assert halved[0, :, 0].tolist() == [0, 2, 4, 6]
    for seed in range(5):
        _, cropped, start = batch(seed, **{"train.crop": 1, "train.prompt": 1})
        first = int(cropped[0, 0, 0])
        assert 1 <= first <= 6
        assert (start == MIDDLE).all()
        assert cropped[0, :, 0].tolist() == list(range(first, 8))
    content, prompted, start = batch(**{"train.prompt": 0.25})
    alone = content[:, 0, 0] == 1
    assert 0.15 < alone.float().mean() < 0.35
    assert torch.equal(prompted[:, 0, 0] == 9, alone)
    assert torch.equal(start, torch.where(alone, ALONE, FIRST))
    assert (prompted[:, 1:] == codes[:1, 1:]).all()


# ---- generation ----------------------------------------------------------------------------------------------------
@pytest.fixture
def motion_path(request_for: Any) -> Path:
    overrides = {"train.steps": 120, "train.lr": 5e-3, "train.prompt": 0.5, "train.batch": 32, "gpt.dropout": 0.0}
    module.train(request_for("motion", overrides={**overrides, "train.log_every": 120}))
    path: Path = request_for("motion").out / "model.safetensors"
    return path


class Source:
    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    def load(self) -> Clip:
        return self.clip

    def describe(self) -> dict[str, Any]:
        return {}


def pairs(known: int = 1) -> list[Pair]:
    made = []
    for index in range(40, 46):
        frames = BlockClips().clips([index])[0]
        content = ClipRef(f"p{index}", Source(Clip(frames[:known], 8.0)))
        real = ClipRef(f"r{index}", Source(Clip(frames, 8.0)))
        made.append(Pair(str(index), content, real, real))
    return made


@pytest.mark.slow
def test_trained_model_continues_prompts_and_beats_the_markov_model(motion_path: Path, bcd_path: Path) -> None:
    log = json.loads((motion_path.parent / "log.jsonl").read_text().splitlines()[-1])
    assert log["bits"] < min(log["markov_bits"], log["unigram_bits"])
    results = {}
    for kind in (BCDGenerate, MarkovMotion, TrainingMotion):
        method = kind({"bcd": str(bcd_path)})
        method.load(motion_path, "cpu")
        outputs = list(method.transfer(pairs(3), seed=0))
        assert all(isinstance(clip, Clip) and clip.frames.shape == (8, 32, 32, 3) for clip in outputs)
        alone = next(iter(method.transfer(pairs(3)[2:3], seed=0)))
        assert alone.info[INFO_KEY] == outputs[2].info[INFO_KEY]  # type: ignore[union-attr]
        results[kind] = [clip.info for clip in outputs]  # type: ignore[union-attr]
    bcd = BCD.from_pretrained(bcd_path)
    known = bcd.encode_motion(BlockClips().clips([40])[:, :3]).codes[0].tolist()
    for infos in results.values():
        assert infos[0][INFO_KEY][:3] == known
        assert infos[0][GENERATION]["prompt"] == 3
    assert results[TrainingMotion][0][GENERATION]["nearest"] >= 0.8


def test_video_of_any_length_resumes_to_the_same_frames(
    motion_path: Path, bcd_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bcd_bench_bcd.autoregressive import generate

    monkeypatch.setattr(generate, "SEGMENT", 16)
    monkeypatch.setattr(generate, "BLOCK", 10)
    motion = load_motion_model(motion_path)
    sampling = SamplingConfig(temperature=1)
    generator = MotionGenerator(bcd_of(motion, bcd_path), motion, sampling)
    prompt = Clip(BlockClips().clips([3])[0, :2], 8.0)
    codes = generate_video(generator, prompt, 40, tmp_path / "whole.mkv", seed=4)
    assert codes.shape == (40, 1)
    assert not (tmp_path / "whole.mkv.part").exists()

    calls = 0
    original = generate._segment

    def failing(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(generate, "_segment", failing)
    with pytest.raises(KeyboardInterrupt):
        generate_video(generator, prompt, 40, tmp_path / "parts.mkv", seed=4)
    with pytest.raises(UsageError, match="unfinished video of another command"):
        generate_video(generator, prompt, 40, tmp_path / "parts.mkv", seed=5)
    assert np.array_equal(generate_video(generator, prompt, 40, tmp_path / "parts.mkv", seed=4), codes)
    assert calls == 4  # the first of three segments was kept
    whole, parts = (read_video(tmp_path / name).frames for name in ("whole.mkv", "parts.mkv"))
    assert whole.shape == (40, 32, 32, 3)
    assert np.array_equal(whole, parts)


def test_bad_generation_requests_are_refused(motion_path: Path, bcd_path: Path, tmp_path: Path) -> None:
    motion = load_motion_model(motion_path)
    generator = MotionGenerator(bcd_of(motion, bcd_path), motion)
    prompt = Clip(BlockClips().clips([3])[0], 8.0)
    for count in (0, 8, 2_000_000):
        with pytest.raises(UsageError, match=f"{count} frames: the prompt has 8, so at least 9 and at most 1000000"):
            generate_video(generator, prompt, count, tmp_path / "x.mp4")
    with pytest.raises(UsageError, match="not shipped"):
        bcd_of(motion)
    with pytest.raises(UsageError, match="belongs to other BCD weights"):
        bcd_of(motion, "sprites-small")
    with pytest.raises(UsageError, match="a codebook has 8 entries"):
        MotionGenerator(bcd_of(motion, bcd_path), motion, SamplingConfig(temperature=1, top_k=9))
    method = BCDGenerate({"bcd": str(bcd_path)})
    method.load(motion_path, "cpu")
    small = ClipRef("small", Source(Clip(np.zeros((1, 16, 16, 3), np.uint8), 8.0)))
    short = ClipRef("short", Source(Clip(prompt.frames[:2], 8.0)))
    failed = list(
        method.transfer([Pair("a", small, pairs()[0].motion), Pair("b", ClipRef("p", Source(prompt)), short)], seed=0)
    )
    assert "16 x 16 pixels" in failed[0].reason
    assert "the prompt has 8 frames, the clip only 2" in failed[1].reason


def test_repeat_last_holds_the_last_frame() -> None:
    [clip, *_] = list(RepeatLast({}).transfer(pairs(3), seed=0))
    frames = BlockClips().clips([40])[0]
    assert np.array_equal(clip.frames[:3], frames[:3])
    assert all(np.array_equal(frame, frames[2]) for frame in clip.frames[3:])


# ---- statistics ----------------------------------------------------------------------------------------------------
def test_nearest_training_sequence_is_found_at_any_alignment() -> None:
    sequences = torch.tensor([[[0], [1], [2], [3]], [[5], [5], [5], [5]]])
    assert nearest_training_sequence(torch.tensor([[1], [2]]), sequences) == 1.0
    assert nearest_training_sequence(torch.tensor([[1], [4]]), sequences) == 0.5
    assert nearest_training_sequence(torch.tensor([[9], [0], [1], [2], [3]]), sequences) == 1.0
    assert nearest_training_sequence(torch.tensor([[9], [9]]), sequences) == 0.0


def test_metric_reports_the_methods_statistics() -> None:
    from bcd_bench.plugin.protocols import Scored

    clip = Clip(np.zeros((4, 8, 8, 3), np.uint8), 8.0)
    generation = {
        "prompt": 1, "bits": 2.0, "markov_bits": 3.0, "unigram_bits": 4.0, "nearest": 0.75, "real_nearest": 0.5,
        "real_repeated": 0.25,
    }  # fmt: skip
    codes = [[[1], [1], [2], [2]], [[1], [1], [2], [2]], [[1], [3], [2], [2]]]
    items = [Scored(pairs()[0], clip, {}, {INFO_KEY: code, GENERATION: generation}) for code in codes]
    metric = MotionGeneration()
    rows = metric.score([*items, Scored(pairs()[0], clip)])
    assert rows[0]["repeated-frames"] == pytest.approx(200 / 3)  # type: ignore[index]
    assert rows[0]["continuation-bits"] == 2.0
    assert rows[0]["training-overlap"] == 75.0
    assert rows[3].reason == "the method does not report generated motion codes"  # type: ignore[union-attr]
    assert metric.derive(rows[:3])["distinct-motions"] == pytest.approx(200 / 3)  # type: ignore[arg-type]
    assert repeated_share([[1], [1], [2], [2]], 2) == 0.5
    assert repeated_share([[1]], 1) == 0.0


def test_limits_stop_a_run(request_for: Any) -> None:
    assert Limits(max_steps=2).last_step(6) == 2
    module.train(request_for(max_steps=2))
    assert json.loads((request_for().out / "log.jsonl").read_text().splitlines()[-1])["step"] == 2


def test_damaged_work_files_are_computed_again(tmp_path: Path) -> None:
    from bcd_bench.io.npz import save_tree
    from bcd_bench_bcd.autoregressive.generate import _read

    path = tmp_path / "codes.npz"
    assert _read(path, "codes") is None
    save_tree(path, {"codes": np.arange(600).reshape(300, 2)})
    assert np.array_equal(_read(path, "codes"), np.arange(600).reshape(300, 2))  # type: ignore[arg-type]
    assert _read(path, "codes", 299) is None
    assert _read(path, "frames") is None
    whole = path.read_bytes()
    for kept in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:kept])
        assert _read(path, "codes") is None


def test_a_folder_is_not_a_video(tmp_path: Path) -> None:
    from bcd_bench_bcd.autoregressive.commands import generate

    (tmp_path / "x.mp4").mkdir()
    with pytest.raises(UsageError, match="it is a folder"):
        generate("bcd", tmp_path / "p.png", 9, tmp_path / "x.mp4")
    with pytest.raises(UsageError, match="no shipped motion model"):
        generate("bcd", tmp_path / "p.png", 9, tmp_path / "y.mp4", weights=str(tmp_path))


def test_the_encoder_is_adapted_to_prompts_and_resumes_exactly(
    request_for: Any, monkeypatch: pytest.MonkeyPatch, bcd_path: Path
) -> None:
    settings = {"prompt_encoder.steps": 8, "prompt_encoder.batch": 4, "train.steps": 2}
    whole = request_for("whole", overrides=settings)
    module.train(whole)
    read = load_motion_model(whole.out / "model.safetensors")
    bcd = BCD.from_pretrained(bcd_path)
    assert read.prompt_encoder is not None
    assert set(read.prompt_encoder) == set(adapted_names(bcd.model.encoder))

    # prompts are encoded by the adapted encoder, everything else by the BCD weights
    frames = BlockClips().clips(range(4))
    adapted = MotionGenerator(bcd, read).prompt(frames[:, :1])
    read.prompt_encoder = None
    plain = MotionGenerator(bcd, read).prompt(frames[:, :1])
    assert torch.equal(plain.content, bcd.encode_content(frames[:, :1]))
    assert not torch.equal(adapted.content, plain.content)
    assert torch.equal(BCD.from_pretrained(bcd_path).encode_content(frames), bcd.encode_content(frames))

    # a run that ends within the adaptation, then within the motion model
    module.train(request_for("parts", overrides=settings, max_steps=3))
    parts = request_for("parts").out
    assert not (parts / "codes").exists()
    with pytest.raises(UsageError, match="already contains a training run"):
        module.train(request_for("parts", overrides=settings))
    with pytest.raises(UsageError, match=r"different config: steps was 8, is 9"):
        module.train(request_for("parts", overrides={**settings, "prompt_encoder.steps": 9}, resume=True))
    module.train(request_for("parts", overrides=settings, max_steps=9, resume=True))
    assert (parts / "codes").exists()
    module.train(request_for("parts", overrides=settings, resume=True))
    assert (parts / "model.safetensors").read_bytes() != b""
    ours, theirs = (load_motion_model(out / "model.safetensors") for out in (whole.out, parts))
    assert ours.prompt_encoder is not None
    assert theirs.prompt_encoder is not None
    for name, value in ours.prompt_encoder.items():
        assert torch.equal(value, theirs.prompt_encoder[name]), name
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[name]), name


def test_adaptation_makes_prompts_of_one_frame_agree_with_the_clip(bcd_path: Path, tmp_path: Path) -> None:
    bcd = BCD.from_pretrained(bcd_path)
    clips = DeviceClips(BlockClips(), torch.device("cpu"))
    config = PromptEncoderConfig(steps=60, batch=8, lr=2e-3)
    training = PromptEncoderTraining(config, bcd, "", clips, 48, tmp_path, seed=0)
    adapted = training.run(Limits())
    assert adapted is not None
    values = bcd.model.values(clips.batch(list(range(48))))
    with torch.no_grad():
        target = bcd.pipeline.encode_content(values)
        before, after = (
            float((pipeline.encode_content(values[:, :1]) - target).square().mean())
            for pipeline in (bcd.pipeline, prompt_pipeline(bcd, adapted))
        )
    assert after < 0.5 * before
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert set(lines[-1]) >= {"content", "motion", "gradient_norm"}


def test_a_prompt_encoder_of_another_architecture_is_refused(bcd_path: Path) -> None:
    bcd = BCD.from_pretrained(bcd_path)
    fitting = {name: value.clone() for name, value in bcd.model.encoder.named_parameters() if name != "project.weight"}
    fitting.pop("project.bias")
    prompt_pipeline(bcd, fitting)
    with pytest.raises(ValueError, match="another shape: queries"):
        prompt_pipeline(bcd, {**fitting, "queries": torch.zeros(1, 2)})
    with pytest.raises(ValueError, match="another architecture"):
        prompt_pipeline(bcd, {"queries": fitting["queries"]})


def test_adapting_a_canonical_map_is_refused(tmp_path: Path) -> None:
    bcd = BCD.from_pretrained("heads-small")
    with pytest.raises(UsageError, match="cannot be adapted to prompts"):
        PromptEncoderTraining(
            PromptEncoderConfig(steps=1), bcd, "", DeviceClips([], torch.device("cpu")), 0, tmp_path, 0
        )
