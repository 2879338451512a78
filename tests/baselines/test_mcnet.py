"""MCNET: every tensor of the published layout loads, and every recorded output of the original is reproduced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_baselines.common.checkpoints import blank, load_published
from bcd_bench_baselines.common.first_order import KeypointDetector
from bcd_bench_baselines.common.random_weights import fill_seeded
from bcd_bench_baselines.mcnet.memory import SCALES, MemoryUnit, Trace, attend
from bcd_bench_baselines.mcnet.method import MCNET
from bcd_bench_baselines.mcnet.networks import KEYPOINTS, Generator

from .first_order_checks import FRAMES, Loaded, check_batches, check_keypoints, check_mode, load
from .parity import close, reference

STATISTICS = {"most": 1e-4, "mean": 1e-5}


@pytest.fixture(scope="module")
def mcnet(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(MCNET({}), reference("mcnet"), tmp_path_factory.mktemp("mcnet"))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def statistics(values: Tensor) -> Tensor:
    """[1, C, h, w] or [1, N, C] -> mean and population standard deviation of every channel, [2, C]."""
    rows = values[0].flatten(1) if values.ndim == 4 else values[0].T
    return torch.stack([rows.mean(1), rows.std(1, correction=0)])


def test_the_networks_have_every_key_of_the_published_file() -> None:
    [published] = reference("mcnet").manifest["files"].values()
    networks = {"generator": blank(Generator), "kp_detector": blank(lambda: KeypointDetector(KEYPOINTS))}
    for name, network in networks.items():
        keys = published["sections"][name]["keys"]
        assert {key: list(value.shape) for key, value in network.state_dict().items()} == {
            key: spec["shape"] for key, spec in keys.items()
        }
        assert len(keys) == {"generator": 247, "kp_detector": 75}[name]


def test_keypoints(mcnet: Loaded) -> None:
    check_keypoints(mcnet)


@pytest.mark.slow
def test_absolute_motion(mcnet: Loaded) -> None:
    check_mode(mcnet, "absolute", corners=True)


@pytest.mark.slow
def test_relative_motion_and_batches(mcnet: Loaded) -> None:
    check_batches(mcnet, check_mode(mcnet, "relative", corners=True))


def test_the_memory_unit_and_its_noise(mcnet: Loaded) -> None:
    """Frame 1 of the relative run, with all that the unit computes at every scale; then with the recorded noise."""
    arrays, target = mcnet.arrays, mcnet.target("relative")[slice(1, 2)]
    encoded = mcnet.method.encode(mcnet.image, mcnet.source)
    generator, motion, levels = mcnet.method.generator, mcnet.motion(target), encoded[2:6]
    positions = mcnet.source.value
    traces: list[Trace] = []
    for width, level in zip(SCALES, (levels[3], levels[2], levels[1]), strict=True):
        x = generator.warped(level, motion)
        traces.append(found := generator.mbUnit.trace(x, positions))
        parts = {
            "feat": found.feat,
            "memory": found.memory,
            "key": found.key,
            "value": found.value,
            "residual": attend(found.query, found.key, found.value),
            "after": generator.mbUnit.compensate(x, found),
        }
        for name, values in parts.items():
            close(statistics(values), arrays[f"rel1_mb{width}_{name}_stats"], **STATISTICS)
    close(statistics(generator.warped(levels[3], motion)), arrays["rel1_warped32_stats"], **STATISTICS)
    close(torch.cat([found.style for found in traces]), arrays["rel1_style_code"], **STATISTICS)
    close(torch.cat([found.shares for found in traces]), arrays["rel1_dynconv_attention"], **STATISTICS)

    strength = generator.mbUnit.styleconv.weight
    strength.fill_(float(arrays["noise_strength"]))
    try:
        noise = [one[None] for one in torch.from_numpy(arrays["noise_maps"])]
        frames = generator.decode(mcnet.image, levels, positions, motion, noise)
    finally:
        strength.fill_(0)
    close(frames[..., 1::4, 2::4], arrays["rel1_prediction_with_noise_sub"], **FRAMES)


def test_the_prefix_of_the_published_file_may_be_absent(tmp_path: Path) -> None:
    unit = blank(lambda: MemoryUnit(15))
    fill_seeded({"unit": unit}, 1)
    method = MCNET({})
    method.generator, method.detector = unit, blank(lambda: KeypointDetector(2))
    fill_seeded({"detector": method.detector}, 1)
    for prefix in ("", "module."):
        states = {
            name: {prefix + key: value for key, value in module.state_dict().items()}
            for name, module in method.modules().items()
        }
        torch.save(states, tmp_path / "file.pth")
        load_published(method.modules(), tmp_path / "file.pth", model="MCNET")


def test_fomms_checkpoint_is_refused(tmp_path: Path) -> None:
    detector = blank(lambda: KeypointDetector(10)).state_dict()
    torch.save({"generator": {"first.conv.weight": torch.zeros(64, 3, 7, 7)}, "kp_detector": detector}, tmp_path / "f")
    with pytest.raises(UsageError, match=r"checkpoint of MCNET.*entry 'generator' 246 of 247 tensors are missing"):
        MCNET({}).load(tmp_path / "f", "cpu")


def test_noise_is_off_or_fixed_by_a_seed() -> None:
    plain, one, same, other = (MCNET({"noise_seed": seed}) for seed in (None, 3, 3, 4))
    for method in (plain, one, same, other):
        method.device = torch.device("cpu")
    assert plain.noise() == ()
    assert [tuple(part.shape) for part in one.noise()] == [(1, 1, 32, 32)] * 3
    np.testing.assert_array_equal(torch.cat(one.noise()), torch.cat(same.noise()))
    assert not torch.equal(one.noise()[0], other.noise()[0])
