"""FOMM: every tensor of the published layout loads, and every recorded output of the original is reproduced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from bcd_bench.types.errors import UsageError
from bcd_bench_baselines.common.checkpoints import blank
from bcd_bench_baselines.common.first_order import KeypointDetector
from bcd_bench_baselines.fomm.method import FOMM
from bcd_bench_baselines.fomm.networks import KEYPOINTS, Generator

from .first_order_checks import FRAMES, Loaded, check_batches, check_keypoints, check_mode, load
from .first_order_checks import KEYPOINTS as LIMITS
from .parity import close, reference


@pytest.fixture(scope="module")
def fomm(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(FOMM({}), reference("fomm"), tmp_path_factory.mktemp("fomm"))


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def test_the_networks_have_every_key_of_the_published_file() -> None:
    sections = reference("fomm").manifest["files"]["vox-cpk.pth.tar"]["sections"]
    networks = {"generator": blank(Generator), "kp_detector": blank(lambda: KeypointDetector(KEYPOINTS))}
    for name, network in networks.items():
        keys = sections[name]["keys"]
        assert {key: list(value.shape) for key, value in network.state_dict().items()} == {
            key: spec["shape"] for key, spec in keys.items()
        }
        assert len(keys) == {"generator": 196, "kp_detector": 75}[name]


def test_the_weights_are_those_of_the_reference() -> None:
    found = reference("fomm")
    made = found.checkpoint("vox-cpk.pth.tar")
    for name, state in made.items():
        np.testing.assert_allclose(found.seeding.checksum(state), found.arrays[f"check_{name}"], rtol=1e-9)


def test_keypoints(fomm: Loaded) -> None:
    check_keypoints(fomm)
    unscaled = fomm.target("relative", adapt_scale=False)
    close(unscaled.value, fomm.arrays["kp_norm_rel_noadapt_value"], **LIMITS)


def test_absolute_motion(fomm: Loaded) -> None:
    check_mode(fomm, "absolute")


def test_relative_motion_and_batches(fomm: Loaded) -> None:
    check_batches(fomm, check_mode(fomm, "relative"))


def test_sampling_as_by_old_torch(fomm: Loaded) -> None:
    target = fomm.target("relative", align_corners=True)
    frames = fomm.frames(target[slice(1, 2)])
    close(frames[..., 1::4, 2::4], fomm.arrays["torch12_align_corners_rel_prediction_sub"], **FRAMES)


def test_frames_go_in_and_come_out_as_bytes(fomm: Loaded) -> None:
    fomm.target("relative")
    source, driving = fomm.arrays["source_u8"], fomm.arrays["driving_u8"][:2]
    found = fomm.method.animate(source, driving)
    wanted = np.round(fomm.arrays["rel_prediction_full1"].transpose(1, 2, 0) * 255)
    close(found[1], wanted, most=1, mean=0.01)


def test_another_models_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"gen": {"enc.weight": torch.zeros(2)}}, tmp_path / "lia.pt")
    expected = r"not a checkpoint of FOMM \(entries 'generator' of 196 tensors, 'kp_detector' of 75 tensors\).*but gen"
    with pytest.raises(UsageError, match=expected) as caught:
        FOMM({}).load(tmp_path / "lia.pt", "cpu")
    assert "vox-cpk.pth.tar" in str(caught.value.hint)


def test_mcnets_checkpoint_is_refused(tmp_path: Path) -> None:
    detector = blank(lambda: KeypointDetector(15)).state_dict()
    generator = blank(Generator).state_dict()
    torch.save({"generator": generator, "kp_detector": detector}, tmp_path / "other.pth")
    with pytest.raises(UsageError, match=r"entry 'kp_detector' jacobian.bias is \[60\], expected \[40\]"):
        FOMM({}).load(tmp_path / "other.pth", "cpu")
