"""The feature cache: one extraction for each clip and identity, without pickle, and failures kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scoring_toy as toy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bcd_bench import AssetSpec, Clip, ExtractorSpec, Failed, MetricSpec, Pair
from bcd_bench.io.npz import load_tree, save_tree
from bcd_bench.plugin.registry import Registry
from bcd_bench.scoring.features import BatchFeatures, FeatureStore
from bcd_bench.scoring.provenance import metric_assets, metric_identity
from bcd_bench.scoring.score import missing_assets
from bcd_bench.types.errors import UsageError

LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.text(), st.floats(allow_nan=False))
ARRAYS = hnp.arrays(st.sampled_from([np.uint8, np.float32, np.int64]), hnp.array_shapes(max_dims=3, max_side=3))
KEYS = st.text(max_size=5)
TREES = st.recursive(
    LEAVES | ARRAYS, lambda x: st.lists(x, max_size=3) | st.dictionaries(KEYS, x, max_size=3), max_leaves=8
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return type(a) is type(b) and a == b


@given(tree=TREES)
def test_trees_survive_the_round_trip(tree: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("tree") / "x.npz"
    save_tree(path, tree)
    assert same(load_tree(path), tree)


@pytest.mark.parametrize("bad", [{1: 2}, object(), np.array([object()]), {"__array__": "a0"}, {"x": {2}}])
def test_what_cannot_be_stored_is_refused(tmp_path: Path, bad: Any) -> None:
    with pytest.raises(TypeError):
        save_tree(tmp_path / "x.npz", bad)
    assert list(tmp_path.iterdir()) == []


def test_pickles_and_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, tree=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="not a tree of arrays"):
        load_tree(path)
    save_tree(path, {"a": np.zeros(300)})
    whole = path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-10], whole[:700] + b"xxxx" + whole[704:]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a tree of arrays"):
            load_tree(path)


@pytest.fixture
def registry() -> Registry:
    toy.calls.clear()
    return Registry.from_modules([toy])


def store_at(registry: Registry, root: Path) -> FeatureStore:
    return FeatureStore(registry, device="cpu", root=root)


def test_clips_are_extracted_once_by_content(registry: Registry, tmp_path: Path) -> None:
    clips = [toy.draw(20, 2), toy.draw(30, 2), Clip(toy.draw(20, 2).frames, 25.0, "again")]
    found = store_at(registry, tmp_path).get("brightness", clips)
    assert [float(features["mean"]) for features in found if not isinstance(features, Failed)] == [20, 30, 20]
    assert toy.calls == {"brightness.load": 1, "brightness.extract": 1}
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    again = store_at(registry, tmp_path)
    assert [float(features["mean"]) for features in again.get("brightness", clips)] == [20, 30, 20]  # type: ignore[index]
    assert toy.calls == {"brightness.load": 1, "brightness.extract": 1}


def test_a_changed_extractor_never_meets_old_features(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_at(registry, tmp_path).get("brightness", [toy.draw(20, 2)])
    monkeypatch.setattr(toy.Brightness, "__init__", lambda self: setattr(self, "identity", {"weights": "new"}))
    store_at(registry, tmp_path).get("brightness", [toy.draw(20, 2)])
    assert toy.calls["brightness.extract"] == 2


def test_failed_detections_are_kept_and_damaged_files_replaced(registry: Registry, tmp_path: Path) -> None:
    dark = toy.draw(1, 2)
    assert store_at(registry, tmp_path).get("brightness", [dark]) == [Failed("too dark")]
    assert store_at(registry, tmp_path).get("brightness", [dark]) == [Failed("too dark")]
    assert toy.calls["brightness.extract"] == 1
    [path] = tmp_path.rglob("*.npz")
    path.write_bytes(b"PK")
    assert store_at(registry, tmp_path).get("brightness", [dark]) == [Failed("too dark")]
    assert toy.calls["brightness.extract"] == 2


def test_an_extractor_that_raises_costs_one_clip(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extract = toy.Brightness.extract

    def picky(self: toy.Brightness, clips: Any) -> Any:
        if any(clip.frames.mean() == 30 for clip in clips):
            raise RuntimeError("thirty")
        return extract(self, clips)

    monkeypatch.setattr(toy.Brightness, "extract", picky)
    found = store_at(registry, tmp_path).get("brightness", [toy.draw(shade, 2) for shade in (20, 30, 40)])
    assert found[1] == Failed("brightness: RuntimeError: thirty")
    assert [float(found[place]["mean"]) for place in (0, 2)] == [20, 40]  # type: ignore[index]
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    monkeypatch.setattr(toy.Brightness, "extract", lambda self, clips: [])
    [failed] = store_at(registry, tmp_path).get("brightness", [toy.draw(50, 2)])
    assert isinstance(failed, Failed)
    assert "0 results for 1 clips" in failed.reason


def test_unknown_extractors_are_named(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean brightness"):
        store_at(registry, tmp_path).get("brightnes", [toy.draw(20, 2)])


def test_a_batch_extracts_only_what_is_looked_at(registry: Registry, tmp_path: Path) -> None:
    pairs: list[Pair] = list(toy.suite({}).pairs[3:6])
    outputs = [toy.draw(100 + index, 2) for index in range(3)]
    batch = BatchFeatures(store_at(registry, tmp_path), pairs, outputs)
    views = [batch.of(index, ["brightness"]) for index in range(3)]
    assert "brightness.extract" not in toy.calls
    assert [float(view["brightness"]["output"]["mean"]) for view in views] == [100, 101, 102]
    assert toy.calls["brightness.extract"] == 1
    assert [float(view["brightness"]["target"]["mean"]) for view in views] == [30, 40, 50]
    assert toy.calls["brightness.extract"] == 2
    assert list(views[0]) == ["brightness"]
    with pytest.raises(KeyError, match="not requested"):
        views[0]["landmarks"]
    no_target = BatchFeatures(store_at(registry, tmp_path), [Pair("x", pairs[0].content, pairs[0].motion)], outputs[:1])
    assert no_target.of(0, ["brightness"])["brightness"]["target"] == Failed("the pair has no target clip")


class Contrast:
    """Needs the brightness of a clip; fails by itself on brightness 60."""

    def __init__(self) -> None:
        self.identity = {"weights": "none"}

    def load(self, device: str) -> None:
        toy.count("contrast.load")

    def extract(self, clips: Any, features: Any) -> list[Any]:
        toy.count("contrast.extract")
        means = [float(item["mean"]) for item in features["brightness"]]
        assert means == [clip.frames.mean() for clip in clips]
        if 60 in means:
            raise RuntimeError("sixty")
        return [{"contrast": np.float64(255 - mean)} for mean in means]


@pytest.fixture
def deep(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The toy plugin with an extractor `contrast` that needs `brightness`."""
    monkeypatch.setattr(toy, "Contrast", Contrast, raising=False)
    spec = ExtractorSpec("contrast", "1", "contrast", "scoring_toy:Contrast", extractors=("brightness",))
    registry.add("extractors", spec, registry.owner("extractors", "brightness"))
    return registry


def test_an_extractor_gets_the_features_it_needs(deep: Registry, tmp_path: Path) -> None:
    shades = (20, 1, 60, 30)
    found = store_at(deep, tmp_path).get("contrast", [toy.draw(shade, 2) for shade in shades])
    assert [one["contrast"] for one in (found[0], found[3])] == [235, 225]  # type: ignore[index]
    assert found[1] == Failed("too dark")  # as brightness says, and contrast never saw it
    assert found[2] == Failed("contrast: RuntimeError: sixty")
    assert toy.calls["brightness.extract"] == 1
    assert len(list((tmp_path / "brightness").rglob("*.npz"))) == 4
    assert len(list((tmp_path / "contrast").rglob("*.npz"))) == 2
    store_at(deep, tmp_path).get("contrast", [toy.draw(20, 2)])
    assert toy.calls["brightness.extract"] == 1


def test_a_changed_needed_extractor_changes_whoever_needs_it(
    deep: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metric = MetricSpec("deep", "1", "deep", "scoring_toy:Featured", extractors=("contrast",))
    deep.add("metrics", metric, deep.owner("metrics", "shade"))
    before = (store_at(deep, tmp_path).identity("contrast"), metric_identity(deep, metric))
    deep.extractors["brightness"] = replace(deep.extractors["brightness"], version="2")
    after = (store_at(deep, tmp_path).identity("contrast"), metric_identity(deep, metric))
    assert before[0] != after[0]
    assert before[1] != after[1]
    monkeypatch.setattr(toy.Brightness, "__init__", lambda self: setattr(self, "identity", {"weights": "new"}))
    assert store_at(deep, tmp_path).identity("contrast") not in (before[0], after[0])
    asset = AssetSpec("lens", "lens.bin", "0" * 64, 9, "MIT", "grind it")
    deep.add("assets", asset, deep.owner("metrics", "shade"))
    deep.extractors["brightness"] = replace(deep.extractors["brightness"], assets=("lens",))
    assert metric_assets(deep, metric) == ["lens"]
    deep.add("assets", replace(asset, name="film", urls=("https://example.org",)), deep.owner("metrics", "shade"))
    both = missing_assets(deep, [replace(metric, assets=("film",))])["deep"]
    assert "asset 'film': not found" in str(both)
    assert "asset 'lens': not found" in str(both)
    assert both.hint == "bcd-bench assets fetch film; and bcd-bench assets add lens PATH   (grind it)"


def test_circles_and_unknown_needs_are_one_clear_error(deep: Registry, tmp_path: Path) -> None:
    deep.extractors["brightness"] = replace(deep.extractors["brightness"], extractors=("contrast",))
    with pytest.raises(UsageError, match="circular dependency of extractors: contrast -> brightness -> contrast"):
        store_at(deep, tmp_path).get("contrast", [toy.draw(20, 2)])
    deep.extractors["brightness"] = replace(deep.extractors["brightness"], extractors=("colour",))
    with pytest.raises(UsageError, match="unknown extractor 'colour'"):
        store_at(deep, tmp_path).get("contrast", [toy.draw(20, 2)])
