"""Markup-independent tables for the Markdown, LaTeX and HTML formats: cells, marks and footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bcd_bench.results.layout import Layout
from bcd_bench.results.notes import DAGGER, few_clusters, notes
from bcd_bench.results.ranking import Mark, marks
from bcd_bench.results.rows import ReportRow
from bcd_bench.results.schema import Value
from bcd_bench.types.errors import UsageError

__all__ = ["DAGGER", "REPORTED", "Cell", "Line", "Table", "build_tables"]

REPORTED = "reported"
"""Marks values quoted from a paper."""
SEEDED = "random weights"
"""Marks a run with random weights instead of trained ones."""
UNHASHED = "no fingerprint"
"""Marks a run of a Python object that could not be hashed."""
CONFLICT = "contradicts another record"
"""Marks a record for which another record of the same run has different content."""
RECORD_DEFINITION = (
    "Verified: the maintainers rescored the outputs or regenerated random pairs, and the record is unchanged since. "
    "Self-reported: they did not."
)
REFUSED = "fails its checks"
"""Marks a record that contradicts its own files; a note says how."""
NOT_SCORED = "not scored"
"""Shown if a metric lacks an asset or a package; a note names it and the fix."""


@dataclass(frozen=True)
class Cell:
    """`text` is the value, `interval` the text of its interval ("" without one); both are plain text. `value` contains
    the numbers."""

    text: str
    interval: str = ""
    mark: Mark | None = None
    dagger: bool = False
    value: Value | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Line:
    """One row: `label` names the method, `status` is the reason why it is not ranked ("" if it is ranked)."""

    label: str
    status: str
    cells: tuple[Cell, ...]
    definition: str = ""
    """What the row means, if its label is a column of the records."""


@dataclass(frozen=True)
class Table:
    """All rows of one manifest. Runs of different versions of a suite never share a table."""

    title: str
    headers: tuple[str, ...]
    definitions: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    corner: str = "Method"
    """Header of the labels."""
    suite: str = ""
    """Name and version of the suite, whatever the title says."""
    is_transposed: bool = False
    """True if its rows are columns of the records."""
    group: tuple[str, str, str | None] | None = None
    """`ReportRow.group` of its measured rows."""

    def transposed(self) -> Table:
        """The same table with a row for each column and a column for each row."""
        labels = tuple(f"{line.label} ({line.status})" if line.status else line.label for line in self.lines)
        definitions = self.definitions or ("",) * len(self.headers)
        lines = tuple(
            Line(header, "", tuple(line.cells[index] for line in self.lines), definitions[index])
            for index, header in enumerate(self.headers)
        )
        definitions = tuple(line.definition for line in self.lines)
        return replace(self, headers=labels, definitions=definitions, lines=lines, corner="Column", is_transposed=True)


def build_tables(rows: Sequence[ReportRow], *, suite: str | None = None, layout: Layout | None = None) -> list[Table]:
    """One table for each suite, version and manifest; quoted rows appear in every table of their suite and version.

    Columns in which nobody has a value are left out, unless the layout keeps them. Raises `UsageError` if the layout
    has a caption or a label and there are several tables.
    """
    layout = layout or Layout()
    rows = [row for row in rows if suite is None or row.suite == suite]
    groups: dict[tuple[str, str, str | None], list[ReportRow]] = {}
    for row in rows:
        if not row.reported:
            groups.setdefault(row.group, []).append(row)
    for row in rows:
        if row.reported and not any(key[:2] == (row.suite, row.suite_version) for key in groups):
            groups[row.suite, row.suite_version, None] = []
    if len(groups) > 1 and (layout.caption or layout.label):
        option = "--caption" if layout.caption else "--label"
        suites = sorted({key[0] for key in groups})
        hint = f"bcd-bench report --suite {suites[0]}" if len(suites) > 1 else "pass only the runs of one table"
        raise UsageError(f"{option} is for one table, and this report has {len(groups)}", hint=hint)
    tables = []
    for group, measured in sorted(groups.items(), key=lambda item: [str(part) for part in item[0]]):
        name, version, manifest = group
        quoted = [row for row in rows if row.reported and (row.suite, row.suite_version) == (name, version)]
        if layout.keep_order:
            kept = {id(row) for row in (*quoted, *measured)}
            ordered = [row for row in rows if id(row) in kept]
        else:
            ordered = _ordered(quoted, measured)
        table = replace(_table(f"{name}@{version}", manifest, ordered, layout), group=group)
        tables.append(table.transposed() if layout.transpose else table)
    return tables


def format_number(value: Value, number: float) -> str:
    """Format a number with the decimals of the column, avoiding "-0.00"."""
    text = f"{number:.{value.decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _table(title: str, manifest: str | None, rows: Sequence[ReportRow], layout: Layout) -> Table:
    columns, left_out = _columns(rows, layout)
    column_marks = {name: marks(rows, name) for name in columns}
    labels = _labels(rows, short=layout.short_names)
    mixed = not layout.columns and len({row.verified is None for row in rows if not row.reported}) > 1
    lines = []
    for index, row in enumerate(rows):
        cells = tuple(_cell(row, name, column_marks[name].get(index), layout) for name in columns)
        lines.append(Line(labels[index], _status(row), (*cells, _record_cell(row)) if mixed else cells))
    footer = notes(
        title,
        manifest,
        rows,
        columns,
        layout=layout,
        left_out=left_out,
        marked=any(cell.mark for line in lines for cell in line.cells),
        daggers=any(cell.dagger for line in lines for cell in line.cells),
    )
    headers = tuple(_header(name, value) for name, value in columns.items())
    definitions = tuple(value.definition for value in columns.values())
    if mixed:
        headers, definitions = (*headers, "record"), (*definitions, RECORD_DEFINITION)
    return Table(layout.caption or title, headers, definitions, tuple(lines), tuple(footer), suite=title)


def _columns(rows: Sequence[ReportRow], layout: Layout) -> tuple[dict[str, Value], list[str]]:
    """The columns of a table, and the headline columns that are left out because nobody has a value in them."""
    columns: dict[str, Value] = {}
    for row in sorted(rows, key=lambda row: row.reported):
        for name, value in row.metrics.items():
            if value.headline:
                columns.setdefault(name, value)
    if layout.columns:
        return {name: columns[name] for name in layout.columns if name in columns}, []
    filled = {name for row in rows for name, value in row.metrics.items() if value.value is not None}
    if layout.keep_unscored or not filled & set(columns):
        return columns, []
    return (
        {name: value for name, value in columns.items() if name in filled},
        [name for name in columns if name not in filled],
    )


def _ordered(quoted: Sequence[ReportRow], measured: Sequence[ReportRow]) -> list[ReportRow]:
    """Quoted rows first, then ranked, partial and random-weight runs, then the reference methods."""
    return [*quoted, *sorted(measured, key=lambda row: (row.reference, row.seeded, row.partial))]


def _labels(rows: Sequence[ReportRow], *, short: bool) -> list[str]:
    """Method names, `short` ones without the recipe; for duplicate labels, the name of the weights is added, and if
    necessary the start of the run id."""
    labels = [row.name if short else row.label for row in rows]
    names = [(label, row.reported) for label, row in zip(labels, rows, strict=True)]
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        duplicates = [other for other, other_name in zip(rows, names, strict=True) if other_name == name]
        if len(duplicates) > 1 and len({other.weights for other in duplicates}) > 1:
            labels[index] += f" {row.weights.removesuffix('.safetensors')}"
    names = [(label, row.reported) for label, row in zip(labels, rows, strict=True)]
    for index, (row, name) in enumerate(zip(rows, names, strict=True)):
        if names.count(name) > 1 and row.run_id:
            labels[index] += f" {row.run_id[:8]}"
    return [f"{label} {row.conflict}" if row.conflict else label for label, row in zip(labels, rows, strict=True)]


def _status(row: ReportRow) -> str:
    if row.reported:
        return REPORTED
    statuses = ["reference"] if row.reference else []
    statuses += [SEEDED] if row.seeded else []
    statuses += [UNHASHED] if row.unhashed else []
    statuses += [CONFLICT] if row.conflict else []
    statuses += [REFUSED] if row.refusal else []
    if row.partial:
        total = row.record.suite.n_pairs if row.record else "?"
        statuses.append(f"partial: {row.n_pairs} of {total} pairs")
    return ", ".join(statuses)


def _cell(row: ReportRow, name: str, mark: Mark | None, layout: Layout) -> Cell:
    value = row.metrics.get(name)
    if value is None:
        return Cell("–")
    if _missing(row, value):
        return Cell(NOT_SCORED)
    if value.value is None:
        return Cell("–", dagger=not row.reported)
    interval = ""
    if layout.interval == "none":
        pass
    elif few := few_clusters(row, name):
        interval = f"({few} {'subject' if few == 1 else 'subjects'})"
    elif value.ci_low is not None and value.ci_high is not None and layout.interval == "pm":
        interval = f"± {format_number(value, (value.ci_high - value.ci_low) / 2)}"
    elif value.ci_low is not None and value.ci_high is not None:
        interval = f"[{format_number(value, value.ci_low)}, {format_number(value, value.ci_high)}]"
    return Cell(format_number(value, value.value), interval, mark, not row.reported and not value.covered, value)


def _record_cell(row: ReportRow) -> Cell:
    return Cell("–" if row.reported else "verified" if row.verified else "self-reported")


def _missing(row: ReportRow, value: Value) -> bool:
    info = row.record.metrics.get(value.metric) if row.record else None
    return info is not None and info.missing


def _header(name: str, value: Value) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[value.higher_is_better]
    return f"{name}{f' ({value.unit})' if value.unit else ''}{arrow}"
