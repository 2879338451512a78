"""Training on latents: stages, resuming, and the same step in one process, in parts, and in two processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bcd_bench.plugin.specs import TrainRequest
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.inference.weights import load_model
from bcd_bench_bcd.latents.cache import LatentClips
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training import plan
from bcd_bench_bcd.training.checkpoint import start_from
from bcd_bench_bcd.training.data import fit_to_data
from bcd_bench_bcd.training.sharding import Batches, check_parts
from bcd_bench_bcd.training.trainer import train
from tests.bcd.latent_toy import make_cache, some_steps, toy_preset, toy_request

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return make_cache(tmp_path / "latents")


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        scale = value.abs().max().clamp_min(1e-6)
        assert (found[name] - value).abs().max() <= 1e-5 * scale, name


def test_parts_of_a_step_give_the_whole_step(cache: Path, tmp_path: Path) -> None:
    whole, parts = (some_steps(cache, tmp_path / name, n) for name, n in (("whole", 1), ("parts", 4)))
    assert_same(parts, whole)
    assert whole["1/bits"] > 0


def test_two_processes_give_the_step_of_one(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    places = [str(ROOT / part) for part in ("", "plugins/bcd", "plugins/sprites", "plugins/faces")]
    processes = []
    for rank in range(2):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*places, os.environ.get("PYTHONPATH", "")]),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "WORLD_SIZE": "2",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
        }
        command = [sys.executable, "-m", "tests.bcd.latent_toy", str(cache), str(out), "2"]
        processes.append(subprocess.Popen(command, env=environment, cwd=ROOT))
    assert [process.wait(timeout=3600) for process in processes] == [0, 0]
    one = some_steps(cache, tmp_path / "one", 1)
    for rank in range(2):
        assert_same(torch.load(out / f"steps-{rank}.pt", weights_only=True), one)


def test_both_stages_by_one_command_and_a_stop_in_the_middle_of_an_epoch(cache: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(toy_request(cache, whole))  # 20 clips: 5 steps an epoch, 5 + 10 in all
    for steps in (3, 7, 11):
        train(toy_request(cache, parts, resume=steps > 3, max_steps=steps))
    train(toy_request(cache, parts, resume=True))
    for stage in ("frames", "video"):
        logs = [(out / stage / "log.jsonl").read_text() for out in (whole, parts)]
        assert logs[0] == logs[1]
        assert len(logs[0].splitlines()) == {"frames": 5, "video": 10}[stage]
    models = [load_model(out / "model.safetensors") for out in (whole, parts)]
    for name, value in models[0].model.state_dict().items():
        assert torch.equal(models[1].model.state_dict()[name], value), name
    assert models[0].model.config.decoder.temporal_blocks == (1,)
    assert json.loads((whole / "video" / "config.json").read_text())["stage"] == "video"
    assert models[0].card["started_from"]["step"] == 5
    taus = [json.loads(line)["tau"] for line in (whole / "video" / "log.jsonl").read_text().splitlines()]
    assert taus == sorted(taus, reverse=True)


def test_the_second_stage_begins_with_what_the_first_ended_with(cache: Path, tmp_path: Path) -> None:
    train(toy_request(cache, tmp_path / "run", max_steps=5))
    weights = tmp_path / "run" / "frames" / "model.safetensors"
    first = load_model(weights)
    described = first.description.model_copy(
        update={"model": first.description.model.model_copy(update={"decoder": toy_preset().model.decoder})}
    )
    later = described.build().eval()
    start_from(weights, later, described, torch.device("cpu"))
    values = torch.randn(2, 3, 4, 4, 4)
    sigma, motion = torch.ones(2), torch.randn(2, 3, 16)
    content, patches = first.model.encode_content(values), first.model.decoder.patchify(values)
    drawn = [model.denoise(patches, sigma, content, motion) for model in (first.model, later)]
    assert torch.equal(*drawn)
    assert sum(p.numel() for p in later.parameters()) > sum(p.numel() for p in first.model.parameters())


def test_weights_carry_the_statistics_and_the_autoencoder_of_their_latents(cache: Path, tmp_path: Path) -> None:
    train(toy_request(cache, tmp_path / "run", max_steps=1))
    loaded = load_model(tmp_path / "run" / "frames" / "model.safetensors")
    assert loaded.description.autoencoder_sha256 == "a" * 64
    latents = torch.randn(1, 2, 4, 4, 4)
    mean, std = torch.tensor([0.0, 0.1, 0.0, 0.0]).view(4, 1, 1), torch.tensor([1.4, 1.5, 1.4, 1.3]).view(4, 1, 1)
    torch.testing.assert_close(loaded.model.values(latents), (latents - mean) / std * 0.5)
    torch.testing.assert_close(loaded.model.latents(loaded.model.values(latents)), latents)


def test_latents_of_another_autoencoder_do_not_continue_a_run(cache: Path, tmp_path: Path) -> None:
    train(toy_request(cache, tmp_path / "run", max_steps=1))
    other = make_cache(tmp_path / "other", sha256="b" * 64)
    with pytest.raises(UsageError, match=r"created with a different model: autoencoder_sha256 was 'a+', is 'b+'"):
        train(toy_request(other, tmp_path / "run", resume=True))
    init = {"train.init": str(tmp_path / "run" / "frames" / "model.safetensors")}
    with pytest.raises(UsageError, match=r"another architecture: autoencoder_sha256 was 'a+', is 'b+'"):
        train(toy_request(other, tmp_path / "new", overrides=init))


def test_a_checkpoint_of_another_stage_is_refused(cache: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(toy_request(cache, out, max_steps=6))
    shutil.copy(out / "frames" / "checkpoint.pt", out / "video" / "checkpoint.pt")
    with pytest.raises(UsageError, match="is a checkpoint of stage 'frames', not of 'video'"):
        train(toy_request(cache, out, resume=True))


def test_latents_of_other_statistics_are_not_resumed(cache: Path, tmp_path: Path) -> None:
    train(toy_request(cache, tmp_path / "run", max_steps=2))
    other = make_cache(tmp_path / "other", mean=0.2)
    with pytest.raises(UsageError, match="was created with a different latents"):
        train(toy_request(other, tmp_path / "run", resume=True))


@pytest.mark.slow
def test_kill_9_in_the_middle_of_an_epoch_loses_nothing(cache: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train(toy_request(cache, whole, overrides={"train.checkpoint_every": 2}))
    code = (
        "import sys, os, signal; from pathlib import Path; import bcd_bench_bcd.training.trainer as t;"
        "from tests.bcd.latent_toy import toy_request; old = t.Trainer.train_step\n"
        "def train_step(self, step):\n"
        "    values = old(self, step)\n"
        "    if self.stage.name == 'video' and step == 6: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return values\n"
        "t.Trainer.train_step = train_step\n"
        "t.train(toy_request(Path(sys.argv[1]), Path(sys.argv[2]), overrides={'train.checkpoint_every': 2}))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(cache), str(killed)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    train(toy_request(cache, killed, resume=True, overrides={"train.checkpoint_every": 2}))
    assert (killed / "video" / "log.jsonl").read_text() == (whole / "video" / "log.jsonl").read_text()
    models = [load_model(out / "model.safetensors").model.state_dict() for out in (whole, killed)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_an_epoch_shows_every_clip_once_to_any_number_of_processes() -> None:
    config = toy_preset().train
    orders = [Batches(20, config, processes, 0) for processes in (1, 2)]
    epoch = [index for step in range(5) for index in orders[0].whole(step)]
    assert sorted(epoch) == list(range(20))
    assert [orders[1].whole(step) for step in range(10)] == [orders[0].whole(step) for step in range(10)]
    assert orders[0].whole(5) != orders[0].whole(0)
    halves = [Batches(20, config, 2, process).parts(3)[0] for process in range(2)]
    whole = Batches(20, config, 1, 0).parts(3)[0]
    assert [*halves[0].indices, *halves[1].indices] == list(whole.indices)
    alone = torch.cat([half.rng().normal(2, 3) for half in halves])
    assert torch.equal(alone, whole.rng().normal(4, 3))


@pytest.mark.parametrize(
    ("overrides", "processes", "line"),
    [
        ({}, 3, "3 processes cannot split a batch of 4 evenly"),
        ({"train__accumulate": 3}, 2, "2 processes with 3 parts each cannot split a batch of 4 evenly"),
        ({"train__order": "random"}, 2, "require random numbers per clip"),
        ({"extensions__standardized_latents": {}}, 2, "extension standardized_latents needs the whole batch at once"),
        ({"extensions__swap_cycle": {}, "train__accumulate": 2}, 1, "extension swap_cycle needs the whole batch"),
    ],
)
def test_steps_that_cannot_be_shared(overrides: dict[str, Any], processes: int, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        check_parts(toy_preset(**overrides), processes)


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            {"model__latent__factor": 4, "model__frame_size": [16, 16]},
            "the downsampling factor of the latents is 8, the preset requires 4",
        ),
        ({"model__channels": 8}, "the number of channels of the latents is 4"),
        ({"model__latent__vae": "taef2"}, 'the autoencoder of the latents is "sd2-vae", the preset requires "taef2"'),
        (
            {"model__frame_size": [64, 64]},
            r"the frame size of the latents is \[32, 32\], the preset requires \[64, 64\]",
        ),
        ({"train__frame_step": 2}, "the frame step of the latents is 1"),
        ({"train__clip_frames": 15}, "no video has 15 frames"),
    ],
)
def test_a_cache_of_something_else_is_refused(cache: Path, overrides: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        LatentClips(cache, toy_preset(**overrides))


def test_clips_come_from_the_right_frames(cache: Path) -> None:
    from safetensors.torch import load_file

    clips = LatentClips(cache, toy_preset())
    assert len(clips) == 20  # two clips of 6 frames in each video of 14
    video = load_file(cache / "shards" / "00001.safetensors")["v10"]
    starts = set()
    for step in range(9):
        found = clips.latents([11], step)[0]
        starts |= {start for start in range(9) if torch.equal(found, video[start : start + 6])}
    assert starts == {6, 7, 8}
    shard = cache / "shards" / "00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(UsageError, match="is truncated or was modified"):
        LatentClips(cache, toy_preset())


def test_the_plan_of_the_papers_preset_agrees_with_hand_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(plan, "matmul_flops", lambda device, precision: 400e12)
    counts = plan.parameters(fit_to_data(resolve_preset("lrs3")))
    block = 4 * 768**2 + 8 * 768**2 + 6 * 768**2  # attention, feed-forward, modulation: 18 of them, 191 M
    assert counts["decoder"] == pytest.approx(18 * block, rel=0.02)
    assert counts["encoder"] - 4096 * 512 == pytest.approx(12 * (4 * 512**2 + 2 * 512 * 2048), rel=0.01)  # 38 M
    train(TrainRequest("lrs3", {}, tmp_path, False, None, None, "cpu", {}, True))
    said = capsys.readouterr().out
    assert "capacity: 320.0 bits per frame, target 160" in said
    assert "368700 steps of 32 clips" in said  # 437 h of 4-second clips, 30 times
    # 25 frames of 8.4 + 2.7 GMAC (spatial, temporal), twice for multiplication and addition
    assert "0.565 TFLOP per clip forward" in said
    assert "161.1 GB for latents" in said
    assert not any(tmp_path.iterdir())
