"""Who is marked as the best: only who beats every other one on the pairs both did, scored in the same way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_toy import N, hits, write_record

from bcd_bench.plugin.specs import Column
from bcd_bench.results.formats import csv as csv_
from bcd_bench.results.formats import markdown
from bcd_bench.results.ranking import marks
from bcd_bench.results.rows import ReportRow, collect_rows
from bcd_bench.results.schema import MetricInfo, load_records
from bcd_bench.results.table import build_tables
from bcd_bench.statistics.aggregate import aggregate_rows
from bcd_bench.statistics.compare import compare_runs
from bcd_bench.types.errors import UsageError


def rows_of(path: Path) -> list[ReportRow]:
    return collect_rows([path])


def marked(path: Path, column: str = "hit") -> dict[str, str]:
    rows = rows_of(path)
    return {rows[index].method: mark for index, mark in marks(rows, column).items()}


def notes_of(path: Path) -> str:
    return "\n".join(note for table in build_tables(rows_of(path)) for note in table.notes)


def test_a_method_that_fails_on_the_hardest_pairs_does_not_win_by_it(tmp_path: Path) -> None:
    write_record(tmp_path / "fails", "fails", [None, None, *[0.90] * (N - 2)])
    write_record(tmp_path / "whole", "whole", [0.0, 0.0, *[0.92] * (N - 2)])
    rows = {row.method: row.metrics["hit"] for row in rows_of(tmp_path)}
    assert rows["fails"].covered
    assert (rows["fails"].value or 0) > (rows["whole"].value or 0)
    assert marked(tmp_path) == {"whole": "best", "fails": "second"}


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sampled_from([0.0, 1.0, None]), min_size=3 * N, max_size=3 * N))
def test_the_best_is_never_worse_than_another_on_their_common_pairs(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None]
) -> None:
    folder = tmp_path_factory.mktemp("ranking")
    table = {name: values[k * N : (k + 1) * N] for k, name in enumerate("abc")}
    for name, own in table.items():
        write_record(folder / name, name, own)
    for best in (name for name, mark in marked(folder).items() if mark == "best"):
        for other in set(table) - {best}:
            both = [(x, y) for x, y in zip(table[best], table[other], strict=True) if x is not None and y is not None]
            if len([value for value in table[other] if value is not None]) >= 0.95 * N:
                assert sum(x - y for x, y in both) > 0


def test_an_order_in_a_circle_has_no_best(tmp_path: Path) -> None:
    for k, name in enumerate("abc"):  # a beats b, b beats c, c beats a, each where the third has failed
        own: list[float | None] = [float((i // 2 + k) % 3 == 0) for i in range(N)]
        write_record(tmp_path / name, name, own)
    assert marked(tmp_path) == {}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"version": "2"}, "versions of the metric (judge 1 and judge 2)"),
        ({"identity": "y" * 16}, "code or weights of the metric (x and yyyyyyyyyyyy)"),
        ({"assets": {"net": {"file": "b.onnx", "sha256": "1" * 64}}}, "models (none and b.onnx 11111111)"),
    ],
)
@pytest.mark.parametrize("reference", [False, True])
def test_a_column_scored_in_two_ways_is_not_ranked(
    tmp_path: Path, change: dict[str, object], told: str, reference: bool
) -> None:
    write_record(tmp_path / "a", "a", hits(1.0))
    write_record(tmp_path / "b", "b", hits(0.5))
    assert marked(tmp_path) == {"a": "best", "b": "second"}
    other = MetricInfo.model_validate({"version": "1", "identity": "x", **change})
    write_record(tmp_path / "c", "c", hits(0.1), judge=other, reference=reference)
    assert marked(tmp_path) == {}
    assert "**" not in markdown.render(rows_of(tmp_path))
    assert f"Do not compare the values of hit with one another: they were scored with different {told}" in notes_of(
        tmp_path
    )
    [comparison] = compare_runs(tmp_path / "a", tmp_path / "c", ["hit"])
    assert comparison.note == f"scored with different {told}: not comparable"
    assert (comparison.difference, comparison.p_value, comparison.ci_low, comparison.better) == (None,) * 4
    assert (comparison.a, comparison.b) == (100.0, 10.0)


@pytest.mark.parametrize("key", ["definition", "unit", "metric"])
def test_a_column_that_means_something_else_is_not_ranked(tmp_path: Path, key: str) -> None:
    write_record(tmp_path / "a", "a", hits(1.0))
    write_record(tmp_path / "b", "b", hits(0.5))
    path = tmp_path / "b" / "record.json"
    record = json.loads(path.read_text())
    record["values"]["hit"][key] = "another"
    path.write_text(json.dumps(record))
    assert marked(tmp_path) == {}
    assert "Do not compare the values of hit" in notes_of(tmp_path)


def test_versions_are_told_in_the_long_form(tmp_path: Path) -> None:
    write_record(tmp_path / "a", "a", hits(1.0))
    lines = {line["column"]: line for line in csv_.lines(rows_of(tmp_path))}
    assert (lines["hit"]["metric_version"], lines["hit"]["metric_identity"]) == ("1", "x")


def test_set_metrics_over_different_pairs_are_not_ranked(tmp_path: Path) -> None:
    write_record(tmp_path / "a", "a", hits(0.1), fid_interval=(1, 2))
    write_record(tmp_path / "b", "b", hits(0.9), fid_interval=(12, 14))
    assert marked(tmp_path, "fid") == {"a": "best", "b": "second"}
    write_record(tmp_path / "c", "c", [None, *hits(0.5, N - 1)], fid_interval=(6, 8))
    assert marked(tmp_path, "fid") == {}
    assert "fid with one another: they were made from different pairs" in notes_of(tmp_path)


def test_copies_of_a_record_are_one_row_and_contradictions_are_two(tmp_path: Path) -> None:
    write_record(tmp_path / "labA", "m", hits(0.5), environment={"packages": {"av": "18.1.0"}})
    write_record(tmp_path / "copy", "m", hits(0.5), environment={"packages": {"av": "17.0.0"}})
    assert len(load_records([tmp_path])) == 1  # the same outputs and values, made elsewhere
    write_record(tmp_path / "labB", "m", hits(0.75), outputs="1" * 64, environment={"packages": {"av": "16.0.1"}})
    write_record(tmp_path / "rival", "rival", hits(0.1))
    for order in (["labA", "labB"], ["labB", "labA"]):
        rows = collect_rows([tmp_path / name for name in [*order, "rival"]])
        [table] = build_tables(rows)
        shown = {line.label: (line.status, line.cells[0].text, line.cells[0].mark) for line in table.lines}
        assert shown == {
            "m m-012345 outputs 00000000": ("contradicts another record", "50.00", None),
            "m m-012345 outputs 11111111": ("contradicts another record", "75.00", None),
            "rival": ("", "10.00", None),
        }
        [note] = [note for note in table.notes if "have different outputs" in note]
        assert "environment.packages.av: " in note
        assert "16.0.1" in note


def test_records_of_one_run_that_differ_in_values_alone_are_two_rows(tmp_path: Path) -> None:
    write_record(tmp_path / "a", "m", hits(0.5))
    write_record(tmp_path / "b", "m", hits(0.6))
    [table] = build_tables(rows_of(tmp_path))
    assert [line.label for line in table.lines] == ["m m-012345 record 1", "m m-012345 record 2"]
    assert any("have different values" in note for note in table.notes)


def test_few_identities_get_no_interval(tmp_path: Path) -> None:
    column = Column("hit", "%", True, "", kind="rate")
    pairs = [(f"p{i}", f"person{i % 3}") for i in range(30)]
    rows = {pair: {"hit": 1.0} for pair, _ in pairs}
    values, _ = aggregate_rows("judge", None, [column], pairs, rows)  # type: ignore[arg-type]
    value = values["hit"]
    assert (value.value, value.n_clusters) == (100.0, 3)
    assert (value.ci_low, value.ci_high, value.ci_method, value.wilson) == (None, None, None, None)
    enough = [(pair, f"person{i % 6}") for i, (pair, _) in enumerate(pairs)]
    values, _ = aggregate_rows("judge", None, [column], enough, rows)  # type: ignore[arg-type]
    assert values["hit"].n_clusters == 6
    assert values["hit"].ci_low is not None


def test_tables_say_so_where_an_interval_cannot_be_relied_on(tmp_path: Path) -> None:
    few = [f"person{i % 5}" for i in range(N)]
    write_record(tmp_path / "a", "a", hits(1.0), clusters=few)  # as an older record: with an interval, without a count
    write_record(tmp_path / "b", "b", hits(0.0), clusters=few)
    text = markdown.render(rows_of(tmp_path))
    assert "100.00 (5 subjects)" in text
    assert "91.00" not in text
    assert "fewer than 6 subjects" in text
    assert marked(tmp_path) == {}


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_a_record_with_a_value_that_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    write_record(tmp_path / "a", "a", hits(1.0))
    path = tmp_path / "a" / "record.json"
    path.write_text(path.read_text().replace('"value": 100.0', f'"value": {text}'))
    with pytest.raises(UsageError, match=r"values\.hit\.value"):
        load_records([tmp_path])


def test_values_that_do_not_fit_their_pairs_are_refused(tmp_path: Path) -> None:
    write_record(tmp_path / "a", "a", hits(1.0))
    write_record(tmp_path / "b", "b", hits(0.5))
    path = tmp_path / "a" / "values.json"
    body = json.loads(path.read_text())
    body["columns"]["hit"].pop()
    path.write_text(json.dumps(body))
    refusals = {row.method: row.refusal for row in rows_of(tmp_path)}
    assert "differ in length" in refusals["a"]
    assert refusals["b"] == ""
    assert marked(tmp_path) == {}
    assert "a a-012345 fails its checks and is not ranked: values.json: not a values file" in notes_of(tmp_path)
