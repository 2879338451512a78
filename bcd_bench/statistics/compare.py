"""Paired comparison of two runs: difference, clustered interval, and permutation p-value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bcd_bench.results.schema import MIN_COVERAGE, PairValues, RunRecord, Value, load_records
from bcd_bench.statistics.comparability import why_incomparable
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE, paired_difference, sign_flip_p_value
from bcd_bench.types.errors import UsageError
from bcd_bench.verification.files import first_failure

__all__ = ["Comparison", "compare_runs", "render_comparisons", "single_record"]


@dataclass(frozen=True)
class Comparison:
    """One column of two runs. `a` and `b` are the means over the pairs scored in both, `difference` is a - b, and
    `significant` states whether its 95 % interval excludes 0, given enough content subjects.

    Rates are in percent. Interval and p-value are None for columns without per-pair values (entropies, set metrics);
    `a` and `b` are then the values over each run's own pairs, as stated in `note`. If the two values were scored
    differently (`comparability.why_incomparable`), the difference is None as well. With fewer than
    `MIN_CLUSTERS_TO_COMPARE` content subjects the interval is None; the p-value is exact for any number.
    """

    column: str
    metric: str
    unit: str
    higher_is_better: bool | None
    decimals: int
    a: float | None
    b: float | None
    difference: float | None
    ci_low: float | None
    ci_high: float | None
    p_value: float | None
    n_pairs: int
    n_clusters: int
    significant: bool = False
    note: str = ""

    @property
    def better(self) -> str | None:
        """ "a" or "b" if the interval excludes 0 and the column has a direction, else None."""
        if not self.significant or self.difference is None or self.higher_is_better is None:
            return None
        return "a" if (self.difference > 0) == self.higher_is_better else "b"


def compare_runs(a: Path, b: Path, metrics: Sequence[str] = ()) -> list[Comparison]:
    """Compare two runs (run folders or record files) of one suite in every column that both contain.

    `metrics` selects metrics or columns by name. Raises `UsageError` if the runs are of different suites or share no
    column, or if a path does not contain exactly one record.
    """
    (folder_a, record_a), (folder_b, record_b) = single_record(a), single_record(b)
    if record_a.suite.manifest_sha256 != record_b.suite.manifest_sha256:
        raise UsageError(f"the runs do not use the same pairs: {_suite(record_a)} and {_suite(record_b)}")
    # a column shared by two metrics belongs to the metric scored first, which may differ between the runs
    columns_a, columns_b = record_a.values, record_b.values
    shared = [name for name in columns_a if name in columns_b and columns_a[name].metric == columns_b[name].metric]
    requested = set(metrics)
    selected = [
        name for name in shared if not requested or name in requested or record_a.values[name].metric in requested
    ]
    missing = requested - set(selected) - {record_a.values[name].metric for name in selected}
    if missing or not selected:
        lacking = f"no metric or column {', '.join(sorted(missing))}" if missing else "no column"
        raise UsageError(
            f"the runs share {lacking}; both have: {', '.join(shared) or 'nothing'}", hint=f"bcd-bench score {a} {b}"
        )
    values_a, values_b = PairValues.load(folder_a), PairValues.load(folder_b)
    comparisons = []
    for name in selected:
        left, right = record_a.values[name], record_b.values[name]
        reason = why_incomparable([record_a, record_b], name)
        if reason is None:
            comparisons.append(_with_frames(_compare(name, left, right, values_a, values_b), record_a, record_b))
        else:
            comparisons.append(_comparison(name, left, left.value, right.value, None, note=f"{reason}: not comparable"))
    refusals = [
        (label, first_failure(*one)) for label, one in (("a", (record_a, folder_a)), ("b", (record_b, folder_b)))
    ]
    return [_with_refusals(_with_seeds(one, record_a, record_b), refusals) for one in comparisons]


def render_comparisons(comparisons: Sequence[Comparison], label_a: str, label_b: str) -> str:
    """Render a Markdown table of comparisons, with the better run of each row in bold."""
    from bcd_bench.results.formats.markdown import escape

    rows = [["Column", f"a: {escape(label_a)}", f"b: {escape(label_b)}", "a - b", "95 % interval", "p", "n"]]
    for comparison in comparisons:
        left, right = (
            f"**{_number(comparison, x)}**" if comparison.better == y else _number(comparison, x)
            for x, y in ((comparison.a, "a"), (comparison.b, "b"))
        )
        interval = (
            "–"
            if comparison.ci_low is None
            else f"\\[{_number(comparison, comparison.ci_low)}, {_number(comparison, comparison.ci_high)}\\]"
        )
        p_value = (
            "–"
            if comparison.p_value is None
            else ("<0.001" if comparison.p_value < 0.001 else f"{comparison.p_value:.3f}")
        )
        name = escape(f"{comparison.column} ({comparison.unit})" if comparison.unit else comparison.column)
        rows.append(
            [
                name,
                left,
                right,
                _number(comparison, comparison.difference),
                interval,
                escape(p_value),
                str(comparison.n_pairs or "–"),
            ]
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" + " ---: |" * (len(rows[0]) - 1))
    columns_by_note: dict[str, list[str]] = {}
    for comparison in comparisons:
        if comparison.note:
            columns_by_note.setdefault(comparison.note, []).append(comparison.column)
    notes = [f"- {escape(', '.join(columns))}: {escape(note)}" for note, columns in columns_by_note.items()]
    clusters = sorted({comparison.n_clusters for comparison in comparisons if comparison.n_clusters})
    if clusters:
        notes.append(
            f"- Over the pairs both runs scored; intervals and p-values clustered by subject "
            f"({'/'.join(str(n) for n in clusters)} clusters), p by swapping the runs within clusters."
        )
    return "\n".join([*lines, "", *notes]) + "\n"


def single_record(path: Path) -> tuple[Path, RunRecord]:
    """The folder and the record of one run. Raises `UsageError` if `path` has none or several."""
    records = load_records([path])
    if len(records) != 1:
        contents = "no record" if not records else f"{len(records)} records"
        raise UsageError(
            f"{path} contains {contents}; specify one run folder",
            hint=f"bcd-bench score {path}" if not records else None,
        )
    return records[0][0].parent, records[0][1]


def _suite(record: RunRecord) -> str:
    return f"{record.suite.name}@{record.suite.version} ({record.suite.manifest_sha256[:12]})"


def _compare(name: str, a: Value, b: Value, values_a: PairValues | None, values_b: PairValues | None) -> Comparison:
    scale = 100.0 if a.kind == "rate" else 1.0
    left = values_a.by_pair(name) if values_a else {}
    right = values_b.by_pair(name) if values_b else {}
    common = [pair for pair in left if pair in right]
    if not common or values_a is None:
        difference = None if a.value is None or b.value is None else a.value - b.value
        note = "no pair was scored in both runs"
        if a.kind in ("set", "derived"):
            note = "no per-pair values, so no paired interval"
            if a.n_failed or b.n_failed:
                note += "; pairs failed, so the two may be based on different pairs"
        elif values_a is None or values_b is None:
            note = "values.json is missing, so no paired interval"
        return _comparison(name, a, a.value, b.value, difference, note=note)
    clusters = values_a.cluster_by_pair()
    x = scale * np.array([left[pair] for pair in common], dtype=np.float64)
    y = scale * np.array([right[pair] for pair in common], dtype=np.float64)
    names = [clusters[pair] for pair in common]
    paired = paired_difference(x, y, names)
    interval = paired.interval
    note = ""
    if paired.n_clusters < MIN_CLUSTERS_TO_COMPARE:
        interval = None  # unreliable with so few clusters
        note = f"too few subjects for a 95 % interval ({paired.n_clusters})"
    elif interval is not None and interval.low == interval.high:
        note = "the difference is the same on every pair, so the interval has no width"
    return _comparison(
        name,
        a,
        float(x.mean()),
        float(y.mean()),
        paired.difference,
        ci=None if interval is None else (interval.low, interval.high),
        p_value=sign_flip_p_value(x, y, names),
        counts=(paired.n_pairs, paired.n_clusters),
        significant=paired.significant,
        note=note,
    )


def _with_seeds(one: Comparison, a: RunRecord, b: RunRecord) -> Comparison:
    """Mark comparisons with a run on random weights as not significant: such a run only shows that the pipeline
    works."""
    seeded = [label for label, record in (("a", a), ("b", b)) if record.seeded]
    if not seeded:
        return one
    reason = f"{' and '.join(seeded)} ran with random weights, a test of the pipeline"
    return replace(one, significant=False, note="; ".join(part for part in (one.note, reason) if part))


def _with_refusals(one: Comparison, refusals: Sequence[tuple[str, str]]) -> Comparison:
    """Mark comparisons with a record that contradicts its own files as not significant."""
    reasons = [f"{label} fails its checks: {reason}" for label, reason in refusals if reason]
    if not reasons:
        return one
    return replace(one, significant=False, note="; ".join(part for part in (one.note, *reasons) if part))


def _with_frames(one: Comparison, a: RunRecord, b: RunRecord) -> Comparison:
    """Mark values that skip too many frames as not significant: the skipped frames may be the worst ones."""
    shares = [(label, record.values[one.column].frame_coverage) for label, record in (("a", a), ("b", b))]
    few = [(label, share) for label, share in shares if share is not None and share < MIN_COVERAGE]
    if not few:
        return one
    reasons = [f"{label} rests on {100 * share:.3g} % of the frames" for label, share in few]
    return replace(one, significant=False, note="; ".join(part for part in (one.note, *reasons) if part))


def _comparison(
    name: str,
    value: Value,
    a: float | None,
    b: float | None,
    difference: float | None,
    *,
    ci: tuple[float, float] | None = None,
    p_value: float | None = None,
    counts: tuple[int, int] = (0, 0),
    significant: bool = False,
    note: str = "",
) -> Comparison:
    return Comparison(
        column=name,
        metric=value.metric,
        unit=value.unit,
        higher_is_better=value.higher_is_better,
        decimals=value.decimals,
        a=a,
        b=b,
        difference=difference,
        ci_low=None if ci is None else ci[0],
        ci_high=None if ci is None else ci[1],
        p_value=p_value,
        n_pairs=counts[0],
        n_clusters=counts[1],
        significant=significant,
        note=note,
    )


def _number(one: Comparison, number: float | None) -> str:
    return "–" if number is None else f"{number:.{one.decimals}f}"
