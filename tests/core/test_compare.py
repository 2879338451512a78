"""Two runs compared pair by pair: differences, clustering, and what cannot be compared."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import scoring_toy as toy
from scoring_toy import record_run

from bcd_bench.plugin.registry import Registry
from bcd_bench.statistics.compare import compare_runs, render_comparisons
from bcd_bench.types.errors import UsageError


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BCD_BENCH_HOME", str(tmp_path / "home"))


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    registry = Registry.from_modules([toy])
    return record_run(registry, tmp_path, "exact").path, record_run(registry, tmp_path, "off").path


def test_differences_are_over_the_pairs_both_scored(runs: tuple[Path, Path]) -> None:
    found = {one.column: one for one in compare_runs(*runs)}
    assert list(found) == ["distance", "close", "spread_of_shades", "spread"]
    distance = found["distance"]
    assert (distance.n_pairs, distance.n_clusters) == (11, 6)
    assert (distance.a, distance.b) == (0.0, pytest.approx((8 * 7 + 3 * 107) / 11))
    assert distance.difference == pytest.approx(-(8 * 7 + 3 * 107) / 11)
    assert distance.ci_high is not None
    assert distance.ci_high < 0
    assert distance.better == "a"
    assert distance.p_value == pytest.approx(2 / 2**6)
    close = found["close"]
    assert close.difference == pytest.approx(100 * 3 / 11)
    assert close.better is None
    swapped = {one.column: one for one in compare_runs(runs[1], runs[0])}
    assert swapped["distance"].better == "b"
    assert swapped["distance"].difference == -distance.difference


def test_columns_without_values_for_each_pair_have_no_interval(runs: tuple[Path, Path]) -> None:
    [spread] = compare_runs(*runs, metrics=["spread"])
    assert spread.difference is not None
    assert (spread.ci_low, spread.p_value, spread.better) == (None, None, None)
    assert "no paired interval" in spread.note
    (runs[0] / "values.json").unlink()
    [distance] = compare_runs(*runs, metrics=["distance"])
    assert "values.json is missing" in distance.note
    assert distance.better is None


def test_a_run_that_rests_on_half_of_the_frames_does_not_win(runs: tuple[Path, Path]) -> None:
    path = runs[0] / "record.json"
    record = json.loads(path.read_text())
    record["values"]["distance"]["frame_coverage"] = 0.5
    path.write_text(json.dumps(record))
    [distance] = compare_runs(*runs, metrics=["distance"])
    assert distance.better is None
    assert distance.p_value == pytest.approx(2 / 2**6)  # it is said, not hidden
    assert distance.note == "a rests on 50 % of the frames"
    record["values"]["distance"]["frame_coverage"] = 0.95
    path.write_text(json.dumps(record))
    assert compare_runs(*runs, metrics=["distance"])[0].better == "a"


def test_metrics_are_chosen_by_metric_or_column(runs: tuple[Path, Path]) -> None:
    assert [one.column for one in compare_runs(*runs, metrics=["shade"])] == ["distance", "close", "spread_of_shades"]
    assert [one.column for one in compare_runs(*runs, metrics=["close", "spread"])] == ["close", "spread"]
    with pytest.raises(UsageError, match="share no metric or column psnr"):
        compare_runs(*runs, metrics=["psnr", "close"])


def test_runs_that_do_not_fit_are_refused(runs: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="contains 2 records"):
        compare_runs(runs[0], tmp_path)
    with pytest.raises(UsageError, match="no such run folder"):
        compare_runs(runs[0], tmp_path / "absent")
    other = tmp_path / "other"
    shutil.copytree(runs[1], other)
    record = other / "record.json"
    manifest = toy.suite({}).manifest_sha256
    record.write_text(record.read_text().replace(manifest, "0" * 64))
    with pytest.raises(UsageError, match="do not use the same pairs"):
        compare_runs(runs[0], other)


def test_the_table_says_who_is_better_and_over_what(runs: tuple[Path, Path]) -> None:
    text = render_comparisons(compare_runs(*runs), "exact", "off|7")
    lines = text.splitlines()
    assert lines[0].split(" | ")[1:3] == ["a: exact", r"b: off\|7"]
    assert lines[2].startswith(r"| distance (levels) | **0.0** | 34.3 | -34.3 | \[-")
    assert lines[2].endswith("| 0.031 | 11 |")
    assert any("clustered by subject (6 clusters)" in line for line in lines)
    assert any(line.startswith(r"- spread\_of\_shades, spread: no per-pair values") for line in lines)


def test_few_identities_and_constant_differences_are_noted(tmp_path: Path) -> None:
    registry = Registry.from_modules([toy])
    few = [record_run(registry, tmp_path, method, limit=6).path for method in ("exact", "off")]
    [distance] = compare_runs(*few, metrics=["distance"])
    assert distance.note == "too few subjects for a 95 % interval (3)"
    assert (distance.ci_low, distance.ci_high) == (None, None)
    assert distance.p_value == pytest.approx(2 / 2**3)
    assert distance.better is None
    same = [record_run(registry, tmp_path, method).path for method in ("exact", "oracle")]
    [close] = compare_runs(*same, metrics=["close"])
    assert (close.difference, close.ci_low, close.ci_high, close.p_value) == (0, 0, 0, 1)
    assert close.note.startswith("the difference is the same on every pair")


def test_columns_of_one_name_from_two_metrics_are_not_compared(tmp_path: Path) -> None:
    registry = Registry.from_modules([toy])
    first = record_run(registry, tmp_path, "exact", metrics=("shade",)).path
    second = record_run(registry, tmp_path, "off", metrics=("bad-derive",)).path
    with pytest.raises(UsageError, match="the runs share no column"):
        compare_runs(first, second)


def test_different_models_of_the_users_choice_do_not_compare(runs: tuple[Path, Path]) -> None:
    for path, name in zip(runs, ("a.onnx", "b.onnx"), strict=True):
        record = json.loads((path / "record.json").read_text())
        record["metrics"]["shade"]["assets"] = {"lens": {"file": name, "sha256": "0" * 64}}
        (path / "record.json").write_text(json.dumps(record))
    distance, *_, spread = compare_runs(*runs)
    assert distance.note == "scored with different models (a.onnx 00000000 and b.onnx 00000000): not comparable"
    assert (distance.difference, distance.ci_low, distance.p_value, distance.better) == (None, None, None, None)
    assert "models" not in spread.note
