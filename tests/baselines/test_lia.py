"""LIA: the published layout, the original's outputs from seeded weights, and the method around the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import UsageError
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.common.checkpoints import blank, load_published
from bcd_bench_baselines.lia.method import LIAMethod, to_signed, to_uint8
from bcd_bench_baselines.lia.network import LIA, Level, ToFlow
from tests.baselines.parity import Reference, close, reference
from tests.baselines.published import statistics, write_published

RECORDED = {"rel": 1, "abs": 2}
"""The frame whose flows and whole picture were recorded, by mode."""


@pytest.fixture(scope="module")
def parity() -> Reference:
    return reference("lia")


@pytest.fixture(scope="module")
def network(parity: Reference, tmp_path_factory: pytest.TempPathFactory) -> LIA:
    """Loaded from a file as published: its one entry, among others."""
    path = write_published(parity, "vox.pt", tmp_path_factory.mktemp("lia") / "vox.pt")
    network = blank(LIA)
    load_published({"gen": network}, path, model="LIA")
    path.unlink()
    return network


@pytest.fixture(scope="module")
def motion(parity: Reference, network: LIA) -> Tensor:
    """The driving frames' magnitudes, a frame at a time as the original computes them."""
    with torch.inference_mode():
        return torch.cat([network.alphas(to_signed(frame[None])) for frame in parity.arrays["driving_u8"]])


def test_the_published_layout_is_ours(parity: Reference) -> None:
    keys = parity.manifest["files"]["vox.pt"]["sections"]["gen"]["keys"]
    assert {key: list(value.shape) for key, value in blank(LIA).state_dict().items()} == {
        key: entry["shape"] for key, entry in keys.items()
    }


@torch.inference_mode()
def test_encoder_and_directions_are_the_originals(parity: Reference, network: LIA, motion: Tensor) -> None:
    # Rounding differs by processor: a mean of up to 4.5e-6 was seen.
    source = network.encode_source(to_signed(parity.arrays["source_u8"][None]))
    close(source.latent, parity.arrays["source_latent"], most=2e-5, mean=1e-5)
    close(source.alpha, parity.arrays["source_alpha"], most=2e-5, mean=1e-5)
    close(motion, parity.arrays["driving_alpha"], most=2e-5, mean=1e-5)
    close(network.dec.direction.basis(), parity.arrays["direction_q"], most=2e-5, mean=1e-5)
    for name, features in zip(("0_8", "1_16", "2_32", "3_64", "4_128", "5_256"), source.maps, strict=True):
        close(statistics(features), parity.arrays[f"feat{name}_stats"], most=1e-4, mean=1e-5)
    together = network.alphas(to_signed(parity.arrays["driving_u8"]))
    close(together, motion.numpy(), most=5e-5, mean=5e-5)


@torch.inference_mode()
@pytest.mark.parametrize("mode", ["rel", "abs"])
def test_frames_and_flows_are_the_originals(parity: Reference, network: LIA, motion: Tensor, mode: str) -> None:
    source = network.encode_source(to_signed(parity.arrays["source_u8"][None]))
    basis = network.dec.direction.basis()
    latents = network.latents(source, motion, basis, motion[:1] if mode == "rel" else None)
    close(latents, parity.arrays[f"{mode}_latent"], most=2e-5, mean=3e-6)
    levels: list[Level] = []
    hooks = [flow.register_forward_hook(lambda _m, _i, out: levels.append(out)) for flow in network.dec.to_flows]
    pictures = network.dec(latents, source.maps)
    for hook in hooks:
        hook.remove()
    frame = RECORDED[mode]
    for level in levels:
        side = level.raw.shape[-1]
        step = max(1, side // 32)
        raw = level.raw[frame : frame + 1, :, ::step, ::step]
        close(raw, parity.arrays[f"{mode}_flow{side}_sub"], most=5e-5, mean=1e-5)
        moved = statistics(level.warped[frame : frame + 1])
        close(moved, parity.arrays[f"{mode}_featwarp{side}_stats"], most=1e-4, mean=1e-5)
    close(pictures[:, :, 1::4, 2::4], parity.arrays[f"{mode}_prediction_sub"], most=5e-4, mean=1e-5)
    close(pictures[frame], parity.arrays[f"{mode}_prediction_full{frame}"], most=5e-4, mean=1e-5)
    extremes = [pictures.clamp(-1, 1).min(), pictures.clamp(-1, 1).max()]
    close(torch.stack(extremes), parity.arrays[f"{mode}_video_minmax"], most=5e-4, mean=5e-4)
    alone = network.dec(latents[frame : frame + 1], source.maps)
    close(alone[0], pictures[frame].numpy(), most=5e-4, mean=1e-5)
    if mode == "rel":
        shown = pictures.clamp(-1, 1)  # the demonstration's conversion, which is not ours: see `to_uint8`
        stretched = ((shown[1] - shown.min()) / (shown.max() - shown.min()) * 255).floor()[:, 1::4, 2::4]
        close(stretched.permute(1, 2, 0), parity.arrays["rel_demo_uint8_frame1_sub"], most=1, mean=0.1)
        levels_u8 = to_uint8(pictures[1:2])[0, 1::4, 2::4]
        close(levels_u8, parity.arrays["rel_eval_uint8_frame1_sub"].astype(float), most=1, mean=0.1)


def test_the_encoder_and_a_flow_can_be_compiled_whole() -> None:
    """Nothing in them keeps a compiler from making one program of each. (The encoder is traced without numbers.)"""
    with torch.inference_mode():
        with torch.device("meta"):
            network, images = LIA(), torch.empty(2, 3, 256, 256)
        assert torch.compile(network.alphas, backend="eager", fullgraph=True)(images).shape == (2, 20)
        torch.manual_seed(3)
        flow, latent, source = ToFlow(8), torch.randn(2, 512), torch.randn(1, 8, 6, 6)
        given = torch.randn(2, 8, 6, 6), latent, source, torch.randn(2, 3, 3, 3)
        level = torch.compile(flow, backend="eager", fullgraph=True)(*given)
        torch.testing.assert_close(level.features, flow(*given).features)
        with torch.autocast("cpu", torch.bfloat16):  # positions stay in float32
            torch.testing.assert_close(flow(*given).raw, level.raw)


def test_another_file_is_refused_by_name(tmp_path: Path) -> None:
    torch.save({"generator": {"first.weight": torch.zeros(3)}}, tmp_path / "vox.pt")
    method = LIAMethod({})
    with pytest.raises(UsageError, match=r"a checkpoint of LIA \(entries 'gen' of 185 tensors\)"):
        method.load(tmp_path / "vox.pt", "cpu")


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="lia: --set mode"):
        LIAMethod({"mode": "sideways"})


class Held:
    """A clip in memory, as a reference's source."""

    def __init__(self, frames: np.ndarray) -> None:
        self.frames = frames

    def load(self) -> Clip:
        return Clip(self.frames, 25.0, "held")

    def describe(self) -> dict[str, str]:
        return {"kind": "held"}


def smooth(seed: int, count: int, side: int = 64) -> np.ndarray:
    """Frames without edges, drifting a little."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    waves = rng.uniform(1, 4, (3, 3))
    frames = [[np.sin(2 * np.pi * (a * x + b * y + c + 0.05 * t)) for a, b, c in waves] for t in range(count)]
    return (127.5 + 100 * np.moveaxis(np.array(frames), 1, -1)).astype(np.uint8)


@pytest.fixture(scope="module")
def method() -> LIAMethod:
    method = LIAMethod({"seeded": 3, "batch_frames": 2})
    method.load(None, "cpu")
    return method


def test_one_frame_a_driving_frame_in_its_size(method: LIAMethod) -> None:
    pair = Pair("p", ClipRef("c", Held(smooth(1, 2))), ClipRef("m", Held(smooth(2, 3))))
    [clip] = method.transfer([pair], seed=0)
    assert isinstance(clip, Clip)
    assert clip.frames.shape == (3, 64, 64, 3)
    assert clip.fps == 25
    assert clip.frames.std() > 5
    alone = method.animate(smooth(1, 1)[0], smooth(2, 3)[[0, 2]])[1]
    assert np.abs(alone.astype(int) - clip.frames[2]).max() <= 1  # nor does it matter what else is in a batch


def test_a_driver_that_begins_as_the_source_makes_both_modes_one(method: LIAMethod) -> None:
    clip = smooth(4, 2)
    relative = method.animate(clip[0], clip)
    absolute = LIAMethod({"seeded": 3, "mode": "absolute"})
    absolute.device, absolute.network, absolute.basis = method.device, method.network, method.basis
    absolute._alphas, absolute._synthesise = method._alphas, method._synthesise
    assert np.abs(absolute.animate(clip[0], clip).astype(int) - relative).max() <= 1


def test_only_images_are_computed_in_bfloat16(method: LIAMethod) -> None:
    seen: dict[str, torch.dtype | None] = {}

    def noting(name: str, result: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def noted(*values: Any) -> Tensor:
            seen[name] = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
            return result(*values)

        return noted

    rough = LIAMethod({"seeded": 3, "batch_frames": 1, "dtype": "bfloat16"})
    rough.device, rough.network, rough.basis = method.device, method.network, method.basis
    rough._alphas = noting("pose", method._alphas)
    rough._synthesise = noting("images", lambda latents, maps: latents.new_zeros(len(latents), 3, 256, 256))
    rough.animate(smooth(1, 1)[0], smooth(2, 2))
    assert seen == {"pose": None, "images": torch.bfloat16}


def test_in_bfloat16_pictures_are_near(method: LIAMethod) -> None:
    pair = Pair("p", ClipRef("c", Held(smooth(1, 1))), ClipRef("m", Held(smooth(2, 1))))
    rough = LIAMethod({"seeded": 3, "batch_frames": 1, "dtype": "bfloat16"})
    rough.device, rough.network, rough.basis = method.device, method.network, method.basis
    rough._alphas, rough._synthesise = method._alphas, method._synthesise
    [exact], [near] = (one.transfer([pair], seed=0) for one in (method, rough))
    assert isinstance(exact, Clip)
    assert isinstance(near, Clip)
    assert 0 < np.abs(exact.frames.astype(int) - near.frames).mean() < 8
