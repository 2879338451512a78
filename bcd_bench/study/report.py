"""The results of a study as tables: scores, agreement, differences, correlations, and Table 2 of the paper."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from bcd_bench.results.formats import html, latex, markdown
from bcd_bench.results.layout import Layout
from bcd_bench.results.table import Cell, Line, Table
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE
from bcd_bench.statistics.pairwise import ALPHA, Difference
from bcd_bench.study.analysis import Evaluation
from bcd_bench.study.correlation import Correlations
from bcd_bench.study.design import Study
from bcd_bench.study.questions import PAPER_GROUPS, PAPER_RATERS, PAPER_SCORES, QUESTIONS

__all__ = ["FORMATS", "render", "study_tables"]

FORMATS = ("markdown", "csv", "json", "html", "latex", "latex-table")
CSV_FIELDS = ("table", "row", "question", "value", "ci_low", "ci_high", "p", "p_holm", "n")
_NAMES = tuple(question.name for question in QUESTIONS)
_HEADERS = tuple(f"{name} ↑" for name in _NAMES)
_DEFINITIONS = tuple(f"{question.text} 1 {question.lowest}, 5 {question.highest}" for question in QUESTIONS)


def render(study: Study, evaluation: Evaluation, correlations: Correlations, format_: str = "markdown") -> str:
    """The results in one of `FORMATS`; "latex" is a document, "latex-table" is to include in a paper."""
    if format_ == "csv":
        return _csv(evaluation, correlations)
    if format_ == "json":
        return json.dumps(_json(study, evaluation, correlations), indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    tables = study_tables(study, evaluation, correlations, short=format_.startswith("latex"))
    if format_ == "markdown":
        return "\n".join(markdown.render_table(table) for table in tables.values())
    if format_ == "html":
        return html.render_tables(list(tables.values()), "User study")
    whole = format_ == "latex"
    texts = [
        latex.render_table(
            table,
            Layout(label=f"tab:study-{name}"),
            width=latex.PAGE_WIDTH if whole else None,
            footnotes=not whole,
        )
        for name, table in tables.items()
    ]
    return latex.document("\n".join(texts), whole=whole)


def study_tables(
    study: Study, evaluation: Evaluation, correlations: Correlations, *, short: bool = False
) -> dict[str, Table]:
    """Name -> table. The paper's scores have a table of their own, since they are of other videos and raters.

    `short` leaves out p-values before the adjustment and numbers of ratings, which a column of a page has no room for.
    """
    tables = {"scores": _scores(study, evaluation), "agreement": _agreement(study, evaluation)}
    if evaluation.differences:
        tables["differences"] = _differences(study, evaluation, short=short)
    if correlations.rows:
        tables["correlation"] = _correlation(study, correlations, within=False)
        tables["within"] = _correlation(study, correlations, within=True)
    elif correlations.notes:
        tables["scores"] = _with_notes(tables["scores"], [f"{note}." for note in correlations.notes])
    tables["paper"] = _paper()
    return tables


def _with_notes(table: Table, notes: Sequence[str]) -> Table:
    return Table(table.title, table.headers, table.definitions, table.lines, (*table.notes, *notes), suite=table.suite)


def _scores(study: Study, evaluation: Evaluation) -> Table:
    raters = evaluation.raters
    means = {(one.method, one.question): one for one in evaluation.means}
    enough = raters.used >= MIN_CLUSTERS_TO_COMPARE
    best = {
        name: max(
            (one.value for one in evaluation.means if one.question == name and one.value is not None), default=None
        )
        for name in _NAMES
    }
    lines = []
    order = sorted(study.methods, key=lambda method: -(means[method.label, _NAMES[0]].value or 0.0))
    for method in order:
        cells = []
        index = study.methods.index(method)
        for name in _NAMES:
            mean = means[method.label, name]
            letter = evaluation.letters[name][index] if enough and name in evaluation.letters else ""
            interval = " ".join(part for part in (_interval(mean.ci_low, mean.ci_high), letter) if part)
            mark = "best" if enough and mean.value is not None and mean.value == best[name] else None
            cells.append(Cell(_number(mean.value), interval, mark))  # type: ignore[arg-type]
        lines.append(Line(method.label, "", tuple(cells)))
    checks = str(len(study.checks) or "none")
    notes = [
        f"Mean scores from 1 to 5 by {raters.used} of {raters.started} raters over {len(study.groups)} pairs of "
        f"{study.suite}, with 95 % intervals clustered by rater. Left out: {raters.failed} who failed attention checks "
        f"(the study has {checks}), and {raters.unfinished} who stopped early."
    ]
    if not enough:
        notes.append(f"Too few raters for intervals, letters and a best value: at least {MIN_CLUSTERS_TO_COMPARE}.")
    elif evaluation.letters:
        notes.append(
            f"Methods with a letter in common do not differ significantly (p < {ALPHA:g} after Holm's adjustment over "
            "all pairs of methods for the question, and a 95 % interval without 0)."
        )
    return Table(f"User study on {study.suite}", _HEADERS, _DEFINITIONS, tuple(lines), tuple(notes), suite=study.suite)


def _agreement(study: Study, evaluation: Evaluation) -> Table:
    cells = tuple(Cell(_number(one.alpha), _interval(one.ci_low, one.ci_high)) for one in evaluation.agreement)
    note = (
        "Krippendorff's alpha for ordinal ratings: 1 if all raters agree, 0 if they agree as by chance. 95 % intervals "
        "clustered by pair of clips."
    )
    return Table(
        "Agreement of raters", _NAMES, _DEFINITIONS, (Line("alpha", "", cells),), (note,), corner="", suite=study.suite
    )


def _differences(study: Study, evaluation: Evaluation, *, short: bool) -> Table:
    headers = ("difference", "effect size", *(() if short else ("p", "ratings")), "p (Holm)")
    lines = []
    for one in evaluation.differences:
        compared = one.comparison
        cells = (
            Cell(_number(compared.difference), _interval(compared.ci_low, compared.ci_high), _bold(one)),  # type: ignore[arg-type]
            Cell(_number(one.effect), _interval(one.effect_low, one.effect_high)),
            *(() if short else (Cell(_p(compared.p_value)), Cell(str(compared.n_pairs)))),
            Cell(_p(one.p_adjusted)),
        )
        lines.append(Line(f"{one.a} − {one.b}", compared.column, cells))
    note = (
        "Difference: mean of the first method's scores minus the second's, over ratings of both by one rater for one "
        "pair; bold if significant after adjustment. Effect size: mean of the differences divided by their standard "
        "deviation. Brackets: 95 % intervals clustered by rater. p: methods swapped within raters; p (Holm): adjusted "
        "over all pairs of methods for the question."
    )
    return Table(
        "Differences of methods",
        headers,
        ("",) * len(headers),
        tuple(lines),
        (note,),
        corner="Methods",
        suite=study.suite,
    )


def _bold(one: Difference) -> str | None:
    return "best" if one.significant else None


def _correlation(study: Study, correlations: Correlations, *, within: bool) -> Table:
    by_cell = {(one.column, one.question): one for one in correlations.rows}
    columns = list(dict.fromkeys(one.column for one in correlations.rows))

    def value(column: str, question: str) -> tuple[float | None, float | None, float | None]:
        one = by_cell[column, question]
        if within:
            return one.within, one.within_low, one.within_high
        return one.rho, one.ci_low, one.ci_high

    def strength(column: str) -> float:
        return max((abs(v) for name in _NAMES if (v := value(column, name)[0]) is not None), default=-1.0)

    best = {
        name: max((v for column in columns if (v := value(column, name)[0]) is not None), default=None)
        for name in _NAMES
    }
    lines = []
    for column in sorted(columns, key=lambda one: -strength(one)):
        cells = []
        for name in _NAMES:
            rho, low, high = value(column, name)
            believed = rho is not None and rho == best[name] and low is not None and low > 0
            cells.append(Cell(_number(rho), _interval(low, high), "best" if believed else None))
        lines.append(Line(column, "", tuple(cells)))
    what = (
        "mean over pairs of clips of the rank correlation (Spearman) of a metric with the mean scores of the methods: "
        "does the metric order the methods on one pair as people do?"
        if within
        else "Rank correlation (Spearman) of a metric with the mean score of a video, over all videos of all methods."
    )
    notes = [
        f"{what[0].upper()}{what[1:]} 1 is agreement: values that are better if lower count with the opposite sign. "
        f"95 % intervals over content subjects and raters, both resampled ({correlations.subjects} subjects, "
        f"{correlations.raters} raters). Bold: the highest correlation for the question, if its interval is above 0.",
        *(f"{note}." for note in correlations.notes if not within),
    ]
    if min(correlations.subjects, correlations.raters) < MIN_CLUSTERS_TO_COMPARE:
        few = "content subjects" if correlations.subjects < MIN_CLUSTERS_TO_COMPARE else "raters"
        notes.append(f"Too few {few} for intervals: at least {MIN_CLUSTERS_TO_COMPARE}.")
    title = "Metrics and ratings, within pairs" if within else "Metrics and ratings"
    return Table(title, _NAMES, _DEFINITIONS, tuple(lines), tuple(notes), corner="Column", suite=study.suite)


def _paper() -> Table:
    lines = tuple(
        Line(method, "reported", tuple(Cell(f"{score:.2f}") for score in scores))
        for method, scores in PAPER_SCORES.items()
    )
    note = (
        f"Table 2 of the paper, as reported: {PAPER_RATERS} raters, {PAPER_GROUPS} groups of other videos, without "
        "intervals. Not comparable with the scores of this study."
    )
    return Table("Table 2 of the paper (reported)", _HEADERS, _DEFINITIONS, lines, (note,))


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:.2f}"
    return text.lstrip("-") if float(text) == 0 else text


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"[{_number(low)}, {_number(high)}]"


def _p(value: float | None) -> str:
    return "–" if value is None else "<0.001" if value < 0.001 else f"{value:.3f}"


def _csv(evaluation: Evaluation, correlations: Correlations) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(CSV_FIELDS)
    writer.writerows(_csv_rows(evaluation, correlations))
    return out.getvalue()


def _csv_rows(evaluation: Evaluation, correlations: Correlations) -> Iterator[tuple[Any, ...]]:
    """Rows with the cells `CSV_FIELDS`."""
    for mean in evaluation.means:
        yield "score", mean.method, mean.question, mean.value, mean.ci_low, mean.ci_high, None, None, mean.n
    for one in evaluation.agreement:
        yield "alpha", "", one.question, one.alpha, one.ci_low, one.ci_high, None, None, evaluation.raters.used
    for difference in evaluation.differences:
        compared = difference.comparison
        row = f"{difference.a} - {difference.b}"
        numbers = (compared.difference, compared.ci_low, compared.ci_high, compared.p_value, difference.p_adjusted)
        yield "difference", row, compared.column, *numbers, compared.n_pairs
    for rho in correlations.rows:
        yield "correlation", rho.column, rho.question, rho.rho, rho.ci_low, rho.ci_high, None, None, rho.n
        inside = (rho.within, rho.within_low, rho.within_high)
        yield "correlation within pairs", rho.column, rho.question, *inside, None, None, rho.n
    for method, scores in PAPER_SCORES.items():
        for name, score in zip(_NAMES, scores, strict=True):
            yield "reported in Table 2 of the paper", method, name, score, None, None, None, None, None


def _json(study: Study, evaluation: Evaluation, correlations: Correlations) -> dict[str, Any]:
    return {
        "study": study.id,
        "suite": study.suite,
        "methods": [{"label": method.label, "run_id": method.run_id} for method in study.methods],
        "pairs": [group.pair for group in study.groups],
        "raters": asdict(evaluation.raters),
        "scores": [asdict(one) for one in evaluation.means],
        "agreement": [asdict(one) for one in evaluation.agreement],
        "differences": [asdict(one) for one in evaluation.differences],
        "letters": {name: list(texts) for name, texts in evaluation.letters.items()},
        "correlations": [asdict(one) for one in correlations.rows],
        "notes": list(correlations.notes),
        "reported": {method: dict(zip(_NAMES, scores, strict=True)) for method, scores in PAPER_SCORES.items()},
    }
