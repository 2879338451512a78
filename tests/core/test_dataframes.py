"""Results as data frames: the same figures as in the records, one line each."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from test_report import hits, write_record

import bcd_bench
from bcd_bench.results.formats import csv as csv_
from bcd_bench.results.rows import collect_rows
from bcd_bench.types.errors import UsageError

RESULTS = Path(__file__).parents[2] / "results"


def test_every_figure_of_the_committed_records_is_there_once() -> None:
    frame = bcd_bench.results_frame(RESULTS, suite="sprites")
    assert not frame.duplicated(["suite", "method", "run_id", "column"]).any()
    assert not frame.reported.any()
    found = frame.set_index(["run_id", "column"]).value
    records = [json.loads(path.read_text()) for path in sorted((RESULTS / "sprites@1").rglob("record.json"))]
    assert len(records) >= 5
    for record in records:
        for name, value in record["values"].items():
            assert found[record["run_id"], name] == value["value"]
    assert len(frame) == sum(len(record["values"]) for record in records)


def test_means_of_pairs_are_the_values_of_the_record() -> None:
    pairs = bcd_bench.pairs_frame(RESULTS, suite="sprites-procedural")
    figures = bcd_bench.results_frame(RESULTS, suite="sprites-procedural").set_index(["run_id", "column"])
    means = pairs.groupby(["run_id", "column"]).value.mean()
    assert {"action", "exact-psnr"} <= set(pairs.column)
    for key, mean in means.items():
        scale = 100 if figures.unit[key] == "%" else 1
        assert mean * scale == pytest.approx(figures.value[key], rel=1e-6), key
    oracle = pairs[(pairs.method == "oracle") & (pairs.column == "action")]
    assert len(oracle) == oracle.pair.nunique() == 2664
    assert oracle.content_identity.nunique() < oracle.pair.nunique()


def test_the_lines_are_those_of_the_csv_report(tmp_path: Path) -> None:
    write_record(tmp_path / "some", "some", [1.0, 0.0, None, 1.0])
    write_record(tmp_path / "none", "none", [None, None])
    frame = bcd_bench.results_frame(str(tmp_path))
    text = csv_.render(collect_rows([tmp_path]))
    assert list(frame.columns) == next(csv.reader(io.StringIO(text)))
    pd.testing.assert_frame_equal(
        pd.read_csv(io.StringIO(text), dtype=frame.dtypes.to_dict(), keep_default_na=False, na_values=[""])[["value"]],
        frame[["value"]],
    )
    values = frame[frame.column == "hit"].set_index("method").value
    assert values["some"] == pytest.approx(200 / 3)
    assert math.isnan(values["none"])
    assert frame.n.dtype == "Int64"


def test_pairs_that_were_not_scored_are_missing_and_runs_without_values_left_out(tmp_path: Path) -> None:
    write_record(tmp_path / "some", "some", [1.0, 0.0, None])
    write_record(tmp_path / "bare", "bare", hits(0.5), with_values=False)
    frame = bcd_bench.pairs_frame(tmp_path)
    assert frame[["method", "pair", "content_identity", "column"]].to_numpy().tolist() == [
        ["some", "p0", "c0", "hit"], ["some", "p1", "c0", "hit"], ["some", "p2", "c1", "hit"],
    ]  # fmt: skip
    assert frame.value.tolist()[:2] == [1.0, 0.0]
    assert math.isnan(frame.value[2])


def test_nothing_gives_an_empty_frame_and_a_missing_path_an_error(tmp_path: Path) -> None:
    for read in (bcd_bench.results_frame, bcd_bench.pairs_frame):
        frame = read(tmp_path)
        assert len(frame) == 0
        assert {"suite", "method", "run_id", "column", "value"} <= set(frame.columns)
        with pytest.raises(UsageError, match="no such run folder or record"):
            read(tmp_path / "not-there")


def test_quoted_figures_come_only_when_asked_for_and_say_so() -> None:
    measured = bcd_bench.results_frame(RESULTS, suite="sprites")
    both = bcd_bench.results_frame(RESULTS, suite="sprites", reported=True)
    quoted = both[both.reported]
    assert len(both) == len(measured) + len(quoted)
    bcd = quoted[(quoted.column == "action") & (quoted.method.str.contains("BCD"))]
    assert bcd.value.tolist() == [100.0]
    assert quoted.run_id.isna().all()
    assert quoted.source.str.contains("Table").all()


def test_importing_the_package_loads_no_pandas() -> None:
    code = "import sys, bcd_bench; print('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
