"""Markup-independent tables for the Markdown, LaTeX and HTML formats: cells, marks and footer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bcd_bench.results.ranking import Mark, incomparable, marks
from bcd_bench.results.rows import ReportRow, conflict_notes
from bcd_bench.results.schema import MIN_COVERAGE, Value
from bcd_bench.scoring.missing_metrics import by_reason
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE

__all__ = ["Cell", "Line", "Table", "build_tables"]

DAGGER = "†"
SEEDED = "random weights"
"""Marks a run with random weights instead of trained ones."""
UNHASHED = "no fingerprint"
"""Marks a run of a Python object that could not be hashed."""
CONFLICT = "contradicts another record"
"""Marks a record for which another record of the same run has different content."""
WHOLE = 0.9995
"""Frame coverage above this value is displayed as 100 %, so no note is needed."""
NOT_SCORED = "not scored"
"""Shown if a metric lacks an asset or a package; a note names it and the fix."""


@dataclass(frozen=True)
class Cell:
    """`text` is the value, `interval` the text of its interval ("" without one); both are plain text."""

    text: str
    interval: str = ""
    mark: Mark | None = None
    dagger: bool = False


@dataclass(frozen=True)
class Line:
    """One row: `label` names the method, `status` is the reason why it is not ranked ("" if it is ranked)."""

    label: str
    status: str
    cells: tuple[Cell, ...]


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


def build_tables(rows: Sequence[ReportRow], *, suite: str | None = None) -> list[Table]:
    """One table for each suite, version and manifest; quoted rows appear in every table of their suite and version."""
    rows = [row for row in rows if suite is None or row.suite == suite]
    groups: dict[tuple[str, str, str | None], list[ReportRow]] = {}
    for row in rows:
        if not row.reported:
            groups.setdefault((row.suite, row.suite_version, row.manifest_sha256), []).append(row)
    for row in rows:
        if row.reported and not any(key[:2] == (row.suite, row.suite_version) for key in groups):
            groups[row.suite, row.suite_version, None] = []
    tables = []
    for (name, version, manifest), measured in sorted(groups.items(), key=lambda item: [str(part) for part in item[0]]):
        quoted = [row for row in rows if row.reported and (row.suite, row.suite_version) == (name, version)]
        tables.append(_table(f"{name}@{version}", manifest, _ordered(quoted, measured)))
    return tables


def format_number(value: Value, number: float) -> str:
    """Format a number with the decimals of the column, avoiding "-0.00"."""
    text = f"{number:.{value.decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _table(title: str, manifest: str | None, rows: Sequence[ReportRow]) -> Table:
    columns: dict[str, Value] = {}
    for row in sorted(rows, key=lambda row: row.reported):
        for name, value in row.metrics.items():
            if value.headline:
                columns.setdefault(name, value)
    column_marks = {name: marks(rows, name) for name in columns}
    labels = _labels(rows)
    lines = []
    for index, row in enumerate(rows):
        cells = tuple(_cell(row, name, column_marks[name].get(index)) for name in columns)
        lines.append(Line(labels[index], _status(row), cells))
    headers = tuple(_header(name, value) for name, value in columns.items())
    definitions = tuple(value.definition for value in columns.values())
    return Table(title, headers, definitions, tuple(lines), tuple(_notes(title, manifest, rows, columns, lines)))


def _ordered(quoted: Sequence[ReportRow], measured: Sequence[ReportRow]) -> list[ReportRow]:
    """Quoted rows first, then ranked, partial and random-weight runs, then the reference methods."""
    return [*quoted, *sorted(measured, key=lambda row: (row.reference, row.seeded, row.partial))]


def _labels(rows: Sequence[ReportRow]) -> list[str]:
    """Method names; for duplicate labels, the name of the weights is added, and if necessary the start of the run
    id."""
    labels = [row.label for row in rows]
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
        return "reported"
    statuses = ["reference"] if row.reference else []
    statuses += [SEEDED] if row.seeded else []
    statuses += [UNHASHED] if row.unhashed else []
    statuses += [CONFLICT] if row.conflict else []
    if row.partial:
        total = row.record.suite.n_pairs if row.record else "?"
        statuses.append(f"partial: {row.n_pairs} of {total} pairs")
    return ", ".join(statuses)


def _cell(row: ReportRow, name: str, mark: Mark | None) -> Cell:
    value = row.metrics.get(name)
    if value is None:
        return Cell("–")
    if _missing(row, value):
        return Cell(NOT_SCORED)
    if value.value is None:
        return Cell("–", dagger=not row.reported)
    interval = ""
    if few := _few_clusters(row, name):
        interval = f"({few} {'subject' if few == 1 else 'subjects'})"
    elif value.ci_low is not None and value.ci_high is not None:
        interval = f"[{format_number(value, value.ci_low)}, {format_number(value, value.ci_high)}]"
    return Cell(format_number(value, value.value), interval, mark, not row.reported and not value.covered)


def _few_clusters(row: ReportRow, name: str) -> int | None:
    """The number of content subjects of a value if it is too small for an interval, else None."""
    number = None if row.reported else row.clusters(name)
    return number if number is not None and number < MIN_CLUSTERS_TO_COMPARE else None


def _missing(row: ReportRow, value: Value) -> bool:
    info = row.record.metrics.get(value.metric) if row.record else None
    return info is not None and info.missing


def _header(name: str, value: Value) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[value.higher_is_better]
    return f"{name}{f' ({value.unit})' if value.unit else ''}{arrow}"


def _notes(
    title: str, manifest: str | None, rows: Sequence[ReportRow], columns: dict[str, Value], lines: Sequence[Line]
) -> list[str]:
    """The footer: provenance of the table, in full sentences."""
    measured = [row for row in rows if not row.reported]
    notes = []
    if measured:
        sizes = sorted({row.n_pairs for row in measured if row.n_pairs is not None})
        count = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        code = ", ".join(sorted({str(row.provenance.get("bcd_bench")) for row in measured}))
        notes.append(f"Suite {title}, manifest {(manifest or '')[:12]}, n = {count} pairs; bcd-bench {code}.")
        notes.append(_interval_note(columns))
        failed = [f"{row.method} {row.n_failed}" for row in measured if row.n_failed]
        if failed:
            notes.append(f"Failed pairs, left out of every value: {', '.join(failed)}.")
    if any(cell.mark for line in lines for cell in line.cells):
        notes.append(
            "Best in bold, second underlined, among ranked rows, where the paired difference to every other one (to "
            "every one but the best) is in its favour, over the pairs both scored, and its 95 % interval excludes 0."
        )
    if any(cell.dagger for line in lines for cell in line.cells):
        share = f"{100 * MIN_COVERAGE:.0f} %"
        notes.append(f"{DAGGER} fewer than {share} of the pairs (or of their frames) could be scored; not ranked.")
    notes += _frame_notes(measured, columns)
    if any(_few_clusters(row, name) for row in measured for name in columns if name in row.metrics):
        notes.append(
            f"With fewer than {MIN_CLUSTERS_TO_COMPARE} subjects no interval is reliable: their number is shown in its "
            "place, and such rows are not ranked."
        )
    reasons: dict[str, list[str]] = {}
    for name in columns:
        if sum(row.ranked and name in row.metrics for row in measured) > 1 and (why := incomparable(rows, name)):
            reasons.setdefault(why, []).append(name)
    for why, names in reasons.items():
        notes.append(
            f"Do not compare the values of {', '.join(names)} with one another: they were {why}. They are not ranked; "
            "`bcd-bench score RUN…` scores runs again."
        )
    notes += [f"{note}." for note in conflict_notes(rows)]
    if any(row.reference for row in measured):
        notes.append("Reference methods bracket the scale and are not ranked.")
    if seeded := sorted({row.method for row in measured if row.seeded}):
        notes.append(
            f"Run with random weights, which were never learned: {', '.join(seeded)}. Their figures show that "
            "the pipeline works, say nothing about the methods, and are not ranked."
        )
    if unhashed := sorted({row.method for row in measured if row.unhashed}):
        notes.append(
            f"Python objects whose source or state could not be hashed: {', '.join(unhashed)}. Nobody can tell whether "
            "two such runs are of the same method, so they are not ranked."
        )
    notes += _recipe_notes(measured)
    sources: dict[str, list[str]] = {}
    for row in rows:
        if row.reported:
            note = row.provenance.get("note")
            sources.setdefault(f"{row.provenance['source']}{f' ({note})' if note else ''}", []).append(row.method)
    if sources:
        quoted = "; ".join(f"{', '.join(methods)}: {source}" for source, methods in sources.items())
        notes.append(f"Reported figures are quoted, not measured here, and not ranked: {quoted}.")
    metric_notes: dict[str, list[str]] = {}
    lacking: list[tuple[str, str]] = []
    for row in measured:
        for name, info in (row.record.metrics if row.record else {}).items():
            if info.missing:
                lacking.append((name, str(info.error)))
            elif info.error:
                metric_notes.setdefault(f"{name}: {info.error}", []).append(row.method)
            for asset, used in ({} if info.missing else info.assets).items():
                model = f"{used['file']} (sha256 {used['sha256'][:12]})"
                metric_notes.setdefault(f"{name} used {model} as {asset}", []).append(row.method)
    for reason, names in by_reason(lacking).items():
        notes.append(f"Not scored, something is missing: {', '.join(names)}: {reason}.")
    for metric_note, methods in metric_notes.items():
        notes.append(f"Metric {metric_note} (on {', '.join(dict.fromkeys(methods))}).")
    restrictions = sorted({text for row in measured for text in row.provenance.get("restrictions", ())})
    if restrictions:
        notes.append(f"Restricted licences took part: {'; '.join(restrictions)}.")
    return notes


def _recipe_notes(measured: Sequence[ReportRow]) -> list[str]:
    """Training recipes of the rows: techniques, and whether labels were used."""
    recipes: dict[str, list[str]] = {}
    for row in measured:
        if row.recipe is None:
            continue
        parts = ", ".join(row.recipe.parts) or row.recipe.label
        source = f"learned from labels ({', '.join(row.recipe.labels)})" if row.recipe.labels else "self-supervised"
        text = f"Recipe of {row.label}: {parts}; {source}."
        recipes.setdefault(text, []).append(row.weights)
    return [
        text if len(recipes) == 1 or not any(weights) else f"{text[:-1]} (weights {', '.join(dict.fromkeys(weights))})."
        for text, weights in recipes.items()
    ]


def _frame_notes(measured: Sequence[ReportRow], columns: dict[str, Value]) -> list[str]:
    """Notes on the values with a dagger because of skipped frames."""
    columns_by_share: dict[tuple[str, str], list[str]] = {}
    for row in measured:
        for name in columns:
            value = row.metrics.get(name)
            if value is None or value.covered or value.frame_coverage is None or value.frame_coverage > WHOLE:
                continue
            columns_by_share.setdefault((row.label, f"{100 * value.frame_coverage:.3g} %"), []).append(name)
    return [
        f"{label}: {', '.join(names)} {'rests' if len(names) == 1 else 'rest'} on {share} of the frames."
        for (label, share), names in columns_by_share.items()
    ]


def _interval_note(columns: dict[str, Value]) -> str:
    methods = sorted({value.ci_method for value in columns.values() if value.ci_method})
    text = "Brackets: 95 % intervals over pairs, clustered by subject"
    if "wilson" in methods:
        text += "; Wilson if all pairs agree (a rate of 0 or 100 %)"
    if "delete-group jackknife" in methods:
        text += "; delete-group jackknife for set metrics"
    return text + "."
