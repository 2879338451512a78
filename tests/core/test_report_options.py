"""What `report` can select and how tables can look; LaTeX that fits a column at a readable size."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from record_toy import hits, write_record

from bcd_bench.cli.app import main
from bcd_bench.results.formats import html, latex, markdown
from bcd_bench.results.formats.latex_panels import floats
from bcd_bench.results.layout import Layout
from bcd_bench.results.rows import ReportRow, collect_rows
from bcd_bench.results.schema import RecipeInfo
from bcd_bench.results.selection import Selection, parse_decimals
from bcd_bench.results.table import Cell, build_tables
from bcd_bench.types.errors import UsageError

RESULTS = Path(__file__).parents[2] / "results"
PDFLATEX = pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "records"
    write_record(folder / "good", "good", hits(1.0), recipe=RecipeInfo(label="+ 3 extensions"))
    write_record(folder / "fair", "fair_one", hits(0.5))
    write_record(folder / "poor", "poor", hits(0.1))
    write_record(folder / "oracle", "oracle", hits(1.0), reference=True)
    return folder


def report(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> str:
    with pytest.raises(SystemExit) as exit_:
        main(["report", *map(str, arguments)])
    printed = capsys.readouterr()
    assert exit_.value.code == code, printed.err
    return printed.out if code == 0 else printed.err


def cells(text: str) -> list[list[str]]:
    rows = [line.split("|")[1:-1] for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if not set(row[0].strip()) <= {"-"}]


def test_columns_rows_and_decimals_are_chosen_in_order(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = report(
        capsys, results, "--column", "detail,hit", "--method", "poor,good", "--decimals", "1", "--decimals", "hit=0"
    )
    assert cells(text)[0] == ["Method", "detail", "hit (%) ↑"]
    assert [row[:2] for row in cells(text)[1:]] == [["poor", "1.0"], ["good (+ 3 extensions)", "1.0"]]
    assert cells(text)[1][2].startswith("<u>10</u>")
    assert cells(text)[2][2] == r"**100** \[91, 100\]"
    rows = list(csv.DictReader(io.StringIO(report(capsys, results, "--format", "csv", "--metric", "fid"))))
    assert {row["column"] for row in rows} == {"fid"}
    assert len(rows) == 4
    found = json.loads(report(capsys, results, "--format", "json", "--method", "oracle", "--metric", "judge"))
    assert [(row["method"], list(row["metrics"])) for row in found] == [("oracle", ["hit"])]


def test_rows_are_sorted_best_first(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    by_hit = cells(report(capsys, results, "--order", "hit"))
    assert [row[0].split()[0] for row in by_hit[1:]] == ["good", "oracle", r"fair\_one", "poor"]
    by_fid = cells(report(capsys, results, "--order", "fid"))
    assert [row[0].split()[0] for row in by_fid[1:]] == ["poor", r"fair\_one", "good", "oracle"]


def test_intervals_names_notes_and_captions(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = report(capsys, results, "--interval", "pm", "--short-names", "--caption", "My *table*", "--metric", "hit")
    assert text.startswith("### My \\*table\\*\n")
    rows = {row[0]: row[1] for row in cells(text)[1:]}
    assert rows["good"] == "**100.00** ± 4.38", "half of the Wilson interval [91.24, 100]"
    assert "±: half the width of the 95 % intervals" in text
    bare = report(capsys, results, "--interval", "none", "--notes", "none", "--metric", "hit")
    assert cells(bare)[1:][-1] == ["oracle (reference)", "100.00"]
    assert "- " not in bare.replace("| -", "").split("|\n")[-1]


def test_transposed_tables_have_methods_side_by_side(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = report(capsys, results, "--transpose", "--interval", "none", "--metric", "hit,fid")
    assert cells(text) == [
        ["Column", r"fair\_one", "good (+ 3 extensions)", "poor", "oracle (reference)"],
        ["hit (%) ↑", "<u>50.00</u>", "**100.00**", "10.00", "100.00"],
        ["fid ↓", "7.14", "14.29", "1.43", "14.29"],
    ]
    page = html.render(collect_rows([results]), layout=Layout(transpose=True))
    assert '<th scope="col">Column</th>' in page
    assert "<strong>100.00</strong>" in page
    assert r"{hit (\%) $\uparrow$} &" in latex.render_tables(collect_rows([results]), layout=Layout(transpose=True))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--metric", "hitt"], "--metric: no record has a metric or column 'hitt'; did you mean hit?"),
        (["--method", "gud"], "--method: no record of 'gud'; did you mean good?"),
        (["--order", "hot"], "--order: no column 'hot'; did you mean hit?"),
        (["--decimals", "x=2"], "--decimals: no column 'x'"),
        (["--decimals", "two"], "--decimals 'two': must be N or COLUMN=N with N from 0 to 12"),
        (["--decimals", "13"], "--decimals '13': must be N or COLUMN=N"),
        (["--interval", "sd"], "--interval sd: must be bracket, pm or none"),
        (["--notes", "all"], "--notes all: must be footnote or none"),
        (["--label", "tab:x}", "--format", "latex"], "--label 'tab:x}': only letters"),
        (["--label", "tab:x"], "--label has no effect on format markdown"),
        (["--table-star", "--format", "html"], "--table-star has no effect on format html"),
        (["--transpose", "--format", "csv"], "--transpose has no effect on format csv"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    results: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    printed = report(capsys, results, *arguments, code=2)
    assert told in printed
    assert len([line for line in printed.splitlines() if line.startswith("error:")]) == 1


def test_a_caption_is_for_one_table(results: Path) -> None:
    write_record(results / "new", "good", hits(0.5), version="2", manifest="cd" * 32)
    with pytest.raises(UsageError, match="--caption is for one table, and this report has 2"):
        build_tables(collect_rows([results]), layout=Layout(caption="x"))


def test_columns_without_values_are_left_out_and_told_once(results: Path) -> None:
    rows = collect_rows([results])
    empty = rows[0].metrics["hit"].model_copy(update={"value": None, "metric": "other"})
    rows = [replace(row, metrics={**row.metrics, "blank": empty}) for row in rows]
    [table] = build_tables(rows)
    assert table.headers == ("hit (%) ↑", "fid ↓")
    assert [note for note in table.notes if "blank" in note] == ["Left out, since no run has a value: blank."]
    [chosen] = build_tables(rows, layout=Layout(columns=("blank", "hit")))
    assert chosen.headers == ("blank (%) ↑", "hit (%) ↑")


def test_hashes_in_notes_are_short() -> None:
    text = markdown.render(collect_rows([RESULTS / "heads-cross@1"]))
    assert "sha256 6726825d0af5," in text
    assert not re.search(r"[0-9a-f]{16}", text)


def test_parsing_of_decimals_and_an_empty_selection(results: Path) -> None:
    assert parse_decimals(["2", "csim=3"]) == {"": 2, "csim": 3}
    rows = collect_rows([results])
    assert [row.method for row in Selection().apply(rows)] == [row.method for row in rows]


def test_latex_has_a_label_and_notes_outside_the_float(results: Path) -> None:
    rows = collect_rows([results])
    text = latex.render_tables(rows, layout=Layout(label="tab:mine", caption="50 % of_it", table_star=True))
    assert r"\caption{50 \% of\_it}\label{tab:mine}" in text
    inside, outside = text.split(r"\end{table*}")
    assert "footnotetext" not in inside
    assert r"Table~\ref{tab:mine}:" in outside
    assert "resizebox" not in text
    assert "footnotetext" not in latex.render_tables(rows, layout=Layout(notes="none"))


def test_panels_are_narrow_and_complete() -> None:
    [table] = build_tables(collect_rows([RESULTS / "lrs3-cross@2"]))
    for width in (229.0, 468.0):
        panels = [panel for page in floats(table, width) for panel in page]
        shown = [cell for panel in panels for row in panel.rows for cell in row.cells if cell != Cell("–")]
        assert len(shown) == sum(cell != Cell("–") for line in table.lines for cell in line.cells)
        assert all(sum(panel.height for panel in page) <= 480 for page in floats(table, width))
    assert len([panel for page in floats(table, 468.0) for panel in page]) < len(
        [panel for page in floats(table, 229.0) for panel in page]
    )


@pytest.mark.slow
@PDFLATEX
@pytest.mark.parametrize("suite", ["heads-cross", "lrs3-cross", "sprites"])
def test_tables_fit_a_column_of_a_page_in_type_of_7_pt_or_more(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report(capsys, RESULTS, "--suite", suite, "--format", "latex-table", "--output", tmp_path / "table.tex")
    (tmp_path / "paper.tex").write_text(
        "\\documentclass[10pt,twocolumn]{article}\n\\usepackage{booktabs}\n\\pdfcompresslevel=0\\pdfobjcompresslevel=0\n"
        f"\\begin{{document}}\nTable~\\ref{{tab:{suite}}}.\n\\input{{table.tex}}\n\\end{{document}}\n"
    )
    report(capsys, RESULTS, "--suite", suite, "--format", "latex", "--output", tmp_path / "document.tex")
    for name in ("paper", "document"):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", f"{name}.tex"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Overfull" not in done.stdout
    fonts = set(re.findall(rb"/FontName\s*/[A-Z]+\+([A-Z]+)(\d+)", (tmp_path / "paper.pdf").read_bytes()))
    assert fonts, "the type sizes are in the names of the Computer Modern fonts"
    assert min(int(size) for _, size in fonts) == 7


def test_a_format_of_a_plugin_receives_the_layout_only_if_it_asks_for_it(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def plain(rows: list[ReportRow], *, suite: str | None = None) -> str:
        return " ".join(row.method for row in rows)

    def formed(rows: list[ReportRow], *, suite: str | None = None, layout: Layout | None = None) -> str:
        return f"{layout.interval if layout else None} {list(rows[0].metrics)}"

    for function in (plain, formed):
        monkeypatch.setattr("bcd_bench.results.formats.markdown.render", function)
        chosen = ["--method", "poor,good", "--metric", "fid"]
        if function is plain:
            assert report(capsys, results, *chosen) == "poor good\n"
            told = report(capsys, results, *chosen, "--interval", "pm", code=2)
            assert "--interval has no effect on format markdown" in told
        else:
            assert report(capsys, results, *chosen, "--interval", "pm") == "pm ['fid']\n"
