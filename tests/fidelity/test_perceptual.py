"""lpips and st-lpips: the formula by hand, other people's code, missing files, and rows for outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import load_registry
from bcd_bench.testing.synthetic import practice_pairs
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import MissingAssetError, MissingDependencyError, UsageError
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity import perceptual_weights
from bcd_bench_fidelity.perceptual import LPIPS, STLPIPS
from bcd_bench_fidelity.perceptual_network import CHANNELS, SCALE, SHIFT, Blur, PerceptualDistance, lpips_network
from bcd_bench_fidelity.perceptual_weights import ST_LPIPS_WEIGHTS, lpips_heads
from tests.fidelity import references
from tests.fidelity.make_golden import PERCEPTUAL
from tests.fidelity.seeded import pictures, seeded_alexnet, seeded_heads

needs_weights = pytest.mark.skipif(
    AssetStore(load_registry()).status_of(ST_LPIPS_WEIGHTS.name).state != "ok", reason=f"no {ST_LPIPS_WEIGHTS.filename}"
)


class Widened(nn.Module):
    """The first two channels, followed by zeros."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, :2], x.new_zeros(len(x), self.channels - 2, *x.shape[2:])], 1)


def test_the_formula_by_hand() -> None:
    """Features (3, 4) and (1, 0) are the directions (0.6, 0.8) and (1, 0): their squared difference is (0.16, 0.64)."""
    network = PerceptualDistance([nn.Sequential(Widened(channels)) for channels in CHANNELS])
    for index, head in enumerate(network.heads):
        assert isinstance(head, nn.Conv2d)
        head.weight.data = torch.zeros(1, CHANNELS[index], 1, 1)
        head.weight.data[0, :2, 0, 0] = torch.tensor([index + 1.0, 10.0])
    shift, scale = torch.tensor(SHIFT)[:, None, None], torch.tensor(SCALE)[:, None, None]

    def picture(*values: tuple[float, float]) -> Tensor:
        """A picture of one row whose pixels have these values in the first two channels, once they are scaled."""
        channels = torch.tensor([[a, b, 0.0] for a, b in values]).T[:, None]
        return (channels * scale + shift)[None]

    with torch.no_grad():
        one = network(picture((3, 4)), picture((1, 0)))
        mean = network(picture((3, 4), (2, 0)), picture((1, 0), (5, 0)))
    expected = 0.16 * (1 + 2 + 3 + 4 + 5) + 5 * 0.64 * 10
    assert one.item() == pytest.approx(expected, rel=1e-5)
    assert mean.item() == pytest.approx(expected / 2, rel=1e-5), "the mean over positions; lengths do not matter"


def test_blur_is_binomial_with_mirrored_borders() -> None:
    """Position 1 is seen at its place and mirrored at -1, both times in the middle of the filter; position 2 three
    times at its edge."""
    point = torch.zeros(1, 1, 6, 6)
    point[0, 0, 1, 2] = 16.0
    rows, columns = torch.tensor([2.0, 2, 0, 0]), torch.tensor([1.0, 1, 1, 0])
    assert torch.equal(Blur(1)(point)[0, 0], torch.outer(rows, columns))


# other people's code --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored() -> Any:
    with np.load(PERCEPTUAL) as data:
        return dict(data)


@pytest.fixture(scope="module")
def two() -> tuple[Any, Any]:
    one = pictures(2, 96, 80)
    return one, references.changed(one)


def seeded_lpips() -> LPIPS:
    metric = LPIPS()
    metric._network, metric._device = lpips_network(seeded_alexnet(), seeded_heads()), torch.device("cpu")
    return metric


@pytest.fixture(scope="module")
def st_lpips() -> STLPIPS:
    metric = STLPIPS()
    metric.load("cpu")
    return metric


def test_lpips_is_that_of_the_package(two: Any, stored: Any) -> None:
    found = seeded_lpips().distances(*two)
    assert found == pytest.approx(stored["lpips"], abs=1e-4, rel=1e-4)
    assert stored["lpips"].min() > 0.05  # else anything would pass


@needs_weights
def test_st_lpips_is_that_of_the_package(two: Any, stored: Any, st_lpips: STLPIPS) -> None:
    found = st_lpips.distances(*two)
    assert found == pytest.approx(stored["st_lpips"], abs=1e-4, rel=1e-4)
    assert stored["st_lpips"].min() > 0.02


def test_lpips_against_the_installed_package(two: Any) -> None:
    try:
        heads = torch.load(lpips_heads(), map_location="cpu", weights_only=True)
        expected = references.lpips_distances(seeded_alexnet(), heads, *two)
    except (ImportError, MissingDependencyError) as error:
        pytest.skip(f"lpips is not installed (extra 'parity'): {error}")
    metric = LPIPS()
    metric._network, metric._device = lpips_network(seeded_alexnet(), heads), torch.device("cpu")
    assert metric.distances(*two) == pytest.approx(expected, abs=1e-4, rel=1e-4)


@needs_weights
def test_st_lpips_against_the_installed_package(st_lpips: STLPIPS) -> None:
    one = pictures(1, 67, 101, seed=3)
    try:
        expected = references.st_lpips_distances(one, references.changed(one))
    except ImportError as error:
        pytest.skip(f"stlpips_pytorch is not installed (extra 'parity'): {error}")
    assert st_lpips.distances(one, references.changed(one)) == pytest.approx(expected, abs=1e-4, rel=1e-4)


@needs_weights
def test_st_lpips_tolerates_a_shift_of_one_pixel(st_lpips: STLPIPS) -> None:
    one = pictures(1, 96, 80, seed=5)
    shifted = st_lpips.distances(one[:, :, :-1], one[:, :, 1:])
    assert shifted[0] < st_lpips.distances(one, references.changed(one))[0] / 5


# rows -----------------------------------------------------------------------------------------------------------------


def item(output: Any, target: Any) -> Scored:
    practice = practice_pairs(1)[0]
    stored_target = None if target is None else ClipRef("t", _InMemory(target))
    return Scored(replace(practice, target=stored_target), Clip(output, 25.0), {})


class _InMemory:
    def __init__(self, frames: Any) -> None:
        self.frames = frames

    def load(self) -> Clip:
        return Clip(self.frames, 25.0)

    def describe(self) -> dict[str, Any]:
        return {"kind": "in memory"}


def test_the_value_is_the_mean_over_frames_and_frames_do_not_matter_to_each_other(two: Any) -> None:
    one, other = two
    metric = seeded_lpips()
    rows = metric.score([item(one, other), item(one[:1], other[:1]), item(one[1:], other[1:]), item(one, one)])
    together, first, second, same = (row["lpips"] for row in rows if isinstance(row, dict))
    assert together == (first + second) / 2
    assert first != second
    assert same == 0


def test_outputs_that_cannot_be_compared_fail_with_the_reason(two: Any) -> None:
    one, other = two
    rows = seeded_lpips().score([item(one, None), item(one, other[:1]), item(one[:, :31], other[:, :31])])
    assert rows == [
        Failed("the suite has no target for this pair"),
        Failed("the output has shape [2, 96, 80, 3], its target [1, 96, 80, 3]"),
        Failed("frames of 31 x 80 are smaller than 32 x 32"),
    ]


# weights --------------------------------------------------------------------------------------------------------------


def test_missing_files_are_named_and_nothing_is_computed(
    tmp_path: Path, bcd_bench_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path))
    with pytest.raises(MissingAssetError, match="asset 'alexnet': not found") as caught:
        LPIPS().load("cpu")
    assert caught.value.hint == "bcd-bench assets fetch alexnet"
    with pytest.raises(MissingAssetError, match="asset 'st-lpips': not found") as caught:
        STLPIPS().load("cpu")
    assert "stlpips_pytorch==0.0.2" in str(caught.value.hint)


def test_the_layer_weights_come_from_the_package_without_running_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perceptual_weights, "_LPIPS_PACKAGE", "lpips_of_nobody")
    with pytest.raises(MissingDependencyError, match="layer weights of LPIPS are not installed") as missing:
        lpips_heads()
    assert missing.value.hint == "pip install --no-deps lpips==0.1.4"
    package = tmp_path / "lpips_of_nobody"
    (package / "weights" / "v0.1").mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('its code must not run')")
    (package / "weights" / "v0.1" / "alex.pth").write_bytes(b"other weights")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingAssetError, match=r"missing or modified and were rejected \(expected sha256 df73285e"):
        lpips_heads()


def test_other_weights_are_refused() -> None:
    backbone = seeded_alexnet()
    with pytest.raises(UsageError, match="not those of the perceptual metric"):
        lpips_network({**backbone, "features.3.weight": backbone["features.6.weight"]}, seeded_heads())
    with pytest.raises(UsageError, match="lin0"):
        lpips_network(backbone, {})
