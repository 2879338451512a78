"""fvd: windows of frames, I3D against other people's code, the distance by hand, and missing weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import MissingAssetError, UsageError
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity.frechet_metrics import FVD
from bcd_bench_fidelity.i3d import i3d_network
from bcd_bench_fidelity.video_features import I3DFeatures, windows
from tests.fidelity import references
from tests.fidelity.conftest import MakeItem
from tests.fidelity.make_golden import LEAST, PERCEPTUAL
from tests.fidelity.seeded import pictures, seeded_i3d

EXTRACTOR = "i3d-kinetics400"


@pytest.fixture(scope="module")
def weights() -> Mapping[str, Any]:
    return seeded_i3d()


@pytest.fixture(scope="module")
def i3d(weights: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> I3DFeatures:
    path = tmp_path_factory.mktemp("weights") / "i3d_pretrained_400.pt"
    torch.save(weights, path)
    extractor = I3DFeatures()
    extractor.load_from(path)
    return extractor


def test_windows_have_16_frames_and_do_not_overlap() -> None:
    assert windows(8) == []
    assert windows(9) == [(0, 9)]
    assert windows(15) == [(0, 15)]
    assert windows(16) == [(0, 16)]
    assert windows(31) == [(0, 16)]
    assert windows(50) == [(0, 16), (16, 32), (32, 48)]


def test_logits_are_those_of_cd_fvd(i3d: I3DFeatures) -> None:
    with np.load(PERCEPTUAL) as stored:
        expected = stored["i3d"]
    short, found = i3d.extract([Clip(pictures(LEAST - 1, 64, 48), 25.0), Clip(pictures(LEAST, 64, 48), 25.0)])
    assert short == Failed("the clip has 8 frames; I3D needs at least 9")
    assert not isinstance(found, Failed)
    assert found["features"].shape == (1, 400)
    assert found["features"].dtype == np.float32
    assert np.allclose(found["features"][0], expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.5  # else anything would pass


def test_logits_against_the_installed_cd_fvd(i3d: I3DFeatures, weights: Mapping[str, Any]) -> None:
    frames = pictures(11, 40, 300, seed=4)
    try:
        expected = references.i3d_logits(weights, frames)
    except ImportError as error:
        pytest.skip(f"cd-fvd cannot be imported (extra 'parity'): {error}")
    [found] = i3d.extract([Clip(frames, 25.0)])
    assert not isinstance(found, Failed)
    assert np.allclose(found["features"][0], expected, rtol=1e-4, atol=1e-4)


def vectors(*values: float) -> Any:
    """Windows that differ in one of 400 features."""
    made = np.zeros((len(values), 400), np.float32)
    made[:, 7] = values
    return made


def test_the_distance_by_hand(make_item: MakeItem) -> None:
    """Means 1 and 3, variances 2 and 8: (3 - 1)^2 + 2 + 8 - 2 sqrt(2 * 8) = 6."""
    metric = FVD()
    items = [make_item(0, EXTRACTOR, vectors(0), vectors(1)), make_item(1, EXTRACTOR, vectors(2), vectors(5))]
    computed = metric.compute(metric.update(None, items))
    assert computed["fvd"] == pytest.approx(6)
    assert computed["fvd-windows"][0] == 2
    shards = metric.merge([metric.update(None, items[:1]), metric.update(None, items[1:])])
    assert metric.compute(shards)["fvd"] == pytest.approx(6)


@pytest.mark.filterwarnings("ignore:The `disp` argument:DeprecationWarning")  # cd-fvd's way to call SciPy
def test_the_distance_is_that_of_cd_fvd(make_item: MakeItem) -> None:
    rng = np.random.default_rng(2)
    one, other = (rng.normal(mean, 1, (500, 400)).astype(np.float32) for mean in (0, 0.3))
    try:
        expected = references.frechet_distance(one, other)
    except ImportError as error:
        pytest.skip(f"cd-fvd cannot be imported (extra 'parity'): {error}")
    metric = FVD()
    found = metric.compute(metric.update(None, [make_item(0, EXTRACTOR, one, other)]))["fvd"]
    assert found == pytest.approx(expected, rel=1e-4)


def test_a_clip_that_is_too_short_is_left_out(make_item: MakeItem) -> None:
    short = Failed("the clip has 8 frames; I3D needs at least 9")
    assert FVD().refuse(make_item(0, EXTRACTOR, short, vectors(0))) == short
    assert FVD().refuse(make_item(0, EXTRACTOR, vectors(0), vectors(0))) is None


def test_without_weights_nothing_is_computed(
    tmp_path: Path, bcd_bench_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path))
    with pytest.raises(MissingAssetError, match="asset 'i3d-kinetics400': not found") as caught:
        FVD().load("cpu")
    assert "bcd-bench assets add i3d-kinetics400 PATH" in str(caught.value.hint)


def test_other_weights_are_refused(weights: Mapping[str, Any]) -> None:
    with pytest.raises(UsageError, match="not those of I3D"):
        i3d_network({name: value for name, value in weights.items() if name != "logits.conv3d.bias"})
