"""Autoencoders, the cache of latents made by `prepare`, and transfer by a model of latents."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from bcd_bench.io.video import write_preview
from bcd_bench.plugin.specs import TrainingVideos
from bcd_bench.types.clip import Clip, ClipRef, Generated
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.weights import Description, save_model
from bcd_bench_bcd.latents import encode_shards
from bcd_bench_bcd.latents.autoencoders import open_autoencoder, random_autoencoder, tiny_network
from bcd_bench_bcd.latents.cache import LatentClips, read_index
from bcd_bench_bcd.latents.prepare import Preparation, command, training_videos
from bcd_bench_bcd.paper.config import SamplerConfig
from bcd_bench_bcd.presets.registry import resolve_preset
from bcd_bench_bcd.training.data import fit_to_data
from tests.bcd.latent_toy import toy_preset


def moving_square(index: int, frames: int = 14, side: int = 32) -> Clip:
    """A square of the index's colour that walks; broken where the index is 3."""
    if index == 3:
        raise UsageError("cannot read video v3: it is broken")
    pixels = np.full((frames, side, side, 3), 40, np.uint8)
    for t in range(frames):
        pixels[t, 8:16, (2 * t) % 24 : (2 * t) % 24 + 8] = (40 * index % 256, 200, 90)
    return Clip(pixels, 25.0, f"v{index}")


def video(index: int, **arguments: Any) -> ClipRef:
    source = Generated("tests.bcd.test_latents:moving_square", {"index": index, **arguments})
    return ClipRef(f"v{index}", source, frames=14)


def small_network() -> Any:
    torch.manual_seed(0)
    return random_autoencoder(4, width=8, layers=1, groups=4).network


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small `AutoencoderKL` with random weights, as diffusers writes it."""
    folder = tmp_path_factory.mktemp("vae") / "small"
    small_network().save_pretrained(folder)
    return folder


@pytest.fixture
def use_vae(vae: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    monkeypatch.setenv("BCD_BENCH_VAE", str(vae))
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("bcd_bench_bcd.latents.prepare.SHARD_VIDEOS", 3)
    encode_shards._autoencoder.cache_clear()
    yield vae
    encode_shards._autoencoder.cache_clear()


def preparation(out: Path, count: int = 8) -> Preparation:
    return Preparation(toy_preset(), "toy", TrainingVideos(tuple(video(n) for n in range(count)), 25.0), out, "cpu")


# ---- autoencoders --------------------------------------------------------------------------------------------------
def test_the_folder_of_a_diffusers_autoencoder(use_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = open_autoencoder(toy_preset().model)
    frames = torch.from_numpy(moving_square(1, frames=2).frames)
    latents = made.encode(frames)
    images = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        expected = small_network().eval().encode(images).latent_dist.mean
    assert torch.allclose(latents, expected, atol=1e-5)
    assert made.decode(latents).shape == (2, 3, 32, 32)
    with pytest.raises(UsageError, match="is not the one the model was trained with"):
        open_autoencoder(toy_preset().model, "0" * 64)
    with pytest.raises(UsageError, match="autoencoder sd2-vae: its number of channels is 4, the model requires 8"):
        open_autoencoder(toy_preset(model__channels=8).model)
    (tmp_path / "empty").mkdir()
    monkeypatch.setenv("BCD_BENCH_VAE", str(tmp_path / "empty"))
    with pytest.raises(MissingAssetError, match="is empty"):
        open_autoencoder(toy_preset().model)
    (tmp_path / "empty" / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    with pytest.raises(UsageError, match="contains a UNet2DModel"):
        open_autoencoder(toy_preset().model)


def test_a_tiny_network_is_read_off_its_weights() -> None:
    torch.manual_seed(0)
    names = {
        "0.weight": (8, 3, 3, 3),
        "0.bias": (8,),
        "1.weight": (8, 8, 3, 3),
        "2.weight": (4, 8, 3, 3),
        "2.bias": (4,),
    }
    state = {name: torch.randn(shape) for name, shape in names.items()}
    assert tiny_network(state, decoder=False)(torch.zeros(1, 3, 16, 16)).shape == (1, 4, 8, 8)
    back = {"1.weight": (8, 4, 3, 3), "1.bias": (8,), "4.weight": (3, 8, 3, 3), "4.bias": (3,)}
    state = {name: torch.randn(shape) for name, shape in back.items()}
    network = tiny_network(state, decoder=True)
    assert network(torch.zeros(1, 4, 8, 8)).shape == (1, 3, 16, 16)
    assert torch.allclose(network[0](torch.tensor([1e6, -1e6, 0.03])), torch.tensor([3.0, -3.0, 0.03]), atol=1e-4)


def test_the_tiny_autoencoder_keeps_a_picture() -> None:
    preset = resolve_preset("lrs3-tiny")
    try:
        made = open_autoencoder(preset.model)
    except MissingAssetError as error:
        pytest.skip(str(error))
    rows = torch.linspace(0, 255, 64)
    frame = torch.stack([rows[:, None].expand(64, 64), rows.expand(64, 64), 255 - rows.expand(64, 64)], -1)
    latents = made.encode(frame[None].to(torch.uint8))
    assert latents.shape == (1, 32, 8, 8)
    error = (made.decode(latents)[0].permute(1, 2, 0) - (frame / 127.5 - 1)).square().mean()
    assert 10 * torch.log10(4 / error) > 22  # dB; a network put together wrongly stays below 15


# ---- prepare -------------------------------------------------------------------------------------------------------
def test_prepare_encodes_lists_what_is_broken_and_measures(use_vae: Path, tmp_path: Path, capsys: Any) -> None:
    index = preparation(tmp_path / "cache").run()
    assert index is not None
    assert [[v.id for v in shard.videos] for shard in index.shards] == [["v0", "v1", "v2"], ["v4", "v5"], ["v6", "v7"]]
    assert "; 1 left out\n  v3: cannot read video v3: it is broken\n" in capsys.readouterr().out
    stored = {}
    for shard in index.shards:
        stored |= load_file(tmp_path / "cache" / "shards" / shard.file)
    expected = open_autoencoder(toy_preset().model).encode(torch.from_numpy(moving_square(5).frames))
    assert torch.allclose(stored["v5"].float(), expected, atol=0.02, rtol=0.02)
    values = torch.cat([latents.float() for latents in stored.values()]).transpose(0, 1).flatten(1)
    assert torch.allclose(torch.tensor(index.latent.mean), values.mean(1), atol=1e-4)
    assert torch.allclose(torch.tensor(index.latent.std), values.std(1, correction=0), rtol=1e-3)
    assert read_index(tmp_path / "cache") == index
    clips = LatentClips(tmp_path / "cache", toy_preset())
    assert len(clips) == 14
    model = fit_to_data(toy_preset()).build()
    model.set_latent_statistics(clips.latent.mean, clips.latent.std)
    standard = model.values(torch.stack(list(stored.values())))
    assert standard.std((0, 1, 3, 4)).tolist() == pytest.approx([0.5] * 4, rel=0.02)
    assert torch.allclose(model.latents(standard), torch.stack(list(stored.values())).float(), atol=1e-4)


def test_prepare_goes_on_after_a_full_disk(use_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = preparation(tmp_path / "whole").run()
    out, original = tmp_path / "cache", encode_shards.write_bytes_atomic

    def full(path: Path, data: bytes) -> None:
        if path.name.startswith("00001"):
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, data)

    monkeypatch.setattr(encode_shards, "write_bytes_atomic", full)
    with pytest.raises(UsageError, match="No space left on device\\); 1 of 3 shards of this call are finished"):
        preparation(out).run()
    with pytest.raises(UsageError, match="is not finished"):
        read_index(out)
    assert sorted(path.name for path in (out / "shards").iterdir()) == ["00000.json", "00000.safetensors"]
    kept = (out / "shards" / "00000.safetensors").stat().st_mtime_ns
    monkeypatch.setattr(encode_shards, "write_bytes_atomic", original)
    assert preparation(out).run() == whole
    assert (out / "shards" / "00000.safetensors").stat().st_mtime_ns == kept
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100}))
    with pytest.raises(UsageError, match="100 B are free"):
        preparation(tmp_path / "other").run()


def test_verify_mends_a_damaged_shard_and_changed_videos_are_encoded_anew(use_vae: Path, tmp_path: Path) -> None:
    out = tmp_path / "cache"
    index = preparation(out).run()
    shard = out / "shards" / "00002.safetensors"
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.write_bytes(damaged)
    assert preparation(out).run(verify=True) == index
    changed = [video(n) for n in range(7)] + [video(7, frames=10)]
    again = Preparation(toy_preset(), "toy", TrainingVideos(tuple(changed), 25.0), out, "cpu").run()
    assert again is not None
    assert index is not None
    assert again.shards[:2] == index.shards[:2]
    assert [v.frames for v in again.shards[2].videos] == [14, 10]


def test_processes_share_the_shards(use_vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = preparation(tmp_path / "whole").run()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert preparation(tmp_path / "cache").run() is None
    monkeypatch.setenv("RANK", "1")
    assert preparation(tmp_path / "cache").run() == whole


def test_the_verb_on_a_tree_of_lrs3(use_vae: Path, tmp_path: Path, capsys: Any) -> None:
    for split, name in (("trainval", "a"), ("trainval", "b"), ("pretrain", "c"), ("test", "d")):
        (tmp_path / "lrs3" / split / name).mkdir(parents=True)
        write_preview(tmp_path / "lrs3" / split / name / "00001.mp4", moving_square(5, frames=50))
    (tmp_path / "lrs3" / "trainval" / "a" / "00002.mp4").write_bytes(b"no video")
    settings = ["model.frame_size=[32,32]", "model.channels=4", 'model.latent.vae="sd2-vae"', "model.decoder.patch=2"]
    data = [f"lrs3={tmp_path / 'lrs3'}"]
    command("bcd", preset="lrs3-tiny", data=data, settings=settings, out=tmp_path / "cache")
    said = capsys.readouterr().out
    index = read_index(tmp_path / "cache")
    [line] = index.unusable
    assert line.startswith("trainval/a/00002: left out: cannot be decoded")
    assert f"note: {line}\n" in said
    assert f"; 1 left out\n  {line}\n" in said
    names = [(v.id, v.frames) for shard in index.shards for v in shard.videos]
    assert names == [("trainval-a-00001", 25), ("trainval-b-00001", 25), ("pretrain-c-00001", 25)]
    assert (index.fps, index.suite, index.frame_step) == (12.5, "lrs3-cross", 2)
    with pytest.raises(UsageError, match="uses pixels"):
        command("bcd", preset="sprites")
    with pytest.raises(UsageError, match="needs data 'lrs3'"):
        command("bcd", preset="lrs3-tiny", settings=settings)


def test_a_split_that_is_drawn_is_offered_clip_by_clip() -> None:
    from bcd_bench.plugin.loading import load_factory
    from bcd_bench.plugin.registry import load_registry

    spec = load_registry().get("suites", "sprites-procedural")
    found = training_videos(spec, {})
    split = load_factory(spec.training)({})
    assert len(found.videos) == len(split)
    assert found.videos[3].frames == 8
    assert np.array_equal(found.videos[3].load().frames, split.clips([3])[0])
    assert found.videos[3].describe() != found.videos[4].describe()
    with pytest.raises(UsageError, match="accepts no data"):
        training_videos(spec, {"lrs3": Path()})


# ---- transfer ------------------------------------------------------------------------------------------------------
def test_a_model_of_latents_transfers_frames_of_any_size(use_vae: Path, tmp_path: Path) -> None:
    fitted = fit_to_data(toy_preset())
    torch.manual_seed(1)
    model = fitted.build()
    model.set_latent_statistics((0.1,) * 4, (0.9,) * 4)
    description = Description(
        model=fitted.config,
        extensions=fitted.preset.extensions,
        inference=fitted.preset.inference,
        sampler=SamplerConfig(name="euler", steps=2, guidance=1.0),
        autoencoder_sha256=open_autoencoder(fitted.config).sha256,
    )
    save_model(tmp_path / "m.safetensors", model, description, {})
    method = BCDMethod({})
    method.load(tmp_path / "m.safetensors", "cpu")
    refs = [video(1, frames=3, side=64), video(2, frames=5, side=64)]
    pairs = [Pair("a", refs[0], refs[1]), Pair("b", refs[1], refs[1])]
    together = list(method.transfer(pairs, seed=0))
    alone = next(iter(method.transfer(pairs[:1], seed=0)))
    assert isinstance(together[0], Clip)
    assert isinstance(alone, Clip)
    assert together[0].frames.shape == (5, 64, 64, 3)
    assert np.abs(together[0].frames.astype(int) - alone.frames).max() <= 1
    assert np.asarray(together[0].info["motion_codes"]).shape == (5, 4)  # type: ignore[index]
    other = description.model_copy(update={"autoencoder_sha256": "0" * 64})
    save_model(tmp_path / "other.safetensors", model, other, {})
    with pytest.raises(UsageError, match="is not the one the model was trained with"):
        BCDMethod({}).load(tmp_path / "other.safetensors", "cpu")
