"""Training: what it writes, that it resumes exactly, and how it stops."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.training import Limits
from bcd_bench.types.errors import BcdBenchError, Interrupted, UsageError
from bcd_bench_bcd.extensions import patch_skipping
from bcd_bench_bcd.extensions.patch_skipping import SKIP_UNTIL, keep_probabilities
from bcd_bench_bcd.inference.weights import load_model
from bcd_bench_bcd.paper.model import BCD
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training import data
from bcd_bench_bcd.training.data import fit_to_data, needs_patch_occupancy, patch_occupancy
from bcd_bench_bcd.training.trainer import train
from tests.bcd.conftest import BlockClips, take_step, tiny_preset, trainer_of


def test_writes_weights_log_grid_and_config(request_for: Any) -> None:
    request = request_for()
    train(request)
    lines = [json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 8]
    assert all(np.isfinite(line["loss"]) and 0 <= line["bits"] <= 3.001 for line in lines)
    loaded = load_model(request.out / "model.safetensors")
    assert loaded.card["step"] == 8
    assert loaded.card["clips"] == 32
    assert loaded.description.active_patches == (4, 5, 6)  # the second row of 8-pixel patches, where the square walks
    run = json.loads((request.out / "config.json").read_text())
    assert run["preset"]["train"]["batch"] == 4
    assert run["recipe"] == list(tiny_preset().extensions.names)
    with Image.open(request.out / "grids" / "step-0000008.png") as grid:
        assert grid.size == (8 * 32, 4 * (3 * 32 + 4))


def test_a_codebook_larger_than_a_batch_starts_from_different_latents(request_for: Any) -> None:
    changes = {"model.quantizer.entries": 1024, "objective.target_bits": 9}
    trainer = trainer_of(request_for(overrides=changes))
    trainer.start(resume=False)
    codebook = trainer.model.quantizer.codebook[0]
    assert codebook.shape[0] == 1024
    assert len(torch.unique(codebook, dim=0)) == 1024
    assert all(np.isfinite(value) for value in take_step(trainer).values())


def test_stopping_and_resuming_changes_nothing(request_for: Any) -> None:
    whole, parts = request_for("whole"), request_for("parts")
    train(whole)
    train(request_for("parts", max_minutes=1e-9))
    assert len((parts.out / "log.jsonl").read_text().splitlines()) == 0  # stopped after one step of three
    train(request_for("parts", resume=True, max_minutes=1e-9))
    train(request_for("parts", resume=True))
    assert (parts.out / "log.jsonl").read_text() == (whole.out / "log.jsonl").read_text()
    states = [load_model(r.out / "model.safetensors").model.state_dict() for r in (whole, parts)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_max_steps_stops_a_run_without_shortening_its_schedules(request_for: Any) -> None:
    """`--max-steps` once replaced `train.steps`, so the schedules ended early and the run could not be resumed."""

    def request(name: str, **changes: Any) -> TrainRequest:
        made = request_for(name, overrides={"train.log_every": 1}, **changes)
        return replace(made, overrides={k: v for k, v in made.overrides.items() if k != "train.steps"})

    train(request("whole", max_steps=3))
    train(request("parts", max_steps=2))
    train(request("parts", resume=True, max_steps=3))
    steps = json.loads((request("parts").out / "config.json").read_text())["preset"]["train"]["steps"]
    assert steps == resolve_preset("sprites-small", {}).train.steps
    whole, parts = ((request(name).out / "log.jsonl").read_text() for name in ("whole", "parts"))
    assert len(whole.splitlines()) == 3
    assert parts == whole


def test_a_kill_between_checkpoints_repeats_the_lost_steps_exactly(request_for: Any) -> None:
    whole, killed = request_for("whole"), request_for("killed")
    train(whole)
    trainer = trainer_of(killed)
    trainer.start(resume=False)
    trainer.run(Limits(3))  # a checkpoint at step 3
    for _ in range(2):  # two more steps that no checkpoint holds
        take_step(trainer)
    train(request_for("killed", resume=True))
    assert (killed.out / "log.jsonl").read_text() == (whole.out / "log.jsonl").read_text()


def test_a_second_stage_starts_from_the_first_and_says_so(request_for: Any) -> None:
    first = request_for("first", max_steps=2)
    train(first)
    weights = first.out / "model.safetensors"
    still = {"train.init": str(weights), "train.lr": 1e-9, "extensions.muon.lr": 1e-9, "train.warmup": 0}
    still["model.edm.p_mean"] = 2.5  # what only training looks at may change between stages
    second = request_for("second", max_steps=1, overrides=still)
    train(second)
    before, after = (load_model(r.out / "model.safetensors") for r in (first, second))
    for name, value in before.model.state_dict().items():
        if "running" not in name and "usage" not in name:  # statistics of the batches go on
            measured = 1e-3 if name.startswith("bottleneck.") else 1e-5  # in bfloat16, where that is fast
            assert torch.allclose(after.model.state_dict()[name], value, atol=measured), name
    assert after.card["started_from"]["step"] == 2
    assert after.card["started_from"]["sha256"] == sha256_file(weights)
    assert str(first.out) not in json.dumps(after.card)
    other = request_for("other", overrides={"train.init": str(weights), "model.encoder.layers": 2})
    with pytest.raises(UsageError, match=r"another architecture: model\.encoder\.layers was 1, is 2"):
        train(other)
    other = request_for("other", overrides={"train.init": str(weights), "extensions.content_bottleneck.dim": 4})
    with pytest.raises(UsageError, match=r"another architecture: extensions\.content_bottleneck\.dim was 8, is 4"):
        train(other)


def test_another_seed_gives_another_curve(request_for: Any) -> None:
    for name, seed in (("a", 0), ("b", 1)):
        train(request_for(name, seed=seed, max_steps=3))
    first, second = ((request_for(n).out / "log.jsonl").read_text() for n in ("a", "b"))
    assert first != second


def test_resume_refuses_other_settings_and_damaged_checkpoints(request_for: Any) -> None:
    request = request_for(max_steps=1)
    train(request)
    with pytest.raises(UsageError, match=r"created with a different preset: train\.lr was 0\.001, is 0\.5"):
        train(request_for(resume=True, overrides={"train.lr": 0.5}))
    with pytest.raises(UsageError, match="already contains a training run"):
        train(request_for())
    checkpoint = request.out / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(UsageError, match="cannot be read"):
        train(request_for(resume=True, max_steps=1))


def test_resume_refuses_another_recipe_and_names_the_extensions(request_for: Any) -> None:
    train(request_for(max_steps=1))
    changes = {"extensions.swap_cycle": None, "extensions.robust_loss": None, "extensions.gradient_loss": {}}
    changes |= {"extensions.patch_skipping": None}
    with pytest.raises(UsageError) as caught:
        train(request_for(resume=True, overrides=changes))
    assert str(caught.value).endswith(
        "checkpoint.pt: is a checkpoint of another recipe: "
        "it has robust_loss, swap_cycle, patch_skipping; this command has gradient_loss"
    )
    papers = request_for("papers", preset="sprites", max_steps=1)
    train(papers)
    with pytest.raises(UsageError, match=r"another recipe: it has paper; this command has horizontal_flip"):
        train(request_for("papers", preset="sprites", resume=True, overrides={"extensions.horizontal_flip": {}}))


def test_resume_refuses_another_setting_of_an_extension(request_for: Any) -> None:
    train(request_for(max_steps=1))
    with pytest.raises(
        UsageError, match=r"created with a different preset: extensions\.robust_loss\.width was 0\.05, is 0\.1"
    ):
        train(request_for(resume=True, overrides={"extensions.robust_loss.width": 0.1}))


def test_the_papers_recipe_trains_without_extensions(request_for: Any) -> None:
    request = request_for(preset="sprites", max_steps=2, overrides={"train.log_every": 1})
    train(request)
    loaded = load_model(request.out / "model.safetensors")
    assert type(loaded.model) is BCD
    assert loaded.description.recipe == ("paper",)
    lines = [json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines()]
    assert list(lines[0]) == [
        "step",
        "loss",
        "diffusion",
        "bits",
        "conditional_bits",
        "gradient_norm",
        "content_contribution",
        "motion_contribution",
        "tau",
    ]


def test_the_log_names_every_term_of_the_recipe(request_for: Any) -> None:
    request = request_for(max_steps=2, overrides={"train.log_every": 1, "extensions.swap_cycle.start": 1})
    train(request)
    first, second = (json.loads(line) for line in (request.out / "log.jsonl").read_text().splitlines())
    assert list(first) == list(second)
    assert {"content_bits", "swap_cycle_codes", "swap_cycle_content"} <= set(first)
    assert first["content_bits"] > 0
    assert first["swap_cycle_codes"] == 0 < second["swap_cycle_codes"]


def test_resume_without_checkpoint_and_unwritable_folder(request_for: Any, tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="no checkpoint to resume"):
        train(request_for("none", resume=True))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        train(request_for("file"))


def test_a_loss_that_is_not_finite_stops_with_the_remedy(request_for: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    request = request_for(max_steps=4)
    trainer = trainer_of(request)
    trainer.start(resume=False)
    with torch.no_grad():
        trainer.model.decoder.patch_out.bias.fill_(float("nan"))
    before = trainer.model.encoder.project.weight.clone()
    with pytest.raises(BcdBenchError, match="step 0: the loss or its gradient is not finite"):
        take_step(trainer)
    assert torch.equal(before, trainer.model.encoder.project.weight)


def test_ctrl_c_saves_and_can_be_resumed(request_for: Any) -> None:
    import os
    import signal

    request = request_for()
    trainer = trainer_of(request)
    trainer.start(resume=False)
    original = trainer.train_step

    def step_then_signal(step: int) -> dict[str, float]:
        values: dict[str, float] = original(step)
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return values

    trainer.train_step = step_then_signal  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="stopped at step 2 of 8"):
        trainer.run(Limits())
    train(request_for(resume=True))
    assert load_model(request.out / "model.safetensors").card["step"] == 8


def test_plan_trains_nothing(request_for: Any, capsys: pytest.CaptureFixture[str]) -> None:
    request = request_for(plan_only=True)
    train(request)
    text = capsys.readouterr().out
    assert "8 steps of 4 clips = 32 clips" in text
    assert "capacity: 3.0 bits per frame, target 3" in text
    assert not request.out.exists()


def test_occupancy_counts_frames_and_fixes_the_active_patches() -> None:
    clips = BlockClips()
    occupancy = patch_occupancy(clips, 8)
    frames = clips.clips(range(len(clips)))
    expected = [(frames[:, :, 8:16, x : x + 8].max(axis=(2, 3, 4)) > 0).mean() for x in (0, 8, 16)]
    assert occupancy[4:7].tolist() == pytest.approx(expected)
    assert np.flatnonzero(occupancy).tolist() == [4, 5, 6]
    assert np.flatnonzero(patch_occupancy(clips, 16)).tolist() == [0, 1]
    preset = tiny_preset()
    assert needs_patch_occupancy(preset)
    fitted = fit_to_data(preset, occupancy)
    assert fitted.active_patches == (4, 5, 6)
    assert fitted.config.encoder.content_tokens == 3
    whole = tiny_preset(**{"extensions.patch_skipping": None})
    assert not needs_patch_occupancy(whole)
    assert fit_to_data(whole).active_patches is None
    assert fit_to_data(whole).config.encoder.content_tokens == 16


def test_patches_are_kept_by_the_root_of_their_occupancy_and_the_fullest_always() -> None:
    kept = keep_probabilities(torch.tensor([0.0, 0.09, 0.25, 0.64]), 0.4)
    assert kept.tolist() == pytest.approx([0.4, 0.4, 0.5, 1.0])


def test_rarely_lit_patches_are_computed_less_often_until_the_end(
    request_for: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bcd_bench_bcd.training.trainer.SKIP_UNTIL", 0.5)
    assert patch_skipping.SKIP_UNTIL == SKIP_UNTIL == 0.9
    trainer = trainer_of(request_for(overrides={"extensions.patch_skipping.min_keep_prob": 0.2}))
    trainer.start(resume=False)
    assert trainer.keep_probabilities is not None
    assert trainer.keep_probabilities.max() == 1
    assert trainer.keep_probabilities.min() >= 0.2
    computed: list[int] = []
    original = trainer.model.decoder.forward

    def counted(patches: torch.Tensor, *rest: Any) -> torch.Tensor:
        computed.append(patches.shape[2])
        return original(patches, *rest)

    trainer.model.decoder.forward = counted  # type: ignore[method-assign]
    for _ in range(8):
        take_step(trainer)
    assert min(computed[:4]) < 3
    assert computed[4:] == [3] * 4


def test_without_a_lower_probability_all_active_patches_are_computed(request_for: Any) -> None:
    trainer = trainer_of(request_for(overrides={"extensions.patch_skipping.min_keep_prob": 1.0}))
    assert trainer.keep_probabilities is None
    assert trainer.description.active_patches == (4, 5, 6)


def test_weights_carry_the_grid_of_their_content(request_for: Any) -> None:
    request = request_for(max_steps=2)
    train(request)
    model: Any = load_model(request.out / "model.safetensors").model
    assert model.bottleneck is not None
    assert (model.bottleneck.step > 0).all()
    content = model.encode_content(model.values(torch.from_numpy(BlockClips().clips(range(8)))))
    levels = (content - model.bottleneck.center) / model.bottleneck.step
    assert torch.allclose(levels, levels.round(), atol=1e-3)


def test_data_that_nothing_reads_is_refused(tmp_path: Any) -> None:
    request = TrainRequest("sprites-small", {}, tmp_path, False, None, None, "cpu", {"lrs3": tmp_path}, True)
    with pytest.raises(UsageError, match="--data lrs3: suite 'sprites-procedural' accepts no data"):
        data.open_training_clips(resolve_preset("sprites-procedural-small"), request)
