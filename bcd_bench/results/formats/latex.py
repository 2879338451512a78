"""Tables as LaTeX with booktabs: a complete document, or only the tables for \\input."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from bcd_bench.results.rows import ReportRow
from bcd_bench.results.table import Cell, Line, Table, build_tables

__all__ = ["escape", "render", "render_table", "render_tables"]

_PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\usepackage{booktabs}
\usepackage{graphicx}
\pagestyle{empty}
\begin{document}
"""
_NEEDS = "% Needs \\usepackage{booktabs} and \\usepackage{graphicx}.\n"
_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\u2191": r"$\uparrow$",
    "\u2193": r"$\downarrow$",
    "\u2020": r"$\dagger$",
    "\u2013": "--",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": r"\ldots{}",
    "\u00d7": r"$\times$",
    "\u00b1": r"$\pm$",
    "\u00b7": r"$\cdot$",
    "\u00b0": r"$^\circ$",
    "\u00b2": r"$^2$",
    "\u00b3": r"$^3$",
    "\u00b5": r"$\mu$",
    "\u03bc": r"$\mu$",
    "\u00df": r"\ss{}",
    "\u00f8": r"\o{}",
    "\u00d8": r"\O{}",
    "\u00e6": r"\ae{}",
    "\u00c6": r"\AE{}",
    "\u0142": r"\l{}",
    "\u0141": r"\L{}",
    "\u00a0": "~",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


def render(rows: Sequence[ReportRow], *, suite: str | None = None) -> str:
    """Render a document that pdflatex compiles with the packages of a standard TeX installation."""
    return _PREAMBLE + _body(rows, suite) + "\\end{document}\n"


def render_tables(rows: Sequence[ReportRow], *, suite: str | None = None) -> str:
    """Render only the tables, for inclusion in a paper."""
    return _NEEDS + _body(rows, suite)


def escape(text: str) -> str:
    """Escape plain text as LaTeX that compiles with the default fonts; unsupported characters become "?"."""
    return "".join(_escaped(char) for char in unicodedata.normalize("NFC", " ".join(text.split())))


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isascii():
        return char if char.isprintable() else ""
    decomposed = unicodedata.normalize("NFD", char) + " "
    base, accent = decomposed[0], decomposed[1]
    if accent in _ACCENTS and base.isascii() and base.isalpha():
        dotless = {"i": r"\i", "j": r"\j"}.get(base, base) if accent != "\u0327" else base
        return rf"\{_ACCENTS[accent]}{{{dotless}}}"
    return "?"


def _body(rows: Sequence[ReportRow], suite: str | None) -> str:
    tables = build_tables(rows, suite=suite)
    if not tables:
        return "No records to report.\n"
    return "\n".join(render_table(table) for table in tables)


def render_table(table: Table) -> str:
    """One table. Intervals are placed on a second, smaller line; a table wider than the page is scaled down."""
    headers = " & ".join([escape(table.corner), *(escape(header) for header in table.headers)])
    body = "\n".join(_lines(table))
    notes = "\n".join(rf"\par {escape(note)}" for note in table.notes)
    return rf"""\begin{{table}}[htbp]
\centering
\caption{{{escape(table.title)}}}
\setbox0=\hbox{{%
\begin{{tabular}}{{l{"r" * len(table.headers)}}}
\toprule
{headers} \\
\midrule
{body}
\bottomrule
\end{{tabular}}}}%
\ifdim\wd0>\linewidth \resizebox{{\linewidth}}{{!}}{{\box0}}\else \leavevmode\box0 \fi
\par\medskip
\begin{{minipage}}{{\linewidth}}\footnotesize\setlength{{\parindent}}{{0pt}}
{notes}
\end{{minipage}}
\end{{table}}
"""


def _lines(table: Table) -> list[str]:
    lines = []
    previous: str | None = None
    for line in table.lines:
        group = line.status.partition(":")[0]
        if previous is not None and group != previous:
            lines.append(r"\midrule")
        previous = group
        lines.append(" & ".join([_label(line), *(_cell(cell) for cell in line.cells)]) + r" \\")
        if any(cell.interval for cell in line.cells):
            # The brackets are braced: after \\ a bare [ would be read as its optional length.
            small = [rf"{{\scriptsize {escape(cell.interval)}}}" if cell.interval else "" for cell in line.cells]
            lines.append(" & ".join(["", *small]) + r" \\")
    return lines


def _label(line: Line) -> str:
    label = f"{{{escape(line.label)}}}"
    return rf"{label} {{\scriptsize ({escape(line.status)})}}" if line.status else label


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    if cell.mark == "best":
        text = rf"\textbf{{{text}}}"
    elif cell.mark == "second":
        text = rf"\underline{{{text}}}"
    return text + (r"$^{\dagger}$" if cell.dagger else "")
