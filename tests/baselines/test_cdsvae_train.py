"""Training C-DSVAE: what it writes, that it resumes exactly, how it stops, and that it learns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import bcd_bench_baselines.cdsvae.train as module
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import Limits
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench_baselines.cdsvae.model import load_model
from bcd_bench_baselines.cdsvae.presets import resolve_preset
from bcd_bench_baselines.cdsvae.train import Trainer, train

TINY: dict[str, Any] = {
    "train.batch": 4,
    "train.steps": 6,
    "train.log_every": 2,
    "train.checkpoint_every": 3,
    "train.warmup": 2,
    "train.precision": "fp32",
    "model.frame_size": [32, 32],
    "model.channels": [8, 8, 16],
    "model.frame_features": 16,
    "model.hidden": 8,
    "model.f_dim": 8,
    "model.z_dim": 4,
}


class BlockClips:
    """36 clips of a coloured square (content) that walks along a row (motion)."""

    fps = 8.0

    def __len__(self) -> int:
        return 36

    def clips(self, indices: Any) -> np.ndarray:
        frames = np.zeros((len(indices), 5, 32, 32, 3), np.uint8)
        for row, index in enumerate(indices):
            for t in range(5):
                x = (t * (1 + index // 12)) % 4 * 4
                frames[row, t, 8:16, 2 * x : 2 * x + 8] = ((index % 4) * 60 + 60, (index // 4 % 3) * 80 + 60, 90)
        return frames


@pytest.fixture
def request_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(module, "open_training_clips", lambda suite, request: BlockClips())

    def make(name: str = "run", **changes: Any) -> TrainRequest:
        fields: dict[str, Any] = {
            "preset": "sprites",
            "overrides": {**TINY, **changes.pop("overrides", {})},
            "out": tmp_path / name,
            "resume": False,
            "max_steps": None,
            "max_minutes": None,
            "device": "cpu",
            "data": {},
            "plan_only": False,
        }
        return TrainRequest(**{**fields, **changes})

    return make


def state_of(request: TrainRequest) -> dict[str, torch.Tensor]:
    return load_model(request.out / "model.safetensors")[0].state_dict()


def test_writes_weights_log_samples_and_config(request_for: Any) -> None:
    request = request_for()
    train(request)
    lines = [json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    names = {"total", "reconstruction", "kl_f", "kl_z", "contrast_f", "contrast_z", "dependence", "gradient_norm"}
    assert all(set(line) == names | {"step", "psnr"} for line in lines)
    last = lines[-1]
    assert last["psnr"] == pytest.approx(10 * np.log10(5 * 3 * 32 * 32 / last["reconstruction"]), abs=1e-3)
    _, card = load_model(request.out / "model.safetensors")
    assert (card["suite"], card["step"], card["clips"]) == ("sprites", 6, 24)
    assert json.loads((request.out / "config.json").read_text())["preset"]["train"]["batch"] == 4
    with Image.open(request.out / "samples.png") as sheet:
        assert sheet.size == (5 * 32, 4 * (3 * 32 + 4))


def test_stopping_and_resuming_changes_nothing(request_for: Any) -> None:
    whole, parts = request_for("whole"), request_for("parts")
    train(whole)
    train(request_for("parts", max_minutes=1e-9))
    assert (parts.out / "log.jsonl").read_text() == ""  # stopped after one step of two
    train(request_for("parts", resume=True, max_minutes=1e-9))
    train(request_for("parts", resume=True))
    assert (parts.out / "log.jsonl").read_text() == (whole.out / "log.jsonl").read_text()
    first, second = state_of(whole), state_of(parts)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_kill_between_checkpoints_repeats_the_lost_steps_exactly(request_for: Any) -> None:
    whole, killed = request_for("whole"), request_for("killed")
    train(whole)
    trainer = Trainer(resolve_preset("sprites", dict(TINY)), BlockClips(), killed)
    trainer.start(resume=False)
    trainer.run(Limits(max_steps=3))  # a checkpoint at step 3
    log = trainer.loop.log
    log.append(4, trainer.train_step(3))
    log.write(4, log.take_means())  # a line, and a step, that no checkpoint holds
    train(request_for("killed", resume=True))
    read = [[json.loads(x) for x in (r.out / "log.jsonl").read_text().splitlines()] for r in (whole, killed)]
    assert [line["step"] for line in read[1]] == [2, 3, 4, 6]  # the lost line of step 4 was made again
    assert read[1][-1] == read[0][-1]
    first, second = state_of(whole), state_of(killed)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_ctrl_c_saves_and_can_be_resumed(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal

    original = Trainer.train_step

    def step_then_signal(self: Trainer, step: int) -> dict[str, float]:
        values = original(self, step)
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    monkeypatch.setattr(Trainer, "train_step", step_then_signal)
    with pytest.raises(Interrupted, match="stopped at step 2 of 6"):
        train(request_for())
    train(request_for(resume=True))
    assert load_model(request_for().out / "model.safetensors")[1]["step"] == 6


def test_resume_refuses_other_settings_damaged_and_missing_checkpoints(request_for: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        train(request_for("none", resume=True))
    request = request_for(max_steps=1)
    train(request)
    with pytest.raises(UsageError, match=r"created with a different preset: train\.lr was 0\.002, is 0\.5"):
        train(request_for(resume=True, overrides={"train.lr": 0.5}))
    with pytest.raises(UsageError, match="already contains a training run"):
        train(request_for())
    checkpoint = request.out / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UsageError, match="cannot be read"):
        train(request_for(resume=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        train(request_for("file"))
    with pytest.raises(UsageError, match="--device nowhere"):
        train(request_for("device", device="nowhere"))


def test_a_loss_that_is_not_finite_stops_and_changes_nothing(request_for: Any) -> None:
    trainer = Trainer(resolve_preset("sprites", dict(TINY)), BlockClips(), request_for())
    with torch.no_grad():
        trainer.model.static_head.bias.fill_(float("nan"))
    before = trainer.model.dynamic_head.weight.clone()
    with pytest.raises(BcdBenchError, match="step 0: the loss or its gradient is not finite"):
        trainer.train_step(0)
    assert torch.equal(before, trainer.model.dynamic_head.weight)


def test_plan_trains_nothing_and_seeds_differ(request_for: Any, capsys: pytest.CaptureFixture[str]) -> None:
    request = request_for(plan_only=True)
    train(request)
    assert "6 steps of 4 clips = 24 clips = 0.7 epochs" in capsys.readouterr().out
    assert not request.out.exists()
    for name, seed in (("a", 0), ("b", 1)):
        train(request_for(name, seed=seed, max_steps=2))
    first, second = ((request_for(name).out / "log.jsonl").read_text() for name in ("a", "b"))
    assert first != second


def test_training_learns_to_redraw_and_to_tell_clips_apart(request_for: Any) -> None:
    request = request_for(overrides={"train.steps": 60, "train.batch": 12, "train.lr": 5e-3, "train.log_every": 10})
    train(request)
    lines = [json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["reconstruction"] < 0.6 * lines[0]["reconstruction"]
    assert lines[-1]["contrast_f"] < lines[0]["contrast_f"] - 0.3
