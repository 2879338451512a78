"""Overlays of the gallery: points from cached features, quantised, offered if all outputs have them."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gallery_toy as toy
import numpy as np
import pytest

from bcd_bench import Overlay
from bcd_bench.assets.store import cache_folder
from bcd_bench.cli.app import main
from bcd_bench.plugin.registry import Registry
from bcd_bench.scoring.features import FeatureStore
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.view.gallery import build_gallery
from bcd_bench.view.overlays import NONE, STEPS, encode_points


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.from_modules([toy])


@pytest.fixture
def run(registry: Registry, bcd_bench_home: Path, tmp_path: Path) -> Path:
    """A scored run of three pairs, whose features are cached."""
    return toy.make_run(registry, tmp_path / "runs", "shifted", 3).path


def data_of(page: Path) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    data: dict[str, Any] = json.loads(found[1])
    return data


def decode(text: str) -> np.ndarray[Any, Any]:
    """Points int[T, N, 2] in steps, written as the page reads them."""
    count, code = text.split(" ")
    planes = np.frombuffer(zlib.decompress(base64.b64decode(code)), np.uint8).astype(np.uint16)
    changes = (planes[: len(planes) // 2] | planes[len(planes) // 2 :] << 8).reshape(2, -1, int(count))
    return np.cumsum(changes, axis=1, dtype=np.uint16).astype(np.int16).transpose(1, 2, 0)


def test_points_are_kept_to_a_step_and_missing_ones_stay_missing() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-20, 300, (7, 11, 2))
    points[2] = np.nan
    points[5, 3] = np.nan
    points[0, 0] = (1e9, -1e9)
    found = decode(encode_points(points, (100, 256)))
    missing = np.isnan(points)
    assert (found[missing] == NONE).all()
    expected = np.clip(points * STEPS / 256, -8 * STEPS, 8 * STEPS)
    assert np.abs(found[~missing] - expected[~missing]).max() <= 0.5
    with pytest.raises(ValueError, match=re.escape("points must be [T, N, 2], not [7, 11]")):
        encode_points(points[..., 0], (100, 256))


def test_an_overlay_of_a_metric_is_offered_with_the_points_of_every_clip(
    run: Path, registry: Registry, tmp_path: Path
) -> None:
    built = build_gallery([run], tmp_path / "g", registry)
    data = data_of(built.page)
    assert built.overlays == ("corners",)
    assert built.notes == ()
    [offered] = data["overlays"]["offered"]
    assert (offered["name"], offered["metrics"]) == ("corners", ["near"])
    assert offered["lines"] == [0, 1, 1, 2, 2, 3, 3, 0]
    outputs = [data["media"][pair["outputs"][0]["media"]] for pair in data["pairs"]]
    for entry in outputs:
        file = tmp_path / "g" / entry["points"][0]["file"]
        name, text = re.fullmatch(r'#points { (--p\w+): "(.*)"; }\n', file.read_text()).groups()  # type: ignore[union-attr]
        assert name == f"--p{file.stem}"
        points = decode(text) * (24 / STEPS)
        left = 2 * np.arange(toy.FRAMES)
        assert points[:, 0] == pytest.approx(np.stack([left, np.full(toy.FRAMES, 4)], axis=1), abs=0.02)
        assert points[:, 2] == pytest.approx(np.stack([left + 8, np.full(toy.FRAMES, 12)], axis=1), abs=0.02)
    content = data["media"][data["pairs"][0]["content"]["media"]]
    assert content["points"] == [None]  # no metric has read this clip
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "g" / "overlays").iterdir()}
    build_gallery([run], tmp_path / "g", registry)
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "g" / "overlays").iterdir()}
    assert after.keys() == before.keys()
    assert sum(after[path] != before[path] for path in before) == 1  # of one clip, for the lines


def test_an_overlay_without_features_is_left_out_with_the_command_that_adds_it(
    run: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("bcd_bench.cli.view.load", lambda: registry)
    with pytest.raises(SystemExit) as done:
        main(["view", str(run), "--output", str(tmp_path / "g")])
    assert done.value.code == 0
    note = (
        "overlay corners is left out: features of 3 of 3 outputs are not cached; "
        "bcd-bench view RUN --overlay corners extracts them"
    )
    assert note in capsys.readouterr().err
    data = data_of(tmp_path / "g" / "index.html")
    assert data["overlays"] == {"notes": [note], "offered": []}
    with pytest.raises(SystemExit) as done:
        main(["view", str(run), "--output", str(tmp_path / "g"), "--overlay", "corners"])
    assert done.value.code == 0
    assert "overlays corners" in capsys.readouterr().err
    data = data_of(tmp_path / "g" / "index.html")
    assert all(set(entry["points"][0]) == {"file"} for entry in data["media"])  # of the suite's clips too
    with pytest.raises(SystemExit) as done:
        main(["view", str(run), "--output", str(tmp_path / "g"), "--overlay", "none"])
    assert done.value.code == 0
    assert data_of(tmp_path / "g" / "index.html")["overlays"] == {"notes": [], "offered": []}
    with pytest.raises(SystemExit) as stop:
        main(["view", str(run), "--output", str(tmp_path / "g"), "--overlay", "none,corners"])
    assert stop.value.code == 2


def test_names_of_overlays_are_checked(run: Path, registry: Registry, tmp_path: Path) -> None:
    for name in ("plain", "nothing"):
        with pytest.raises(UsageError, match=f"--overlay {name}: there is no such overlay; there is corners"):
            build_gallery([run], tmp_path / "g", registry, overlays=[name])


def test_a_clip_without_points_says_why(run: Path, registry: Registry, tmp_path: Path) -> None:
    store = FeatureStore(registry, device="cpu", root=cache_folder() / "features")
    clip = toy.draw(60 + 30)  # the output of the first pair
    path = store._path("corners", store.identity("corners"), clip.sha256)
    assert path.is_file()
    store._write(path, Failed(toy.HOSTILE))
    page = build_gallery([run], tmp_path / "g", registry).page
    data = data_of(page)
    assert data["media"][data["pairs"][0]["outputs"][0]["media"]]["points"] == [{"none": toy.HOSTILE}]
    assert "<img" not in page.read_text("utf-8")


@pytest.mark.parametrize(
    ("overlay", "reason"),
    [
        (lambda features, size: 1 / 0, "overlay 'corners' failed: ZeroDivisionError"),
        (lambda features, size: Overlay(np.zeros((4, 2, 2))), r"it has points \[4, 2, 2\] for 5 frames"),
        (lambda features, size: Overlay(np.zeros((5, 2, 2)), ((0, 2),)), "a line ends at a point other than 0 to 1"),
    ],
)
def test_a_broken_overlay_leaves_the_gallery_alone(
    run: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overlay: Any, reason: str
) -> None:
    monkeypatch.setattr(toy, "outline", overlay)
    built = build_gallery([run], tmp_path / "g", registry)
    assert built.overlays == ()
    assert re.search(reason, built.notes[0]), built.notes
    with pytest.raises(UsageError, match=reason):
        build_gallery([run], tmp_path / "g", registry, overlays=["corners"])


def test_a_single_file_contains_the_points(run: Path, registry: Registry, tmp_path: Path) -> None:
    data = data_of(build_gallery([run], tmp_path / "g", registry, single_file=True, limit=1).page)
    text = data["media"][data["pairs"][0]["outputs"][0]["media"]]["points"][0]["text"]
    assert decode(text).shape == (toy.FRAMES, 4, 2)


def test_cached_features_need_no_extractor(registry: Registry, tmp_path: Path) -> None:
    class Silent(toy.Corners):
        def extract(self, clips: Any) -> list[Mapping[str, Any] | Failed]:
            raise AssertionError("nothing is extracted")

    store = FeatureStore(registry, device="cpu", root=tmp_path)
    clip = toy.draw(200)
    assert store.cached("corners", clip.sha256) is None
    store.get("corners", [clip])
    store._extractors["corners"] = Silent()
    found = store.cached("corners", clip.sha256)
    assert isinstance(found, Mapping)
    assert found["boxes"][1].tolist() == [2, 4, 10, 12]
