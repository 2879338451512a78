"""fid, kid and fd-efficientnet-lite0: states, shards, failures, intervals, and whole runs of the harness."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.plugin.registry import load_registry
from bcd_bench.results.build import write_record
from bcd_bench.results.schema import load_records
from bcd_bench.run import pipeline as benchmark
from bcd_bench.scoring.score import score_run
from bcd_bench.types.errors import MissingAssetError
from bcd_bench.types.failed import Failed
from bcd_bench_fidelity import backbones, kid, plugin
from bcd_bench_fidelity.frechet_metrics import FID, FDEfficientNetLite0
from bcd_bench_fidelity.kid import KID
from tests.fidelity.conftest import MakeItem

METRICS = [(FID, "fid", "inception-fid", 2048), (KID, "kid", "inception-fid", 2048),
           (FDEfficientNetLite0, "fd-efficientnet-lite0", "efficientnet-lite0", 1280)]  # fmt: skip

Cli = Callable[..., subprocess.CompletedProcess[str]]


def items_for(make_item: MakeItem, extractor: str, width: int, count: int = 8) -> list[Any]:
    """`count` pairs of four contents' worth of features, outputs a little off their targets."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        target = rng.gamma(1.0, 0.4, (3, width)).astype(np.float32)
        output = (target * 1.2 + 0.1 * rng.gamma(1.0, 0.4, (3, width))).astype(np.float32)
        made.append(make_item(number, extractor, output, target))
    return made


def number(computed: Any) -> float:
    return computed[0] if isinstance(computed, tuple) else computed


@pytest.mark.parametrize(("metric", "name", "extractor", "width"), METRICS)
def test_order_batches_and_shards_do_not_matter(
    make_item: MakeItem, metric: Any, name: str, extractor: str, width: int
) -> None:
    items = items_for(make_item, extractor, width)
    one = metric()
    whole = one.compute(one.update(None, items))
    single: Any = None
    for item in items[::-1]:
        single = one.update(single, [item])
    shards = one.merge([one.update(None, items[::2]), one.update(None, items[1::2])])
    for other in (one.compute(single), one.compute(shards)):
        assert number(other[name]) == pytest.approx(number(whole[name]), rel=1e-9)
        assert other[f"{name}-frames"][0] == whole[f"{name}-frames"][0] == 24
    assert number(whole[name]) > 0


def test_values_of_fixed_features(make_item: MakeItem) -> None:
    def value(metric: Any, extractor: str, width: int) -> float:
        items = items_for(make_item, extractor, width)
        return number(metric.compute(metric.update(None, items))[metric.columns[0].name])

    assert value(FID(), "inception-fid", 2048) == pytest.approx(FIXED["fid"], rel=1e-5)
    assert value(KID(), "inception-fid", 2048) == pytest.approx(FIXED["kid"], rel=1e-5)
    found = value(FDEfficientNetLite0(), "efficientnet-lite0", 1280)
    assert found == pytest.approx(FIXED["fd-efficientnet-lite0"], rel=1e-5)


FIXED = {"fid": 46.504074101510, "kid": 0.0025938419117, "fd-efficientnet-lite0": 29.267958069470}
"""From the Gram matrices of the centred features and from the whole kernel matrices, by code that shares nothing."""


@pytest.mark.parametrize(("metric", "name", "extractor", "width"), METRICS)
def test_outputs_that_equal_their_targets_are_at_no_distance(
    make_item: MakeItem, metric: Any, name: str, extractor: str, width: int
) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.random((6, 4, width), dtype=np.float32)
    items = [make_item(number, extractor, one, one) for number, one in enumerate(vectors)]
    one = metric()
    computed = number(one.compute(one.update(None, items))[name])
    assert computed == pytest.approx(0, abs=1e-6) if name != "kid" else computed <= 0


@pytest.mark.parametrize(("metric", "name", "extractor", "width"), METRICS)
def test_an_item_without_features_is_refused_with_its_reason(
    make_item: MakeItem, metric: Any, name: str, extractor: str, width: int
) -> None:
    good = np.zeros((2, width), np.float32)
    one = metric()
    assert one.refuse(make_item(0, extractor, good, good)) is None
    assert one.refuse(make_item(0, extractor, Failed("broken"), good)) == Failed("broken")
    assert one.refuse(make_item(0, extractor, good, Failed("no target clip"))) == Failed("no target clip")
    lonely = make_item(0, extractor, good, good)
    without_target = replace(lonely, pair=replace(lonely.pair, target=None))
    with pytest.raises(KeyError, match="motion"):  # then the motion clip is the reference
        one.refuse(without_target)
    too_few = one.compute(one.update(None, [make_item(0, extractor, good[:1], good[:1])]))
    assert np.isnan(number(too_few[name]))


def test_kid_of_many_frames_rests_on_a_fixed_sample(make_item: MakeItem, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kid, "SAMPLE", 10)
    items = items_for(make_item, "inception-fid", 2048)
    one = KID()
    whole = one.update(None, items)
    assert [len(whole[side]["rows"]) for side in ("output", "reference")] == [10, 10]
    assert not np.array_equal(whole["output"]["keys"], whole["reference"]["keys"])
    merged = one.merge([one.update(None, items[5:]), one.update(None, items[:5])])
    assert one.compute(whole) == one.compute(merged)
    assert one.compute(whole)["kid-frames"][0] == 10


def test_kid_has_an_interval_around_its_value(make_item: MakeItem) -> None:
    one = KID()
    value, low, high = one.compute(one.update(None, items_for(make_item, "inception-fid", 2048)))["kid"]
    assert low < value < high
    alone = one.compute(one.update(None, items_for(make_item, "inception-fid", 2048, count=2)))["kid"]
    assert np.isnan(alone[1:]).all()  # a single content identity


@pytest.fixture
def seeded_asset(seeded_file: Path, bcd_bench_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The seeded weights take the place of the asset."""
    changes = {"sha256": sha256_file(seeded_file), "size": seeded_file.stat().st_size}
    monkeypatch.setattr(plugin, "INCEPTION_WEIGHTS", replace(backbones.INCEPTION_WEIGHTS, **changes))
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(seeded_file.parent))


@pytest.mark.usefixtures("seeded_asset")
def test_a_run_records_fid_and_kid_with_frames_and_intervals(tmp_path: Path) -> None:
    registry = load_registry()
    folders = []
    for method in ("oracle", "copy-content"):
        prepared = benchmark.prepare(registry, method, "sprites-procedural", metrics=["fid", "kid"], limit=6)
        folders.append(benchmark.run(registry, prepared, out=tmp_path).path)
    (_, oracle), (_, copy) = load_records(folders)
    for record in (oracle, copy):
        assert (record.values["fid"].n, record.values["fid"].n_failed) == (6, 0)
        assert record.values["fid-frames"].value == record.values["kid-frames"].value == 48
        assert record.values["fid-frames"].ci_low is None
        assert record.values["fid"].ci_method == "delete-group jackknife"
    assert oracle.values["fid"].value == pytest.approx(0, abs=1e-6)
    assert copy.values["fid"].value > 0.1
    assert copy.values["kid"].value > oracle.values["kid"].value


def test_without_the_weights_the_other_metrics_are_scored(
    bcd_bench_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BCD_BENCH_ASSETS", "")
    registry = load_registry()
    prepared = benchmark.prepare(registry, "oracle", "sprites-procedural", metrics=["target-psnr"], limit=3)
    folder = benchmark.run(registry, prepared, out=tmp_path)
    write_record(registry, folder, score_run(registry, folder, ["target-psnr", "fid", "flicker"]))
    [(_, record)] = load_records([folder.path])
    assert record.values["target-psnr"].value == 60
    assert record.values["flicker-error"].value == 0
    assert (record.values["fid"].value, record.values["fid"].n, record.values["fid"].n_failed) == (None, 0, 0)
    assert record.metrics["fid"].missing
    assert "asset 'inception-fid': not found" in (record.metrics["fid"].error or "")
    assert "bcd-bench assets fetch inception-fid" in (record.metrics["fid"].error or "")


def test_asking_for_fid_without_its_weights_is_exit_3(bcd_bench_cli: Cli) -> None:
    asked = bcd_bench_cli(
        "run", "--method", "oracle", "--suite", "sprites-procedural", "--limit", "3", "--metric", "fid", "--dry-run",
        env={"BCD_BENCH_ASSETS": ""},
    )  # fmt: skip
    assert asked.returncode == 3
    assert "asset 'inception-fid': not found" in asked.stderr
    assert "hint: bcd-bench assets fetch inception-fid" in asked.stderr


def test_fid_says_at_once_that_its_weights_are_missing(bcd_bench_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_ASSETS", "")
    for metric in (FID(), KID()):
        with pytest.raises(MissingAssetError, match="inception-fid"):
            metric.load("cpu")
    FDEfficientNetLite0().load("cpu")
