"""Training: what it writes, that it resumes exactly, and how it stops."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bcd_bench.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench.identity import sha256_file
from bcd_bench_bcd import data
from bcd_bench_bcd.data import fitted_model_config, lit_shares
from bcd_bench_bcd.guards import GRACE, WINDOW, CollapseGuard
from bcd_bench_bcd.model import load_model, to_unit
from bcd_bench_bcd.presets import resolve_preset
from bcd_bench_bcd.train import Trainer, train
from tests.bcd.conftest import TINY


def test_writes_weights_log_grid_and_config(request_for: Any) -> None:
    request = request_for()
    train(request)
    lines = [json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 8]
    assert all(np.isfinite(line["loss"]) and 0 <= line["bits"] <= 3.001 for line in lines)
    model, card = load_model(request.out / "model.safetensors")
    assert card["step"] == 8
    assert card["clips"] == 32
    assert model.config.drawn_patches == (4, 5, 6)  # the second row of 8-pixel patches, where the square walks
    assert json.loads((request.out / "config.json").read_text())["preset"]["train"]["batch"] == 4
    with Image.open(request.out / "grids" / "step-0000008.png") as grid:
        assert grid.size == (8 * 32, 4 * (3 * 32 + 4))


def test_stopping_and_resuming_changes_nothing(request_for: Any) -> None:
    whole, parts = request_for("whole"), request_for("parts")
    train(whole)
    train(request_for("parts", max_minutes=1e-9))
    assert len((parts.out / "log.jsonl").read_text().splitlines()) == 0  # stopped after one step of three
    train(request_for("parts", resume=True, max_minutes=1e-9))
    train(request_for("parts", resume=True))
    assert (parts.out / "log.jsonl").read_text() == (whole.out / "log.jsonl").read_text()
    states = [load_model(r.out / "model.safetensors")[0].state_dict() for r in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_kill_between_checkpoints_repeats_the_lost_steps_exactly(request_for: Any) -> None:
    whole, killed = request_for("whole"), request_for("killed")
    train(whole)
    trainer = Trainer(resolve_preset("sprites-small", dict(killed.overrides)), _clips(killed), killed.out, "cpu")
    trainer.start(resume=False)
    trainer.run(max_steps=3)  # a checkpoint at step 3
    for _ in range(2):  # two more steps that no checkpoint holds
        trainer.step()
    train(request_for("killed", resume=True))
    assert (killed.out / "log.jsonl").read_text() == (whole.out / "log.jsonl").read_text()


def _clips(request: Any) -> Any:
    from bcd_bench_bcd import train as module

    return module.open_training_clips("", request)


def test_a_second_stage_starts_from_the_first_and_says_so(request_for: Any, clips: Any) -> None:
    first = request_for("first", max_steps=2)
    train(first)
    weights = first.out / "model.safetensors"
    still = {"train.init": str(weights), "train.lr": 1e-9, "train.muon_lr": 1e-9, "train.warmup": 0}
    still["model.diffusion.p_mean"] = 2.5  # what only training looks at may change between stages
    second = request_for("second", max_steps=1, overrides=still)
    train(second)
    (before, _), (after, card) = (load_model(r.out / "model.safetensors") for r in (first, second))
    for name, value in before.state_dict().items():
        if "running" not in name and "usage" not in name:  # statistics of the batches go on
            measured = 1e-3 if name.startswith("bottleneck.") else 1e-5  # in bfloat16, where that is fast
            assert torch.allclose(after.state_dict()[name], value, atol=measured), name
    assert card["started_from"]["step"] == 2
    assert card["started_from"]["sha256"] == sha256_file(weights)
    assert str(first.out) not in json.dumps(card)
    other = request_for("other", overrides={"train.init": str(weights), "model.encoder.layers": 2})
    with pytest.raises(UsageError, match=r"another architecture: encoder\.layers was 1, is 2"):
        train(other)


def test_another_seed_gives_another_curve(request_for: Any) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        train(request_for(name, seed=seed, max_steps=3))
    first, second = ((request_for(n).out / "log.jsonl").read_text() for n in ("a", "b"))
    assert first != second


def test_resume_refuses_other_settings_and_damaged_checkpoints(request_for: Any) -> None:
    request = request_for(max_steps=1)
    train(request)
    with pytest.raises(UsageError, match=r"another preset: train\.lr was 0\.001, is 0\.5"):
        train(request_for(resume=True, overrides={"train.lr": 0.5, "train.steps": 1}))
    with pytest.raises(UsageError, match="holds a training run already"):
        train(request_for())
    checkpoint = request.out / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UsageError, match="cannot be read"):
        train(request_for(resume=True, max_steps=1))


def test_resume_without_checkpoint_and_unwritable_folder(request_for: Any, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        train(request_for("none", resume=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        train(request_for("file"))


def test_a_loss_that_is_not_finite_stops_with_the_remedy(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(max_steps=4)
    trainer = Trainer(resolve_preset("sprites-small", dict(request.overrides)), _clips(request), request.out, "cpu")
    trainer.start(resume=False)
    with torch.no_grad():
        trainer.model.decoder.patch_out.bias.fill_(float("nan"))
    before = trainer.model.encoder.project.weight.clone()
    with pytest.raises(BcdBenchError, match="step 0: the loss is not finite"):
        trainer.step()
    assert torch.equal(before, trainer.model.encoder.project.weight)


def test_ctrl_c_saves_and_can_be_resumed(request_for: Any) -> None:
    import os
    import signal

    request = request_for()
    trainer = Trainer(resolve_preset("sprites-small", dict(request.overrides)), _clips(request), request.out, "cpu")
    trainer.start(resume=False)
    original = trainer.step

    def step_then_signal() -> list[float]:
        values = original()
        if trainer.progress.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    trainer.step = step_then_signal  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="stopped at step 2 of 8"):
        trainer.run()
    train(request_for(resume=True))
    assert load_model(request.out / "model.safetensors")[1]["step"] == 8


def test_collapse_guard_waits_then_speaks() -> None:
    guard = CollapseGuard(6.0)
    for step in range(GRACE):
        guard.check(step, [1.0, 1.0, 5.9, 5.8])
    with pytest.raises(BcdBenchError, match=r"says 0\.10 bits about its frame"):
        guard.check(GRACE, [1.0, 1.0, 5.9, 5.8])
    healthy = CollapseGuard(6.0)
    for step in range(GRACE + WINDOW):
        healthy.check(step, [1.0, 1.0, 5.9, 0.2])


def test_plan_trains_nothing(request_for: Any, capsys: pytest.CaptureFixture[str]) -> None:
    request = request_for(plan_only=True)
    train(request)
    text = capsys.readouterr().out
    assert "8 steps of 4 clips = 32 clips" in text
    assert "capacity: 3.0 bits per frame, target 3" in text
    assert not request.out.exists()


def test_lit_shares_count_frames_and_fix_what_is_drawn(clips: Any) -> None:
    shares = lit_shares(clips, 8)
    frames = clips.clips(range(len(clips)))
    expected = [(frames[:, :, 8:16, x : x + 8].max(axis=(2, 3, 4)) > 0).mean() for x in (0, 8, 16)]
    assert shares[4:7].tolist() == pytest.approx(expected)
    assert np.flatnonzero(shares).tolist() == [4, 5, 6]
    assert np.flatnonzero(lit_shares(clips, 16)).tolist() == [0, 1]
    preset = resolve_preset("sprites-small", dict(TINY))
    assert fitted_model_config(preset, shares).drawn_patches == (4, 5, 6)
    whole = resolve_preset("sprites-small", {**TINY, "model.decoder.skip_static_patches": False})
    assert fitted_model_config(whole, shares).drawn_patches is None


def test_rarely_lit_patches_are_computed_less_often_until_the_end(request_for: Any) -> None:
    request = request_for(overrides={"train.patch_floor": 0.2, "train.patches_until": 0.5})
    trainer = Trainer(resolve_preset("sprites-small", dict(request.overrides)), _clips(request), request.out, "cpu")
    trainer.start(resume=False)
    assert trainer.patch_chances is not None
    assert trainer.patch_chances.max() == 1
    assert trainer.patch_chances.min() >= 0.2
    computed: list[int] = []
    original = trainer.model.decoder.forward

    def counted(patches: torch.Tensor, *rest: Any) -> torch.Tensor:
        computed.append(patches.shape[2])
        return original(patches, *rest)

    trainer.model.decoder.forward = counted  # type: ignore[method-assign]
    for _ in range(8):
        trainer.step()
    assert min(computed[:4]) < 3
    assert computed[4:] == [3] * 4


def test_weights_carry_the_grid_of_their_content(request_for: Any) -> None:
    request = request_for(max_steps=2)
    train(request)
    model, _ = load_model(request.out / "model.safetensors")
    assert model.bottleneck is not None
    assert (model.bottleneck.step > 0).all()
    content = model.encode(to_unit(torch.from_numpy(_clips(request).clips(range(8))))).content
    levels = (content - model.bottleneck.center) / model.bottleneck.step
    assert torch.allclose(levels, levels.round(), atol=1e-3)


def test_unknown_presets_and_fields_name_the_nearest() -> None:
    with pytest.raises(UsageError, match="nearest: sprites-small"):
        resolve_preset("sprites-smal")
    with pytest.raises(UsageError, match="no such field"):
        resolve_preset("sprites", {"train.learning_rate": 1.0})
    with pytest.raises(UsageError, match=r"train\.batch"):
        resolve_preset("sprites", {"train.batch": 0})


def test_data_that_nothing_reads_is_refused(tmp_path: Any) -> None:
    from bcd_bench.specs import TrainRequest

    request = TrainRequest("sprites-small", {}, tmp_path, False, None, None, "cpu", {"lrs3": tmp_path}, True)
    with pytest.raises(UsageError, match="--data lrs3: suite 'sprites-procedural' takes no data"):
        data.open_training_clips(resolve_preset("sprites-procedural-small"), request)
