"""The comparison of several runs as tables: values with letters, and every pair of runs."""

from __future__ import annotations

from collections.abc import Sequence

from bcd_bench.results.formats.latex import PAGE_WIDTH, document, render_table
from bcd_bench.results.formats.markdown import render_table as render_markdown
from bcd_bench.results.layout import Layout
from bcd_bench.results.table import Cell, Line, Table
from bcd_bench.statistics.compare import Comparison
from bcd_bench.statistics.pairwise import ALPHA, Difference, Tournament

__all__ = ["FORMATS", "comparison_tables", "render"]

FORMATS = ("markdown", "latex", "latex-table")


def render(tournament: Tournament, format_: str = "markdown") -> str:
    """The tables as Markdown, as a LaTeX document ("latex"), or as LaTeX to include in a paper ("latex-table")."""
    tables = comparison_tables(tournament, short=format_ != "markdown")
    if format_ == "markdown":
        return "\n".join(render_markdown(table) for table in tables)
    name = tournament.suite.partition("@")[0]
    whole = format_ == "latex"
    texts = [
        render_table(
            table, Layout(label=f"tab:{name}-{part}"), width=PAGE_WIDTH if whole else None, footnotes=not whole
        )
        for table, part in zip(tables, ("comparison", "differences"), strict=True)
    ]
    return document("\n".join(texts), whole=whole)


def comparison_tables(tournament: Tournament, *, short: bool = False) -> list[Table]:
    """The values of every run with their letters, and the differences of all pairs of runs.

    `short` leaves out p-values before the adjustment and numbers of pairs, which a column of a page has no room for.
    """
    first = {one.comparison.column: one.comparison for one in reversed(tournament.differences)}
    columns = list(tournament.means)
    lines = []
    for index, label in enumerate(tournament.labels):
        cells = []
        for column in columns:
            mean = tournament.means[column][index]
            letter = tournament.letters[column][index] if column in tournament.letters else ""
            cells.append(Cell(_number(first[column], mean), letter))
        lines.append(Line(label, "", tuple(cells)))
    values = Table(
        f"Values on {tournament.suite}",
        tuple(_header(first[column]) for column in columns),
        ("",) * len(columns),
        tuple(lines),
        tuple(_value_notes(tournament)),
        suite=tournament.suite,
    )
    tested = [one for one in tournament.differences if one.p_adjusted is not None]
    differences = Table(
        f"Differences on {tournament.suite}",
        ("difference", "effect size", *(() if short else ("p", "pairs")), "p (Holm)"),
        ("",) * (3 if short else 5),
        tuple(_difference(one, short=short) for one in tested),
        tuple(_difference_notes(tested)),
        corner="Runs",
        suite=tournament.suite,
    )
    return [values, differences]


def _difference(one: Difference, *, short: bool) -> Line:
    compared = one.comparison
    interval = "" if compared.ci_low is None else f"[{_number(compared, compared.ci_low)}, {_high(compared)}]"
    effect = "–" if one.effect is None else f"{one.effect:.2f}"
    of_effect = "" if one.effect_low is None else f"[{one.effect_low:.2f}, {one.effect_high:.2f}]"
    cells = (
        Cell(_number(compared, compared.difference), interval, "best" if one.significant else None),
        Cell(effect, of_effect),
        *(() if short else (Cell(_p(compared.p_value)), Cell(str(compared.n_pairs)))),
        Cell(_p(one.p_adjusted)),
    )
    return Line(f"{one.a} − {one.b}", _header(compared), cells)


def _value_notes(tournament: Tournament) -> list[str]:
    notes = []
    if tournament.letters:
        notes.append(
            f"Means over the pairs that all runs scored. Runs with a letter in common do not differ significantly (p < "
            f"{ALPHA:g} after Holm's adjustment over all pairs of runs in the column, and a 95 % interval without 0)."
        )
    untested = [column for column in tournament.means if column not in tournament.letters]
    if untested:
        notes.append(f"Without values of pairs for all runs, so not tested: {', '.join(untested)}.")
    return notes


def _difference_notes(differences: Sequence[Difference]) -> list[str]:
    clusters = sorted({one.comparison.n_clusters for one in differences})
    notes = [
        "Difference: first run minus second, over the pairs that both scored, bold if significant after adjustment. "
        "Effect size: mean of the differences divided by their standard deviation. Brackets: 95 % intervals, clustered "
        f"by subject ({'/'.join(map(str, clusters)) or 'no'} subjects). p: runs swapped within subjects; p (Holm): "
        "adjusted over all pairs of runs in the column."
    ]
    by_note: dict[str, dict[str, list[str]]] = {}
    for one in differences:
        if one.comparison.note:
            columns = by_note.setdefault(one.comparison.note, {}).setdefault(f"a: {one.a}, b: {one.b}", [])
            columns.append(one.comparison.column)
    for note, by_runs in by_note.items():
        where = "; ".join(f"{runs}: {', '.join(columns)}" for runs, columns in by_runs.items())
        notes.append(f"{note} ({where}).")
    return notes


def _header(one: Comparison) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[one.higher_is_better]
    return f"{one.column}{f' ({one.unit})' if one.unit else ''}{arrow}"


def _number(one: Comparison, number: float | None) -> str:
    if number is None:
        return "–"
    text = f"{number:.{one.decimals}f}"
    return text.lstrip("-") if float(text) == 0 else text


def _high(one: Comparison) -> str:
    return _number(one, one.ci_high)


def _p(p_value: float | None) -> str:
    if p_value is None:
        return "–"
    return "<0.001" if p_value < 0.001 else f"{p_value:.3f}"
