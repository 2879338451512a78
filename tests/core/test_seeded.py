"""Runs with pseudo-random weights: no weights are needed, and none of it ever looks like a result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import toy_plugin

from bcd_bench import AssetSpec, MethodSpec, Weights, hookimpl
from bcd_bench.plugin.registry import Registry
from bcd_bench.plugin.suites import load_suite
from bcd_bench.results.formats import csv as csv_
from bcd_bench.results.formats import markdown
from bcd_bench.results.ranking import marks
from bcd_bench.results.rows import collect_rows
from bcd_bench.results.schema import RunRecord, load_record
from bcd_bench.results.table import build_tables
from bcd_bench.run import pipeline as benchmark
from bcd_bench.run.pipeline import assign_settings
from bcd_bench.run.plan import RunPlan, make_plan
from bcd_bench.statistics.compare import compare_runs
from bcd_bench.types.errors import MissingAssetError, UsageError


class Bigger:
    @hookimpl
    def bcd_bench_methods(self) -> list[MethodSpec]:
        weights = (Weights("published", suites=("*",), asset="published"),)
        config = {"seeded": None, "mode": "relative"}
        return [
            MethodSpec(name, "1", "M.", "toy_plugin:Noise", config=config, weights=weights, seeded_by="seeded")
            for name in ("big", "bigger")
        ]

    @hookimpl
    def bcd_bench_assets(self) -> list[AssetSpec]:
        return [AssetSpec("published", "published.pth", "", 0, "MIT", "ask", restricted="research only")]


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path / "assets"))
    return Registry.from_modules([toy_plugin, Bigger()])


def plan(registry: Registry, method: str = "big", **more: object) -> RunPlan:
    return make_plan(registry, method, load_suite(registry, "toy"), **more)  # type: ignore[arg-type]


def test_a_seed_stands_in_for_weights(registry: Registry) -> None:
    with pytest.raises(MissingAssetError, match=r"published\.pth"):
        plan(registry)
    made = plan(registry, config={"seeded": 0})
    assert (made.seeded, made.weights, made.identity["weights"]) == (True, None, [])
    assert made.run_id != plan(registry, config={"seeded": 1}).run_id
    assert not plan(registry, "noise").seeded


def test_a_seed_and_weights_are_refused_together(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with pytest.raises(UsageError, match="accepts --weights or --set seeded=N, but not both"):
        plan(registry, config={"seeded": 1}, weights=str(tmp_path / "file"))
    assert not plan(registry, weights=str(tmp_path / "file")).seeded


def recorded(registry: Registry, out: Path, method: str, **more: object) -> Path:
    return benchmark.run(registry, benchmark.prepare(registry, method, "toy", **more), out=out).path  # type: ignore[arg-type]


def test_the_licence_of_published_weights_is_said_by_name_and_by_path(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    for path in (tmp_path / "assets" / "published.pth", tmp_path / "elsewhere.pth"):
        path.write_bytes(b"weights")
    found = recorded(registry, tmp_path / "named", "big")
    given = recorded(registry, tmp_path / "given", "bigger", weights=str(tmp_path / "elsewhere.pth"))
    for path in (found, given):
        assert load_record(path / "record.json").provenance.restrictions == ["published: research only"]
    [table] = build_tables(collect_rows([found, given]))
    assert [note for note in table.notes if "research only" in note] == [
        "Restricted licences took part: published: research only."
    ]


def test_a_seeded_run_is_marked_and_never_ranked(registry: Registry, tmp_path: Path) -> None:
    path = recorded(registry, tmp_path, "big", config={"seeded": 7})
    recorded(registry, tmp_path, "copy-motion")
    record = load_record(path / "record.json")
    assert (record.seeded, record.partial, record.method.weights) == (True, False, {})
    assert record.provenance.restrictions == []  # the restricted file took no part
    rows = collect_rows([tmp_path])
    seeded = next(row for row in rows if row.method == "big")
    assert seeded.seeded
    assert not seeded.ranked
    assert seeded.provenance["seeded"] is True
    assert marks(rows, "psnr") == {}
    [table] = build_tables(rows)
    assert [line.status for line in table.lines] == ["random weights", "reference"]
    assert any("never learned: big" in note for note in table.notes)
    assert "random weights" in markdown.render(rows)
    assert ",seeded," in csv_.render(rows).splitlines()[0]


def test_records_from_before_have_no_seed(registry: Registry, tmp_path: Path) -> None:
    body = json.loads((recorded(registry, tmp_path, "copy-motion") / "record.json").read_text())
    del body["seeded"]
    assert RunRecord.model_validate(body).seeded is False


def test_a_seeded_run_wins_no_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import scoring_toy

    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))
    own = Registry.from_modules([scoring_toy])
    a, b = (scoring_toy.record_run(own, tmp_path, name).path for name in ("exact", "off"))
    assert compare_runs(a, b, ["distance"])[0].better == "a"
    body = json.loads((a / "record.json").read_text())
    (a / "record.json").write_text(json.dumps({**body, "seeded": True}))
    [found] = compare_runs(a, b, ["distance"])
    assert found.better is None
    assert "a ran with random weights" in found.note


def test_settings_of_several_methods(registry: Registry) -> None:
    given = assign_settings(
        registry, ["big", "bigger", "oracle"], None, {"seeded": 1, "big.mode": "absolute", "bigger.seeded": 2}
    )
    assert given["big"] == {"weights": None, "config": {"seeded": 1, "mode": "absolute"}}
    assert given["bigger"] == {"weights": None, "config": {"seeded": 2}}
    assert given["oracle"] == {"config": {}}
    with pytest.raises(UsageError, match="--set mode applies to every method, but noise does not have it"):
        assign_settings(registry, ["big", "noise"], None, {"mode": "absolute"})
    only = assign_settings(registry, ["big", "noise"], None, {"big.mode": "absolute"})
    assert only["noise"] == {"weights": None, "config": {}}
    assert assign_settings(registry, ["noise", "oracle"], None, {"a.b": 1})["noise"]["config"] == {"a.b": 1}


def test_another_file_of_the_users_choice_is_another_run(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    ids = set()
    for content in (b"one", b"other"):
        (tmp_path / "assets" / "published.pth").write_bytes(content)
        ids.add(plan(registry).run_id)
    assert len(ids) == 2
