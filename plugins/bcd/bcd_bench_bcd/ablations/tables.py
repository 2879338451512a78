"""The tables of an ablation: ours with intervals, and the paper's own as reported; as Markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from bcd_bench.results.formats import latex, markdown
from bcd_bench.results.table import Cell, Line, Table
from bcd_bench_bcd.ablations.base import Study
from bcd_bench_bcd.ablations.reported import COLUMNS, REPORTED
from bcd_bench_bcd.ablations.runner import Request
from bcd_bench_bcd.ablations.values import Column, VariantValues
from bcd_bench_bcd.ablations.verdicts import Verdict

__all__ = ["our_table", "reported_tables", "shown_columns", "to_csv", "to_json", "to_latex", "to_markdown"]


def shown_columns(variants: Sequence[VariantValues]) -> dict[str, Column]:
    """The columns of the table, each with the values of one of the variants that have it."""
    columns: dict[str, Column] = {}
    for variant in variants:
        for name, column in variant.columns.items():
            if column.headline and column.value is not None:
                columns.setdefault(name, column)
    return columns


def our_table(request: Request, study: Study, variants: Sequence[VariantValues], produced_by: str) -> Table:
    """Our values: one line per variant, and a note for everything that is missing."""
    columns = shown_columns(variants)
    notes = [f"Produced by: {produced_by}", *(_sentence(note) for note in study.notes)]
    lines = []
    for variant, values in zip(study.variants, variants, strict=True):
        status = "" if values.records and not values.missing else "failed"
        if values.missing and any("unfinished" in reason for reason in values.missing):
            status = "unfinished"
        lines.append(Line(variant.name, status, tuple(_cell(values.columns.get(name)) for name in columns)))
        if variant.note:
            notes.append(_sentence(f"{variant.name}: {variant.note}"))
        notes += [_sentence(f"{variant.name}, {reason}") for reason in values.missing]
    numbers = sorted({column.n for values in variants for column in values.columns.values() if column.n})
    records = [record for values in variants for record in values.records.values()]
    if records:
        suite, pairs = records[0].suite, records[0].n_pairs
        part = f"the first {pairs} of its {suite.n_pairs} pairs" if pairs < suite.n_pairs else f"all {pairs} pairs"
        notes.append(f"Suite {suite.name}@{suite.version}, {part} (values over {_range(numbers)} of them).")
    seeds = max((len(values.records) for values in variants), default=0)
    notes.append(
        "Brackets are 95 % intervals over pairs, clustered by subject"
        + (f"; values are means of {seeds} seeds, whose own values follow the interval." if seeds > 1 else ".")
        + ("" if seeds > 1 or not request.ablation.trains else " One seed: they do not cover the training's chance.")
    )
    headers = tuple(_header(name, column) for name, column in columns.items())
    definitions = tuple(column.definition for column in columns.values())
    title = f"Ablation {request.ablation.name}: preset {request.preset} on {request.suite}"
    return Table(title, headers, definitions, tuple(lines), tuple(notes), corner="Variant")


def reported_tables(request: Request) -> list[Table]:
    """The paper's tables of this ablation, each in a table of its own: other clips, metrics and units than ours."""
    tables = []
    for name in request.ablation.source.split(", "):
        if name not in REPORTED:
            continue
        rows = REPORTED[name]
        lines = tuple(Line(label, "reported", tuple(Cell(f"{value:g}") for value in values)) for label, values in rows)
        note = (
            f"Copied from {name} of the paper (talking heads of LRS3, full-size model), without intervals. Its test "
            "pairs, recogniser and mesh fitter are not published: compare directions, not values, with ours."
        )
        headers = tuple(f"{column} {'↑' if column == 'CSIM' else '↓'}" for column in COLUMNS)
        tables.append(Table(f"{name} as reported by the paper", headers, headers, lines, (note,), corner="Variant"))
    return tables


def to_markdown(tables: Sequence[Table], verdicts: Sequence[Verdict]) -> str:
    """The verdicts and all tables."""
    parts = []
    if verdicts:
        parts.append("".join(f"- {markdown.escape(verdict.sentence)}\n" for verdict in verdicts))
    parts += [markdown.render_table(table) for table in tables]
    return "\n".join(parts)


def to_latex(tables: Sequence[Table], verdicts: Sequence[Verdict]) -> str:
    """The tables and, as an itemised list, the verdicts; for inclusion in a paper."""
    items = "".join(rf"\item {latex.escape(verdict.sentence)}" + "\n" for verdict in verdicts)
    listed = f"\\begin{{itemize}}\n{items}\\end{{itemize}}\n" if items else ""
    return latex.document("\n".join(latex.render_table(table) for table in tables) + listed, whole=False)


FIELDS = (
    "ablation", "preset", "suite", "variant", "reported", "source", "seeds", "column", "value", "ci_low", "ci_high",
    "n", "n_clusters", "unit", "higher_is_better", "by_seed", "run_ids", "status",
)  # fmt: skip


def to_csv(request: Request, variants: Sequence[VariantValues]) -> str:
    """Long form: one line per variant and column, then the reported values."""
    out = io.StringIO()
    writer = csv.DictWriter(out, FIELDS, lineterminator="\n", restval="")
    writer.writeheader()
    head = {"ablation": request.ablation.name, "preset": request.preset, "suite": request.suite}
    for values in variants:
        seeds = " ".join(str(seed) for seed in values.records)
        run_ids = " ".join(record.run_id for record in values.records.values())
        line = {**head, "variant": values.name, "reported": False, "seeds": seeds, "run_ids": run_ids}
        line["status"] = "; ".join(values.missing)
        if not values.columns:
            writer.writerow(line)
        for name, column in values.columns.items():
            writer.writerow({**line, "column": name, **_numbers(column)})
    for table, rows in REPORTED.items():
        if table not in request.ablation.source.split(", "):
            continue
        for label, figures in rows:
            for name, figure in zip(COLUMNS, figures, strict=True):
                writer.writerow(
                    {"ablation": request.ablation.name, "variant": label, "reported": True, "source": table,
                     "column": name, "value": figure}
                )  # fmt: skip
    return out.getvalue()


def to_json(
    request: Request,
    study: Study,
    variants: Sequence[VariantValues],
    verdicts: Sequence[Verdict],
    produced_by: str,
    cards: Mapping[str, Any],
) -> dict[str, Any]:
    """Everything: settings, runs and values of the variants, verdicts with their comparisons, and reported values.

    `cards` describes the weights of each variant by seed.
    """
    return {
        "format": 1,
        "ablation": request.ablation.name,
        "summary": request.ablation.summary,
        "source": request.ablation.source,
        "preset": request.preset,
        "suite": request.suite,
        "produced_by": produced_by,
        "overrides": dict(request.overrides),
        "notes": list(study.notes),
        "variants": [
            {
                **variant.to_json(),
                "missing": values.missing,
                "runs": {str(seed): record.run_id for seed, record in values.records.items()},
                "weights": cards.get(variant.name, {}),
                "columns": {name: _numbers(column) for name, column in values.columns.items()},
            }
            for variant, values in zip(study.variants, variants, strict=True)
        ],
        "verdicts": [_verdict_to_json(verdict) for verdict in verdicts],
        "reported": {
            name: {"columns": list(COLUMNS), "rows": [[label, list(values)] for label, values in rows]}
            for name, rows in REPORTED.items()
            if name in request.ablation.source.split(", ")
        },
    }


def _verdict_to_json(verdict: Verdict) -> dict[str, Any]:
    difference = verdict.difference
    body: dict[str, Any] = {
        "claim": verdict.claim.text,
        "decision": verdict.decision,
        "better": verdict.claim.better,
        "worse": verdict.claim.worse,
        "reported": verdict.claim.paper,
        "sentence": verdict.sentence,
    }
    if difference is not None:
        interval = difference.paired.interval
        body |= {
            "column": difference.column,
            "values": [difference.better, difference.worse],
            "difference": difference.paired.difference,
            "interval": None if interval is None else [interval.low, interval.high],
            "by_seed": list(difference.by_seed),
            "n_pairs": difference.paired.n_pairs,
            "n_clusters": difference.paired.n_clusters,
        }
    return body


def _numbers(column: Column) -> dict[str, Any]:
    return {
        "value": column.value,
        "ci_low": column.low,
        "ci_high": column.high,
        "n": column.n,
        "n_clusters": column.n_clusters,
        "unit": column.unit,
        "higher_is_better": column.higher_is_better,
        "by_seed": list(column.by_seed),
    }


def _cell(column: Column | None) -> Cell:
    if column is None or column.value is None:
        return Cell("–")

    def text(number: float) -> str:
        written = f"{number:.{column.decimals}f}"
        return written.lstrip("-") if float(written) == 0 else written

    interval = ""
    if column.low is not None and column.high is not None:
        interval = f"[{text(column.low)}, {text(column.high)}]"
    if len(column.by_seed) > 1:
        interval = f"{interval} ({', '.join(text(value) for value in column.by_seed)})".strip()
    return Cell(text(column.value), interval)


def _header(name: str, column: Column) -> str:
    arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
    return f"{name}{f' ({column.unit})' if column.unit else ''}{arrow}"


def _range(numbers: Sequence[int]) -> str:
    if not numbers:
        return "none"
    return str(numbers[0]) if len(set(numbers)) == 1 else f"{numbers[0]} to {numbers[-1]}"


def _sentence(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
