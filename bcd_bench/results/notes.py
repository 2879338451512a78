"""The notes under a table: provenance, what the marks mean, and why rows are not ranked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from bcd_bench.results.layout import Layout
from bcd_bench.results.ranking import incomparable
from bcd_bench.results.rows import ReportRow, conflict_notes
from bcd_bench.results.schema import MIN_COVERAGE, Value
from bcd_bench.scoring.missing_metrics import by_reason
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE

__all__ = ["DAGGER", "few_clusters", "notes"]

DAGGER = "†"
WHOLE = 0.9995
"""Frame coverage above this value is displayed as 100 %, so no note is needed."""
_LONG_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


def few_clusters(row: ReportRow, name: str) -> int | None:
    """The number of content subjects of a value if it is too small for an interval, else None."""
    number = None if row.reported else row.clusters(name)
    return number if number is not None and number < MIN_CLUSTERS_TO_COMPARE else None


def notes(
    title: str,
    manifest: str | None,
    rows: Sequence[ReportRow],
    columns: Mapping[str, Value],
    *,
    layout: Layout,
    left_out: Sequence[str] = (),
    marked: bool = False,
    daggers: bool = False,
) -> list[str]:
    """The footer of a table, in full sentences, with hashes of 12 digits.

    `left_out` are the columns without any value. `marked` and `daggers` say whether the table has marks or daggers.
    """
    if layout.notes == "none":
        return []
    found = _notes(title, manifest, rows, columns, layout, left_out, marked, daggers)
    return [_LONG_HASH.sub(r"\1", note) for note in found]


def _notes(
    title: str,
    manifest: str | None,
    rows: Sequence[ReportRow],
    columns: Mapping[str, Value],
    layout: Layout,
    left_out: Sequence[str],
    marked: bool,
    daggers: bool,
) -> list[str]:
    measured = [row for row in rows if not row.reported]
    notes = []
    if measured:
        sizes = sorted({row.n_pairs for row in measured if row.n_pairs is not None})
        count = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        code = ", ".join(sorted({str(row.provenance.get("bcd_bench")) for row in measured}))
        notes.append(f"Suite {title}, manifest {(manifest or '')[:12]}, n = {count} pairs; bcd-bench {code}.")
        if layout.interval != "none":
            notes.append(_interval_note(columns, layout))
        verified = [row for row in measured if row.verified]
        if verified:
            share = "All" if len(verified) == len(measured) else f"{len(verified)} of {len(measured)}"
            notes.append(
                f"{share} records are verified: the maintainers rescored the outputs or regenerated random pairs, "
                "and the record is unchanged since (verified.json)."
            )
        failed = [f"{row.method} {row.n_failed}" for row in measured if row.n_failed]
        if failed:
            notes.append(f"Failed pairs, left out of every value: {', '.join(failed)}.")
    if marked:
        notes.append(
            "Best in bold, second underlined, among ranked rows, where the paired difference to every other one (to "
            "every one but the best) is in its favour, over the pairs both scored, and its 95 % interval excludes 0."
        )
    if daggers:
        share = f"{100 * MIN_COVERAGE:.0f} %"
        notes.append(f"{DAGGER} fewer than {share} of the pairs (or of their frames) could be scored; not ranked.")
    notes += _frame_notes(measured, columns)
    if layout.interval != "none" and any(
        few_clusters(row, name) for row in measured for name in columns if name in row.metrics
    ):
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
    notes += [
        f"{row.method} {(row.run_id or '')[:8]} fails its checks and is not ranked: {row.refusal}."
        for row in measured
        if row.refusal
    ]
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
    if any(row.reported for row in rows):
        notes.append(f"Reported figures are quoted, not measured here, and not ranked: {_sources(rows)}.")
    metric_notes: dict[str, list[str]] = {}
    lacking: list[tuple[str, str]] = []
    chosen = {value.metric for value in columns.values()}
    for row in measured:
        for name, info in (row.record.metrics if row.record else {}).items():
            if layout.columns and name not in chosen:
                continue
            if info.missing:
                lacking.append((name, str(info.error)))
            elif info.error:
                metric_notes.setdefault(f"{name}: {info.error}", []).append(row.method)
            for asset, used in ({} if info.missing else info.assets).items():
                model = f"{used['file']} (sha256 {used['sha256'][:12]})"
                metric_notes.setdefault(f"{name} used {model} as {asset}", []).append(row.method)
    unscored = {name for name, _ in lacking}
    empty = [name for name in left_out if not any(_metric(row, name) in unscored for row in measured)]
    if empty:
        notes.append(f"Left out, since no run has a value: {', '.join(empty)}.")
    for reason, names in by_reason(lacking).items():
        notes.append(f"Not scored, something is missing: {', '.join(names)}: {reason}.")
    for metric_note, methods in metric_notes.items():
        notes.append(f"Metric {metric_note} (on {', '.join(dict.fromkeys(methods))}).")
    restrictions = sorted({text for row in measured for text in row.provenance.get("restrictions", ())})
    if restrictions:
        notes.append(f"Restricted licences took part: {'; '.join(restrictions)}.")
    return notes


def _sources(rows: Sequence[ReportRow]) -> str:
    """Where the quoted rows are from; what holds for several sources is said once."""
    sources: dict[str, dict[str, list[str]]] = {}
    for row in rows:
        if row.reported:
            methods = sources.setdefault(row.provenance.get("note") or "", {})
            methods.setdefault(row.provenance["source"], []).append(row.method)
    texts = []
    for note, by_source in sources.items():
        text = "; ".join(f"{', '.join(methods)}: {source}" for source, methods in by_source.items())
        texts.append(f"{text} ({note})" if note else text)
    return "; ".join(texts)


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


def _metric(row: ReportRow, column: str) -> str:
    return row.metrics[column].metric if column in row.metrics else ""


def _frame_notes(measured: Sequence[ReportRow], columns: Mapping[str, Value]) -> list[str]:
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


def _interval_note(columns: Mapping[str, Value], layout: Layout) -> str:
    methods = sorted({value.ci_method for value in columns.values() if value.ci_method})
    shown = "Brackets: 95 % intervals" if layout.interval == "bracket" else "±: half the width of the 95 % intervals"
    text = f"{shown} over pairs, clustered by subject"
    if "wilson" in methods:
        text += "; Wilson if all pairs agree (a rate of 0 or 100 %)"
    if "delete-group jackknife" in methods:
        text += "; delete-group jackknife for set metrics"
    return text + "."
