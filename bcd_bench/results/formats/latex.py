"""Tables as LaTeX with booktabs: a complete document, or only the tables for \\input.

Own code, although pandas' Styler writes LaTeX: it does not split wide tables, sets no second line of intervals, and
importing pandas takes longer than the report.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bcd_bench.results.formats.latex_panels import Panel, PanelRow, floats
from bcd_bench.results.formats.latex_text import escape
from bcd_bench.results.layout import Layout
from bcd_bench.results.rows import ReportRow
from bcd_bench.results.table import Cell, Table, build_tables

__all__ = ["COLUMN_WIDTH", "PAGE_WIDTH", "document", "escape", "render", "render_table", "render_tables"]

COLUMN_WIDTH = 229.0
"""Width in pt of a column of `\\documentclass[twocolumn]{article}`, the narrowest of the usual ones."""
PAGE_WIDTH = 468.0
"""Width in pt of both columns of such a page with the space between them, and of the text of `render`."""
_PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[a4paper,hmargin=22mm,vmargin=20mm]{geometry}
\usepackage{booktabs}
\pagestyle{empty}
\begin{document}
"""
_NEEDS = "% Needs \\usepackage{booktabs}.\n"
_SIZE, _SMALL = r"\fontsize{8}{9.5}\selectfont", r"\fontsize{7}{8}\selectfont"


def document(tables: str, *, whole: bool) -> str:
    """`tables` as a document of their own, or with a note on the packages that they need."""
    return f"{_PREAMBLE}{tables}\\end{{document}}\n" if whole else _NEEDS + tables


def render(rows: Sequence[ReportRow], *, suite: str | None = None, layout: Layout | None = None) -> str:
    """Render a document that pdflatex compiles with the packages of a standard TeX installation."""
    layout = layout or Layout()
    tables = build_tables(rows, suite=suite, layout=layout)
    texts = [render_table(table, layout, width=PAGE_WIDTH, footnotes=False) for table in tables]
    return document("\n".join(texts) or "No records to report.\n", whole=True)


def render_tables(rows: Sequence[ReportRow], *, suite: str | None = None, layout: Layout | None = None) -> str:
    """Render only the tables, for inclusion in a paper: they fit one column of a page with two, or both columns with
    `Layout.table_star`."""
    layout = layout or Layout()
    tables = build_tables(rows, suite=suite, layout=layout)
    return document(
        "\n".join(render_table(table, layout) for table in tables) or "No records to report.\n", whole=False
    )


def render_table(
    table: Table, layout: Layout | None = None, *, width: float | None = None, footnotes: bool = True
) -> str:
    """One table, at most `width` pt wide (default: one column of a page with two; with `table_star`, both columns).

    Numbers are set in 8 pt, intervals and reasons why a row is not ranked in 7 pt, whatever the size of the document. A
    table that would be wider is split into panels below each other, and into several floats if it would be longer than
    a page. Notes follow outside the float: as a footnote without a mark, or as text.
    """
    layout = layout or Layout()
    name = table.suite.partition("@")[0] or table.title
    label = layout.label or "tab:" + re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")
    environment = "table*" if layout.table_star else "table"
    parts = []
    available = width or (PAGE_WIDTH if layout.table_star else COLUMN_WIDTH)
    for number, panels in enumerate(floats(table, available)):
        caption = escape(table.title) + (" (continued)" if number else rf"}}\label{{{label}")
        body = "\n\\par\\medskip\n".join(_tabular(table, panel) for panel in panels)
        parts.append(rf"""\begin{{{environment}}}[!htbp]
\centering
\caption{{{caption}}}\smallskip
{_SIZE}\setlength{{\tabcolsep}}{{3pt}}%
{body}
\end{{{environment}}}
""")
    return "".join(parts) + _notes(table, label, footnotes=footnotes)


def _notes(table: Table, label: str, *, footnotes: bool) -> str:
    if not table.notes:
        return ""
    text = "\n".join([rf"Table~\ref{{{label}}}:", *(escape(note) for note in table.notes)])
    if footnotes:
        return rf"""\begingroup\renewcommand{{\thefootnote}}{{}}%
\footnotetext{{\sloppy {text}}}%
\endgroup
"""
    return rf"""{{{_SIZE}\noindent\sloppy {text}\par}}
"""


def _tabular(table: Table, panel: Panel) -> str:
    headers = [_stacked(lines) for lines in panel.headers]
    lines = [" & ".join([escape(table.corner), *headers]) + r" \\", r"\midrule"]
    previous = ""
    for index, row in enumerate(panel.rows):
        if row.status != previous and row.status.partition(":")[0] != previous.partition(":")[0] and index:
            lines.append(r"\midrule")
        if row.status != previous and row.status:
            lines.append(
                rf"\multicolumn{{{len(panel.headers) + 1}}}{{@{{}}l@{{}}}}{{{_SMALL} ({escape(row.status)})}} \\*"
            )
        previous = row.status
        lines += _row(row)
    body = "\n".join(lines)
    return rf"""\begin{{tabular}}{{@{{}}l{"r" * len(panel.headers)}@{{}}}}
\toprule
{body}
\bottomrule
\end{{tabular}}"""


def _row(row: PanelRow) -> list[str]:
    lines = []
    for number, label in enumerate(row.label):
        if number == 0:
            cells = [_cell(cell, inline=row.inline) for cell in row.cells]
        elif number == 1 and not row.inline:
            cells = [_interval(cell) for cell in row.cells]
        else:
            cells = [""] * len(row.cells)
        end = r" \\" if number == len(row.label) - 1 else r" \\*"
        lines.append(" & ".join([f"{{{escape(label)}}}" if label else "", *cells]) + end)
    return lines


def _interval(cell: Cell) -> str:
    """Braced: after \\\\ a bare [ would be read as its optional length."""
    return rf"{{{_SMALL} {escape(cell.interval)}}}" if cell.interval else ""


def _stacked(lines: Sequence[str]) -> str:
    text = r"\\".join(escape(line) for line in lines)
    return text if len(lines) == 1 else rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{text}\end{{tabular}}"


def _cell(cell: Cell, *, inline: bool) -> str:
    text = escape(cell.text)
    if cell.mark == "best":
        text = rf"\textbf{{{text}}}"
    elif cell.mark == "second":
        text = rf"\underline{{{text}}}"
    text += r"\,$\dagger$" if cell.dagger else ""
    return rf"{text}\,{_interval(cell)}" if inline and cell.interval else text
