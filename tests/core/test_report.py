"""Reports: the fixed JSON rows, ranks only where they are earned, escaping, and LaTeX that compiles."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import scoring_toy as toy
from hypothesis import given
from hypothesis import strategies as st
from record_toy import N, hits, write_record

from bcd_bench.plugin.registry import Registry
from bcd_bench.results.formats import csv as csv_
from bcd_bench.results.formats import html, latex, markdown
from bcd_bench.results.formats import json as json_
from bcd_bench.results.ranking import marks
from bcd_bench.results.rows import ReportRow, collect_rows
from bcd_bench.results.table import build_tables
from bcd_bench.types.errors import UsageError


@pytest.fixture
def results(tmp_path: Path) -> Path:
    write_record(tmp_path / "good", "good", hits(1.0))
    write_record(tmp_path / "fair", "fair_one", hits(0.5))
    write_record(tmp_path / "poor", "poor", hits(0.1))
    write_record(tmp_path / "oracle", "oracle", hits(1.0), reference=True)
    return tmp_path


def rows_of(path: Path) -> list[ReportRow]:
    return collect_rows([path])


def test_json_rows_have_exactly_the_agreed_keys(results: Path) -> None:
    rows = json.loads(json_.render(collect_rows([results], registry=Registry.from_modules([toy]))))
    assert len(rows) == 5
    for row in rows:
        assert list(row) == [
            "suite", "suite_version", "method", "run_id", "partial", "reported", "n_pairs", "n_failed", "metrics",
            "provenance",
        ]  # fmt: skip
        for value in row["metrics"].values():
            keys = ["value", "ci_low", "ci_high", "n", "n_failed", "frame_coverage", "unit", "higher_is_better"]
            assert list(value) == keys
    paper, fair = rows[0], rows[1]
    assert (paper["method"], paper["reported"], paper["run_id"], paper["n_pairs"]) == ("Paper & Sons", True, None, None)
    assert paper["metrics"]["close"]["value"] == 99.5
    assert paper["provenance"] == {"source": "Doe et al. 2024, Table 1", "note": "other split"}
    assert (fair["method"], fair["metrics"]["hit"]["value"], fair["n_pairs"]) == ("fair_one", 50.0, N)
    assert fair["provenance"]["suite"]["manifest_sha256"] == "ab" * 32
    assert fair["provenance"]["columns"]["hit"]["ci_method"] == "clustered bootstrap"


def test_marks_need_a_paired_interval(results: Path) -> None:
    rows = rows_of(results)
    names = [row.method for row in rows]
    assert marks(rows, "hit") == {names.index("good"): "best", names.index("fair_one"): "second"}
    assert marks(rows, "fid") == {}
    assert marks(rows, "detail") == {}
    (results / "fair" / "values.json").unlink()
    assert marks(rows_of(results), "hit") == {}


def test_rows_of_different_models_are_not_ranked_against_each_other(results: Path) -> None:
    path = next((results / "fair").rglob("record.json"))
    record = json.loads(path.read_text())
    [metric] = {record["values"]["hit"]["metric"]}
    same = {"version": "1", "identity": "x", "assets": {"lens": {"file": "b.onnx", "sha256": "1" * 64}}}
    record["metrics"][metric] = same
    path.write_text(json.dumps(record))
    assert marks(rows_of(results), "hit") == {}


def test_a_tie_at_the_top_is_not_broken(results: Path) -> None:
    write_record(results / "rival", "rival", [*hits(1.0)[:-1], 0.0])
    assert marks(rows_of(results), "hit") == {}


def test_references_partial_and_uncovered_runs_do_not_compete(tmp_path: Path) -> None:
    write_record(tmp_path / "a", "a", hits(0.2))
    write_record(tmp_path / "anchor", "anchor", hits(1.0), reference=True)
    write_record(tmp_path / "part", "part", hits(1.0, 20))
    write_record(tmp_path / "gaps", "gaps", [None, None, None, *hits(1.0, N - 3)])
    assert marks(rows_of(tmp_path), "hit") == {}
    write_record(tmp_path / "b", "b", hits(0.6))
    rows = rows_of(tmp_path)
    assert {rows[index].method: mark for index, mark in marks(rows, "hit").items()} == {"b": "best", "a": "second"}
    [table] = build_tables(rows)
    lines = {line.label: line for line in table.lines}
    assert [line.status for line in table.lines] == ["", "", "", "partial: 20 of 40 pairs", "reference"]
    assert lines["gaps"].cells[0].dagger
    assert not lines["b"].cells[0].dagger
    assert any("†" in note for note in table.notes)
    assert any("gaps 3" in note for note in table.notes)


def test_values_over_some_of_the_frames_carry_a_dagger_and_are_named(results: Path) -> None:
    def rests_on(method: str, share: float) -> None:
        path = results / method / "record.json"
        record = json.loads(path.read_text())
        record["values"]["hit"]["frame_coverage"] = record["values"]["fid"]["frame_coverage"] = share
        path.write_text(json.dumps(record))

    rests_on("good", 0.5)
    rests_on("fair", 0.96)
    rows = rows_of(results)
    # good is best of all, and wins nothing
    assert {rows[index].method: mark for index, mark in marks(rows, "hit").items()} == {
        "fair_one": "best",
        "poor": "second",
    }
    [table] = build_tables(rows)
    lines = {line.label: line for line in table.lines}
    assert [cell.dagger for cell in lines["good"].cells] == [True, True]
    assert not any(cell.dagger for name in ("fair_one", "poor") for cell in lines[name].cells)
    assert "† fewer than 95 % of the pairs (or of their frames) could be scored; not ranked." in table.notes
    assert "good: hit, fid rest on 50 % of the frames." in table.notes
    assert not any("fair_one:" in note for note in table.notes)
    values = {row["method"]: row["metrics"]["hit"] for row in json.loads(json_.render(rows))}
    assert [values[name]["frame_coverage"] for name in ("good", "fair_one", "poor")] == [0.5, 0.96, None]
    cells = {(row["method"], row["column"]): row for row in csv.DictReader(io.StringIO(csv_.render(rows)))}
    assert [cells[name, "hit"]["frame_coverage"] for name in ("good", "poor")] == ["0.5", ""]
    rests_on("good", 0.0)
    assert "good: hit, fid rest on 0 % of the frames." in build_tables(rows_of(results))[0].notes


def test_records_without_frame_coverage_are_read(results: Path) -> None:
    path = results / "good" / "record.json"
    record = json.loads(path.read_text())
    assert all(value.pop("frame_coverage", 0) is None for value in record["values"].values())
    path.write_text(json.dumps(record))
    assert next(row for row in rows_of(results) if row.method == "good").metrics["hit"].covered


def test_tables_of_different_manifests_stay_apart(results: Path) -> None:
    write_record(results / "new", "good", hits(0.5), version="2", manifest="cd" * 32)
    tables = build_tables(collect_rows([results], registry=Registry.from_modules([toy])))
    assert [table.title for table in tables] == ["toy@1", "toy@2"]
    assert [line.status for line in tables[0].lines] == ["reported", "", "", "", "reference"]
    assert [line.label for line in tables[1].lines] == ["good"]


def test_runs_of_one_method_are_told_apart(tmp_path: Path) -> None:
    write_record(tmp_path / "a", "m", hits(0.5))
    write_record(tmp_path / "b", "m", hits(0.6))
    record = tmp_path / "b" / "record.json"
    record.write_text(record.read_text().replace("m-0123456789", "ffff000011112222"))
    [table] = build_tables(rows_of(tmp_path))
    assert sorted(line.label for line in table.lines) == ["m ffff0000", "m m-012345"]


def test_markdown_shows_values_intervals_marks_and_footer(results: Path) -> None:
    write_record(results / "net", "net", hits(0.3), restrictions=["net: research use only"])
    text = markdown.render(collect_rows([results], registry=Registry.from_modules([toy])))
    lines = text.splitlines()
    assert lines[0] == "### toy@1"
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["Method", "hit (%) ↑", "fid ↓", "close"]
    body = {line.split("|")[1].strip(): line for line in lines if line.startswith("|")}
    assert r"**100.00** \[91.24, 100.00\]" in body["good"]
    assert r"<u>50.00</u>" in body[r"fair\_one"]
    assert "reported" in body[r"Paper \& Sons (reported)"]
    assert "**" not in body["oracle (reference)"]
    assert "detail" not in text
    footer = "\n".join(line for line in lines if line.startswith("- "))
    for part in ["toy@1, manifest abababababab, n = 40 pairs; bcd-bench 0.1.0", "clustered by subject",
                 "Reference methods", "Doe et al. 2024, Table 1", "net: research use only"]:  # fmt: skip
        assert part in footer


def test_an_empty_report_says_so(tmp_path: Path) -> None:
    for module in (markdown, latex, html):
        assert "No records to report" in module.render(rows_of(tmp_path))
    assert json_.render([]) == "[]\n"
    assert csv_.render([]).count("\n") == 1
    with pytest.raises(UsageError, match="no such run folder"):
        collect_rows([tmp_path / "absent"])


def test_the_papers_figures_stand_alone_for_a_suite_without_runs(tmp_path: Path) -> None:
    rows = collect_rows([tmp_path], suite="toy", registry=Registry.from_modules([toy]))
    assert [(row.method, row.reported) for row in rows] == [("Paper & Sons", True)]
    assert "99.50" in markdown.render(rows, suite="toy")
    assert collect_rows([tmp_path], registry=Registry.from_modules([toy])) == []


def test_a_suite_can_be_picked(results: Path) -> None:
    rows = rows_of(results)
    assert json.loads(json_.render(rows, suite="other")) == []
    assert collect_rows([results], suite="other") == []
    assert len(collect_rows([results], suite="toy")) == 4


def test_csv_is_one_line_for_each_run_and_column(results: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_.render(rows_of(results)))))
    assert len(rows) == 4 * 3
    good = next(row for row in rows if row["method"] == "good" and row["column"] == "hit")
    assert (float(good["value"]), good["n"], good["unit"], good["manifest_sha256"]) == (100.0, "40", "%", "ab" * 32)
    assert good["code_version"] == "0.1.0"


def test_html_escapes_what_plugins_choose(results: Path) -> None:
    write_record(results / "evil", "<script>alert(1)</script>", hits(0.3))
    page = html.render(rows_of(results))
    assert "<script>alert" not in page
    assert page.count("</script>") == 2  # the data, and the script of the page
    assert "&lt;script&gt;" in page
    assert "<strong>100.00</strong>" in page
    assert re.findall(r"(?:src|href)=\S+|@import|url\(", page.partition("<script>")[0]) == ['href="data:,">']
    assert "default-src 'none'" in page


def test_latex_has_the_papers_habits(results: Path) -> None:
    text = latex.render(rows_of(results))
    assert text.startswith(r"\documentclass")
    parts = [r"\usepackage{booktabs}", r"\toprule", r"\midrule", r"\bottomrule", r"\textbf{100.00}"]
    parts += [
        r"\underline{50.00}",
        r"fair\_one",
        r"\selectfont (reference)} \\*",
        r"{oracle} & 100.00",
        r"hit (\%) $\uparrow$",
    ]
    for part in parts:
        assert part in text
    alone = latex.render_tables(rows_of(results))
    assert r"\documentclass" not in alone
    assert alone.splitlines()[1] in text


def test_latex_rows_have_as_many_cells_as_columns(results: Path) -> None:
    rows = collect_rows([results], registry=Registry.from_modules([toy]))
    body = re.search(r"\\toprule(.*)\\bottomrule", latex.render(rows), re.DOTALL)
    assert body is not None
    lines = [line for line in body.group(1).splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {3}


@given(st.text(max_size=40))
def test_latex_escape_is_plain_ascii_with_balanced_braces(text: str) -> None:
    escaped = latex.escape(text)
    assert escaped.isascii()
    assert "\n" not in escaped
    bare = re.sub(r"\\[\\{}$&#%_]", "", escaped.replace(r"\textbackslash{}", ""))
    assert bare.count("{") == bare.count("}")
    assert not re.search(r"[#%&]", bare)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50 % of_x & y#1", r"50 \% of\_x \& y\#1"),
        ("Müller–Łoś naïve", r"M\"{u}ller--\L{}o\'{s} na\"{\i}ve"),
        ("a\\b^c~d", r"a\textbackslash{}b\textasciicircum{}c\textasciitilde{}d"),
        ("图 †", r"? $\dagger$"),
    ],
)
def test_latex_escapes(text: str, expected: str) -> None:
    assert latex.escape(text) == expected


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("columns", [2, 30])
def test_latex_compiles(results: Path, columns: int) -> None:
    write_record(results / "odd", 'Ünïcode 图 & 100% [x] _^~\\{}$#"<>|', hits(0.3))
    rows = collect_rows([results], registry=Registry.from_modules([toy]))
    wide = {f"column_{i}": rows[-1].metrics["hit"] for i in range(columns)}
    rows.append(ReportRow(**{**rows[-1].__dict__, "metrics": wide, "method": "wide"}))
    source = results / "report.tex"
    source.write_text(latex.render(rows))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", source.name]
    done = subprocess.run(command, cwd=results, capture_output=True, text=True, timeout=3600, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (results / "report.pdf").stat().st_size > 5000


def test_reports_import_no_torch(results: Path) -> None:
    code = (
        "import sys, pathlib; from bcd_bench.results.rows import collect_rows; "
        "from bcd_bench.results.formats import csv as csv_, html, json as json_, latex, markdown; "
        "rows = collect_rows([pathlib.Path(sys.argv[1])]); "
        "[module.render(rows) for module in (csv_, html, json_, latex, markdown)]; "
        "print({'torch', 'pandas', 'av'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(results)], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
