"""Records hold full provenance, are the same for the same run, and are refused when damaged."""

from __future__ import annotations

import dataclasses
import errno
import json
from pathlib import Path

import pytest
import scoring_toy as toy
from scoring_toy import record_run

from bcd_bench import AssetSpec, __version__
from bcd_bench.plugin.registry import Registry
from bcd_bench.results.build import build_record, write_record
from bcd_bench.results.schema import PairValues, find_records, load_record, load_records
from bcd_bench.scoring.score import score_run
from bcd_bench.types.errors import UsageError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def registry() -> Registry:
    return Registry.from_modules([toy])


def test_two_runs_of_one_command_give_identical_records(registry: Registry, tmp_path: Path) -> None:
    first, second = (record_run(registry, tmp_path / name) for name in ("a", "b"))
    for name in ("record.json", "values.json"):
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()
    assert "seconds" not in (first.path / "record.json").read_text()
    timing = json.loads((first.path / "timing.json").read_text())
    assert set(timing) == {"score_seconds", "generate_seconds"}
    assert set(timing["score_seconds"]) == {"shade", "spread"}


def test_a_record_says_what_produced_it(registry: Registry, tmp_path: Path) -> None:
    run = record_run(registry, tmp_path)
    record = load_record(run.path / "record.json")
    assert (record.n_pairs, record.n_failed, record.failures) == (12, 1, {"no face": 1})
    assert record.suite.manifest_sha256 == toy.suite({}).manifest_sha256
    assert record.method.config == {"off": 7}
    assert (record.seed, record.device, record.dtype, record.partial) == (0, "cpu", "float32", False)
    assert set(record.values) == {"distance", "close", "spread_of_shades", "spread"}
    assert record.values["close"].definition == "share of outputs within 10 levels"
    assert set(record.metrics) == {"shade", "spread"}
    provenance = record.provenance
    assert provenance.bcd_bench == __version__
    assert provenance.plugins["scoring_toy"]["source_sha256"] == registry.owner("metrics", "shade").source_sha256
    assert {"python", "cpu", "packages", "device"} <= set(provenance.environment)


def test_partial_runs_say_so(registry: Registry, tmp_path: Path) -> None:
    record = load_record(record_run(registry, tmp_path, limit=4).path / "record.json")
    assert (record.partial, record.n_pairs, record.suite.n_pairs, record.limit) == (True, 4, 12, 4)


def test_licences_of_what_took_part_are_named(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.assets["net"] = AssetSpec("net", "net.bin", "", 0, "X", "ask", restricted="research use only")
    registry.extractors["brightness"] = dataclasses.replace(registry.extractors["brightness"], assets=("net",))
    monkeypatch.setenv("BCD_BENCH_ASSETS", str(tmp_path / "assets"))
    without = record_run(registry, tmp_path / "without", metrics=("featured",))
    assert load_record(without.path / "record.json").provenance.restrictions == [], "it was not scored"
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "net.bin").write_bytes(b"weights")
    run = record_run(registry, tmp_path / "with", metrics=("featured",))
    assert load_record(run.path / "record.json").provenance.restrictions == ["net: research use only"]


def test_scoring_one_more_metric_keeps_the_others(registry: Registry, tmp_path: Path) -> None:
    run = record_run(registry, tmp_path, metrics=("shade",))
    before = load_record(run.path / "record.json")
    after = write_record(registry, run, score_run(registry, run, ["bad-derive"]))
    assert {name: after.values[name] for name in before.values} == before.values
    assert set(after.metrics) == {"shade", "bad-derive"}
    assert "bad-derive.distance" in after.values
    values = PairValues.load(run.path)
    assert values is not None
    assert values.columns["bad-derive.close"] == values.columns["close"]


@pytest.mark.parametrize("again", [("shade",), ("spread",), ("spread", "shade")])
def test_scoring_again_changes_no_byte(registry: Registry, tmp_path: Path, again: tuple[str, ...]) -> None:
    run = record_run(registry, tmp_path, metrics=("shade", "spread", "bad-derive"))
    before = {name: (run.path / name).read_bytes() for name in ("record.json", "values.json")}
    write_record(registry, run, score_run(registry, run, again))
    assert {name: (run.path / name).read_bytes() for name in before} == before


def test_values_stay_when_their_plugin_is_gone(registry: Registry, tmp_path: Path) -> None:
    run = record_run(registry, tmp_path, metrics=("shade",))
    before = load_record(run.path / "record.json")
    assert before.metrics["shade"].plugin["name"] == "scoring_toy"
    del registry.metrics["shade"]
    after = write_record(registry, run, score_run(registry, run, ["spread"]))
    assert after.values["distance"] == before.values["distance"]
    assert after.metrics["shade"] == before.metrics["shade"]


def test_a_damaged_values_file_costs_the_record_nothing(registry: Registry, tmp_path: Path) -> None:
    run = record_run(registry, tmp_path, metrics=("shade",))
    before = load_record(run.path / "record.json")
    (run.path / "values.json").write_text("{")
    after = write_record(registry, run, score_run(registry, run, ["spread"]))
    assert {name: after.values[name] for name in before.values} == before.values


def test_values_of_other_outputs_are_not_kept(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record_run(registry, tmp_path, metrics=("shade",))
    body = json.loads((run.path / "record.json").read_text())
    body["outputs_sha256"] = "0" * 64
    (run.path / "record.json").write_text(json.dumps(body))
    record, _ = build_record(registry, run, score_run(registry, run, ["spread"]))
    assert set(record.metrics) == {"spread"}


def test_values_survive_the_round_trip(tmp_path: Path) -> None:
    values = PairValues.build(
        [("p0", "b"), ("p1", "a"), ("p2", "b")], {"hit": [1.0, None, 0.0], "psnr": [31.123456789012, 2.5, float("inf")]}
    )
    (tmp_path / "values.json").write_text(values.to_json())
    loaded = PairValues.load(tmp_path)
    assert loaded is not None
    assert loaded.by_pair("hit") == {"p0": 1, "p2": 0}
    assert loaded.by_pair("psnr") == {"p0": 31.1234568, "p1": 2.5}
    assert loaded.by_pair("unknown") == {}
    assert loaded.cluster_by_pair() == {"p0": "b", "p1": "a", "p2": "b"}
    assert '"hit": [1,null,0]' in values.to_json()
    assert PairValues.load(tmp_path / "elsewhere") is None


def _refuse(path: Path) -> bytes:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


def test_damaged_records_are_refused_with_one_line(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = record_run(registry, tmp_path, limit=2)
    path = run.path / "record.json"
    whole = path.read_text()
    for text, what in [
        (whole[:-40], "Invalid JSON"),
        (whole.replace('"format": 1', '"format": 2'), "format: Input should be 1"),
        (whole.replace('"seed": 0', '"sead": 0'), "seed: Field required"),
    ]:
        path.write_text(text)
        with pytest.raises(UsageError, match=what) as caught:
            load_record(path)
        assert "\n" not in str(caught.value)
        assert caught.value.hint == f"bcd-bench score {run.path}"
    stranger = tmp_path / "stranger.json"
    stranger.write_text("{}")
    with pytest.raises(UsageError, match="not a record of this version") as caught:
        load_record(stranger)
    assert caught.value.hint is None
    (run.path / "values.json").write_text("{}")
    with pytest.raises(UsageError, match="values file"):
        PairValues.load(run.path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", _refuse)
        with pytest.raises(UsageError, match=r"values\.json: cannot be read \(Permission denied\)"):
            PairValues.load(run.path)
    with pytest.raises(UsageError, match="no such run folder"):
        find_records([tmp_path / "absent"])
    with pytest.raises(UsageError, match="cannot be read"):
        load_record(tmp_path / "absent.json")


def test_a_run_found_twice_counts_once(registry: Registry, tmp_path: Path) -> None:
    run = record_run(registry, tmp_path, limit=2)
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "record.json").write_bytes((run.path / "record.json").read_bytes())
    assert len(find_records([tmp_path, run.path, copy / "record.json"])) == 2
    assert len(load_records([tmp_path])) == 1
