"""Training the judge: settings, resuming, and the files it leaves."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench_sprites import train_classifier as judge_train
from bcd_bench_sprites.classifier import HEADS, load_judge
from bcd_bench_sprites.plugin import bcd_bench_trainables
from bcd_bench_sprites.train_classifier import PRESETS, JudgeTrainer, augment, train_judge

SMALL = {"steps": 4, "batch": 2}


@pytest.fixture(autouse=True)
def _quick_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_train, "accuracy_on_test", lambda *_, **__: dict.fromkeys(HEADS, 50.0))


def _request(out: Path, overrides: dict[str, Any] | None = None, **changes: Any) -> TrainRequest:
    request = TrainRequest(
        preset="sprites-procedural",
        overrides=SMALL if overrides is None else overrides,
        out=out,
        resume=False,
        max_steps=None,
        max_minutes=None,
        device="cpu",
        data={},
        plan_only=False,
    )
    return replace(request, **changes)


def test_training_leaves_a_judge_that_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_judge(_request(tmp_path / "out"))
    judge = load_judge(tmp_path / "out/judge.safetensors")
    assert sum(value.numel() for value in judge.parameters()) < 200_000
    config = json.loads((tmp_path / "out/judge.json").read_text())
    assert config["steps"] == 4
    assert config["recipe"]["batch"] == 2
    assert config["test_accuracy_percent"]["motion"] == 50.0
    lines = [json.loads(line) for line in (tmp_path / "out/log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [4]
    assert "test accuracy in percent after 4 steps" in capsys.readouterr().out


def test_a_resumed_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    train_judge(_request(tmp_path / "whole"))
    train_judge(_request(tmp_path / "parts", max_steps=2))
    half = (tmp_path / "parts/judge.safetensors").read_bytes()
    train_judge(_request(tmp_path / "parts", resume=True))
    whole = (tmp_path / "whole/judge.safetensors").read_bytes()
    assert (tmp_path / "parts/judge.safetensors").read_bytes() == whole != half


def test_ctrl_c_keeps_what_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_judge(_request(tmp_path / "whole"))
    real = JudgeTrainer.train_step

    def step(self: JudgeTrainer, number: int) -> dict[str, float]:
        if number == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(JudgeTrainer, "train_step", step)
        with pytest.raises(Interrupted, match="stopped at step 2 of 4"):
            train_judge(_request(tmp_path / "cut"))
    assert not (tmp_path / "cut/judge.safetensors").exists()
    train_judge(_request(tmp_path / "cut", resume=True))
    assert (tmp_path / "cut/judge.safetensors").read_bytes() == (tmp_path / "whole/judge.safetensors").read_bytes()


def test_a_time_limit_ends_training_cleanly(tmp_path: Path) -> None:
    train_judge(_request(tmp_path / "out", {"steps": 100_000, "batch": 2}, max_minutes=0.005))
    assert 0 < json.loads((tmp_path / "out/judge.json").read_text())["steps"] < 100_000


def test_another_seed_gives_other_weights(tmp_path: Path) -> None:
    train_judge(_request(tmp_path / "a", max_steps=1))
    train_judge(_request(tmp_path / "b", max_steps=1, seed=1))
    assert (tmp_path / "a/judge.safetensors").read_bytes() != (tmp_path / "b/judge.safetensors").read_bytes()


def test_a_run_is_neither_overwritten_nor_continued_with_other_settings(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        train_judge(_request(tmp_path / "out", resume=True))
    train_judge(_request(tmp_path / "out", max_steps=1))
    with pytest.raises(UsageError, match="already contains a training run"):
        train_judge(_request(tmp_path / "out"))
    with pytest.raises(UsageError, match=r"created with a different recipe: lr was 0\.002, is 0\.0001"):
        train_judge(_request(tmp_path / "out", {**SMALL, "lr": 1e-4}, resume=True))
    (tmp_path / "out/checkpoint.pt").write_bytes(b"nothing")
    with pytest.raises(UsageError, match=r"checkpoint\.pt: cannot be read"):
        train_judge(_request(tmp_path / "out", resume=True))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"step": 3}, "did you mean steps"),
        ({"steps": "many"}, "whole number"),
        ({"steps": 2.5}, "whole number"),
        ({"lr": True}, "a number"),
        ({"batch": 0}, "must be positive"),
        ({"suite": "sprites"}, "fixed by the preset"),
        ({"tracker": "wandb"}, "one of none, tensorboard, trackio"),
    ],
)
def test_wrong_settings_are_refused(overrides: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        train_judge(_request(tmp_path / "out", overrides))
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        train_judge(_request(tmp_path / "file/out"))


def test_a_plan_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train_judge(_request(tmp_path / "out", plan_only=True))
    assert json.loads(capsys.readouterr().out)["steps"] == 4
    assert not (tmp_path / "out").exists()


def test_a_diverging_loss_stops_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judge_train, "augment", lambda clips, *_: clips * float("nan"))
    with pytest.raises(BcdBenchError, match="the loss or its gradient is not finite"):
        train_judge(_request(tmp_path / "out"))


def test_augmented_clips_stay_close_and_half_of_them_are_untouched_by_noise() -> None:
    clips = torch.zeros(64, 2, 3, 64, 64)
    seen = augment(clips, PRESETS["sprites"], torch.Generator().manual_seed(0))
    deviation = seen.flatten(1).std(1).numpy()
    assert 16 < (deviation == 0).sum() < 48
    assert deviation.max() < 0.26
    again = augment(clips, PRESETS["sprites"], torch.Generator().manual_seed(0))
    assert np.array_equal(seen.numpy(), again.numpy())


def test_the_presets_on_offer_are_those_there_are() -> None:
    (spec,) = bcd_bench_trainables()
    assert set(spec.presets) == set(PRESETS)
    assert spec.default_preset in PRESETS
