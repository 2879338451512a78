"""Tables as GitHub Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from bcd_bench.results.layout import Layout
from bcd_bench.results.rows import ReportRow
from bcd_bench.results.table import DAGGER, Cell, Line, Table, build_tables

__all__ = ["escape", "render", "render_table"]

_SPECIAL = re.compile(r"([\\`*_|<>\[\]~#&])")


def render(rows: Sequence[ReportRow], *, suite: str | None = None, layout: Layout | None = None) -> str:
    """One table for each suite, or a message if there are no records."""
    tables = build_tables(rows, suite=suite, layout=layout)
    if not tables:
        return "No records to report.\n"
    return "\n".join(render_table(table) for table in tables)


def escape(text: str) -> str:
    """Escape plain text so that Markdown shows it literally, on one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def render_table(table: Table) -> str:
    """One table with its title and notes."""
    grid = [[escape(table.corner), *(escape(header) for header in table.headers)]]
    grid += [[_label(line), *(_cell(cell) for cell in line.cells)] for line in table.lines]
    widths = [max(len(row[column]) for row in grid) for column in range(len(grid[0]))]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    body = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in (grid[0], rule, *grid[1:])
    ]
    notes = [f"- {escape(note)}" for note in table.notes]
    return "\n".join([f"### {escape(table.title)}", "", *body, *([""] if notes else []), *notes]) + "\n"


def _label(line: Line) -> str:
    return f"{escape(line.label)} ({escape(line.status)})" if line.status else escape(line.label)


def _cell(cell: Cell) -> str:
    text = cell.text
    if cell.mark == "best":
        text = f"**{text}**"
    elif cell.mark == "second":
        text = f"<u>{text}</u>"
    if cell.dagger:
        text += DAGGER
    return f"{text} {escape(cell.interval)}" if cell.interval else text
