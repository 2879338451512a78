"""`bcd-bench train dense-landmarks` on its smallest preset: it learns, resumes exactly, refuses what does not fit."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.types.errors import Interrupted, UsageError
from bcd_bench_faces.dense_landmarks.batches import Batches
from bcd_bench_faces.dense_landmarks.network import load_network
from bcd_bench_faces.dense_landmarks.points import dense_points
from bcd_bench_faces.dense_landmarks.train import train

WEIGHTS = "dense-landmarks.safetensors"


def request(out: Path, **changed: Any) -> TrainRequest:
    asked: dict[str, Any] = {
        "preset": "tiny", "overrides": {"precision": "fp32"}, "out": out, "resume": False, "max_steps": None,
        "max_minutes": None, "device": "cpu", "data": {}, "plan_only": False,
    }  # fmt: skip
    return TrainRequest(**{**asked, **changed})


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from its start to its end."""
    out = tmp_path_factory.mktemp("whole")
    train(request(out))
    return out


def beginning(whole: Path, out: Path) -> Path:
    """A folder with the renders of `whole` only: they take most of the time."""
    out.mkdir()
    shutil.copytree(whole / "renders", out / "renders")
    return out


def test_a_run_leaves_weights_that_load_and_a_log(whole: Path) -> None:
    network, vertices, card = load_network(whole / WEIGHTS)
    assert (vertices == dense_points(60).vertices).all()
    assert (card["steps"], card["examples"], card["renders"]) == (12, 96, 64)
    assert network.config.side == 48
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert 0 < lines[-1]["error"] < 40  # per cent of the face; and the sigmas are of the errors' size
    assert 0.1 < lines[-1]["surprise"] < 10
    assert (whole / WEIGHTS).stat().st_size < 1e6


def test_a_resumed_run_ends_in_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    out = beginning(whole, tmp_path / "parts")
    train(request(out, max_steps=5))
    assert load_network(out / WEIGHTS)[2]["steps"] == 5
    train(request(out, resume=True))
    ours, theirs = (safetensors.torch.load_file(folder / WEIGHTS) for folder in (out, whole))
    for name, value in ours.items():
        assert value.equal(theirs[name]), name
    logs = [[json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()] for folder in (out, whole)]
    assert logs[0][-1] == logs[1][-1]


def test_a_stop_while_renders_are_made_keeps_what_was_trained(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = beginning(whole, tmp_path / "stopped")
    shutil.copy(whole / "config.json", out)
    with monkeypatch.context() as patch:
        patch.setattr(Batches, "is_ready", lambda self, step: step < 3)
        patch.setattr(Batches, "prepare_step", lambda self, step: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Interrupted, match="stopped at step 3 of 12"):
            train(request(out, resume=True))  # nothing but the renders is there to resume
    train(request(out, resume=True))
    ours, theirs = (safetensors.torch.load_file(folder / WEIGHTS) for folder in (out, whole))
    assert all(value.equal(theirs[name]) for name, value in ours.items())


def test_more_workers_change_no_bit(whole: Path, tmp_path: Path) -> None:
    out = beginning(whole, tmp_path / "threads")
    train(request(out, overrides={"precision": "fp32", "workers": 3}))
    ours, theirs = (safetensors.torch.load_file(folder / WEIGHTS) for folder in (out, whole))
    assert all(value.equal(theirs[name]) for name, value in ours.items())


def test_a_second_training_starts_from_the_weights_of_a_first(whole: Path, tmp_path: Path) -> None:
    out = beginning(whole, tmp_path / "second")
    init = {"precision": "fp32", "init": str(whole / WEIGHTS), "warmup": 1000}  # so slow that it hardly moves
    train(request(out, overrides=init, max_steps=1))
    card = load_network(out / WEIGHTS)[2]
    assert card["started_from"]["steps"] == 12
    assert str(tmp_path.parent) not in json.dumps(card)
    ours, theirs = (safetensors.torch.load_file(folder / WEIGHTS)["hidden.weight"].float() for folder in (out, whole))
    assert (ours - theirs).abs().max() < 1e-3
    with pytest.raises(UsageError, match="the network has a different size"):
        train(request(beginning(whole, tmp_path / "other"), overrides={**init, "hidden": 48}))


def test_a_run_is_not_overwritten_and_goes_on_only_as_it_was(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already contains a training run"):
        train(request(whole))
    with pytest.raises(UsageError, match=r"was created with a different recipe: lr was 0\.002, is 0\.1"):
        train(request(whole, resume=True, overrides={"precision": "fp32", "lr": 0.1}))
    assert json.loads((whole / "config.json").read_text())["recipe"]["lr"] == 2e-3
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        train(request(tmp_path / "none", resume=True))
    out = beginning(whole, tmp_path / "damaged")
    (out / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(UsageError, match=r"checkpoint\.pt: cannot be read"):
        train(request(out, resume=True))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"stepz": 3}, "--set stepz: no such setting; did you mean steps"),
        ({"steps": 2.5}, "must be a whole number"),
        ({"lr": "fast"}, "must be a number"),
        ({"batch": 0}, "must be positive"),
        ({"side": 500}, "at most render_side"),
        ({"widths": "8,16"}, "must be 4 whole numbers"),
        ({"precision": "fp8"}, "one of auto, fp32, bf16"),
        ({"tracker": "wandb"}, "one of none, tensorboard, trackio"),
        ({"average": 1}, "must be in 0..1"),
        ({"bend": 1.5}, "must be in 0..1"),
    ],
)
def test_wrong_settings_are_refused(overrides: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        train(request(tmp_path, overrides=overrides))


def test_a_plan_trains_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(request(tmp_path / "out", preset="small", plan_only=True, seed=4))
    plan = json.loads(capsys.readouterr().out)
    assert plan["seed"] == 4
    assert plan["weights_megabytes"] < 8
    assert not (tmp_path / "out").exists()
