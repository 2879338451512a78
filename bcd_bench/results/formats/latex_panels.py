"""How a table is split to fit a page at a readable size: panels of columns, then floats of panels."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bcd_bench.results.formats.latex_text import text_width
from bcd_bench.results.table import Cell, Table

__all__ = ["Panel", "PanelRow", "floats"]

SIZE, SMALL = 8.0, 7.0
"""Type sizes in pt."""
GAP = 6.0
"""Space between two columns in pt, twice `\\tabcolsep`."""
LINE = 10.0
"""Height of a line in pt, with its share of the rules."""
TALLEST = 480.0
"""Height of a float in pt: what fits a page with its caption."""
HEADER = 34.0
"""A header is broken into lines of at least this width in pt."""
LABELS = 0.28
"""Share of the width that labels take at most, before they are broken into lines."""


@dataclass(frozen=True)
class PanelRow:
    """`label` has the lines of the first column, `status` the reason why the row is not ranked.

    The values are on the first line, the intervals on the second, or beside the values if `inline`.
    """

    label: tuple[str, ...]
    status: str
    cells: tuple[Cell, ...]
    inline: bool


@dataclass(frozen=True)
class Panel:
    """Some columns of a table, with the rows that have something to show in them."""

    headers: tuple[tuple[str, ...], ...]
    rows: tuple[PanelRow, ...]

    @property
    def height(self) -> float:
        """Height in pt, from above."""
        header = max((len(lines) for lines in self.headers), default=1)
        groups = len({row.status for row in self.rows if row.status})
        return LINE * (header + sum(len(row.label) for row in self.rows) + groups + 1)


def floats(table: Table, width: float) -> list[list[Panel]]:
    """The panels of `table`, each at most `width` pt wide, grouped into floats that each fit a page."""
    limit = width * LABELS
    labels = [_wrapped(line.label, limit, SIZE) for line in table.lines]
    label_width = max(text_width(part, SIZE) for parts in ([table.corner], *labels) for part in parts)
    intervals = [cell.interval for line in table.lines for cell in line.cells if cell.interval]
    inline = all(text[0] == "±" or text.isalnum() for text in intervals) if intervals else False
    headers, widths = [], []
    for index, header in enumerate(table.headers):
        body = max((_cell_width(line.cells[index], inline=inline) for line in table.lines), default=0.0)
        lines = _wrapped(header, max(body, HEADER), SIZE)
        headers.append(tuple(lines))
        widths.append(max([body, *(text_width(line, SIZE) for line in lines)]))
    groups = _balanced(widths, width - label_width)
    panels = [_panel(table, group, headers, labels, split=len(groups) > 1, inline=inline) for group in groups]
    pages: list[list[Panel]] = [[]]
    for panel in panels:
        for part in _by_height(panel):
            if pages[-1] and sum(other.height for other in pages[-1]) + part.height > TALLEST:
                pages.append([])
            pages[-1].append(part)
    return pages


def _balanced(widths: Sequence[float], available: float) -> list[range]:
    """Columns in groups that fit: as few groups as possible, then of nearly equal numbers of columns."""
    fewest = _packed(widths, available, len(widths))
    for most in range(-(-len(widths) // max(1, len(fewest))), len(widths) + 1):
        groups = _packed(widths, available, most)
        if len(groups) == len(fewest):
            return groups
    return fewest


def _packed(widths: Sequence[float], available: float, most: int) -> list[range]:
    groups: list[range] = []
    start, used = 0, 0.0
    for index, column in enumerate(widths):
        if index > start and (used + GAP + column > available or index - start >= most):
            groups.append(range(start, index))
            start, used = index, 0.0
        used += GAP + column
    return [*groups, range(start, len(widths))]


def _panel(
    table: Table,
    columns: range,
    headers: Sequence[tuple[str, ...]],
    labels: Sequence[Sequence[str]],
    *,
    split: bool,
    inline: bool,
) -> Panel:
    rows = []
    for line, parts in zip(table.lines, labels, strict=True):
        cells = tuple(line.cells[index] for index in columns)
        if split and all(cell == Cell("–") for cell in cells):
            continue  # a method that is quoted for other columns only
        needed = 2 if not inline and any(cell.interval for cell in cells) else 1
        label = (*parts, *[""] * (needed - len(parts)))
        rows.append(PanelRow(label, line.status, cells, inline))
    return Panel(tuple(headers[index] for index in columns), tuple(rows))


def _by_height(panel: Panel) -> list[Panel]:
    """The panel, or several with the same columns if it is longer than a page."""
    parts: list[list[PanelRow]] = [[]]
    for row in panel.rows:
        if parts[-1] and Panel(panel.headers, (*parts[-1], row)).height > TALLEST:
            parts.append([])
        parts[-1].append(row)
    return [Panel(panel.headers, tuple(rows)) for rows in parts]


def _wrapped(text: str, limit: float, size: float) -> list[str]:
    """Lines of at most `limit` pt, broken at spaces and after hyphens; a longer word has a line of its own,
    and an arrow stays with its word."""
    lines: list[str] = []
    current = ""
    for word in re.findall(r"[^\s-]*-|[^\s-]+(?: [↑↓])?\s*|\s+", " ".join(text.split())):
        if current.strip() and text_width((current + word).strip(), size) > limit:
            lines.append(current.strip())
            current = ""
        current += word
    return [*lines, current.strip()] if current.strip() or not lines else lines


def _cell_width(cell: Cell, *, inline: bool) -> float:
    dagger = 5.0 if cell.dagger else 0.0
    value = text_width(cell.text, SIZE, bold=cell.mark == "best") + dagger
    if not cell.interval:
        return value
    interval = text_width(cell.interval, SMALL)
    return value + 2 + interval if inline else max(value, interval)
