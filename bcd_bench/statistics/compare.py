"""Two runs against each other, pair by pair: difference, clustered interval, and a permutation p-value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from bcd_bench.results.schema import MIN_COVERAGE, PairValues, RunRecord, Value, load_records
from bcd_bench.statistics.comparability import why_incomparable
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE, paired_difference, sign_flip_p_value
from bcd_bench.types.errors import UsageError

__all__ = ["Comparison", "compare_runs", "render_comparisons"]


@dataclass(frozen=True)
class Comparison:
    """One column of two runs. `a` and `b` are the means over the pairs both scored, `difference` is a - b, and
    `significant` whether its 95 % interval excludes 0, given enough content identities.

    Rates are in percent. Interval and p-value are None for columns without per-pair values (entropies, set metrics),
    whose `a` and `b` are then the values over each run's own pairs; `note` says so. Where the two values were scored
    differently (`comparability.why_incomparable`), there is no difference either. With fewer than
    `MIN_CLUSTERS_TO_COMPARE` content identities there is no interval; the p-value is exact for any number.
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
        """ "a" or "b" where the interval excludes 0 and the column has a direction, else None."""
        if not self.significant or self.difference is None or self.higher_is_better is None:
            return None
        return "a" if (self.difference > 0) == self.higher_is_better else "b"


def compare_runs(a: Path, b: Path, metrics: Sequence[str] = ()) -> list[Comparison]:
    """Compare two runs (run folders or record files) of one suite in every column both have.

    `metrics` keeps the named metrics or columns. Raises `UsageError` where the runs are of different suites, share no
    column, or a path holds no single record.
    """
    (folder_a, record_a), (folder_b, record_b) = _single(a), _single(b)
    if record_a.suite.manifest_sha256 != record_b.suite.manifest_sha256:
        raise UsageError(f"the runs are not over the same pairs: {_suite(record_a)} and {_suite(record_b)}")
    # a column that two metrics share is called after the metric scored first, which need not be the same in both runs
    ours, theirs = record_a.values, record_b.values
    shared = [name for name in ours if name in theirs and ours[name].metric == theirs[name].metric]
    wanted = set(metrics)
    chosen = [name for name in shared if not wanted or name in wanted or record_a.values[name].metric in wanted]
    missing = wanted - set(chosen) - {record_a.values[name].metric for name in chosen}
    if missing or not chosen:
        what = f"no metric or column {', '.join(sorted(missing))}" if missing else "no column"
        raise UsageError(
            f"the runs share {what}; both have: {', '.join(shared) or 'nothing'}", hint=f"bcd-bench score {a} {b}"
        )
    values_a, values_b = PairValues.load(folder_a), PairValues.load(folder_b)
    found = []
    for name in chosen:
        left, right = record_a.values[name], record_b.values[name]
        why = why_incomparable([record_a, record_b], name)
        if why is None:
            found.append(_with_frames(_compare(name, left, right, values_a, values_b), record_a, record_b))
        else:
            found.append(_comparison(name, left, left.value, right.value, None, note=f"{why}: not comparable"))
    return [_with_seeds(one, record_a, record_b) for one in found]


def render_comparisons(comparisons: Sequence[Comparison], label_a: str, label_b: str) -> str:
    """A markdown table of comparisons, the better run of a row in bold."""
    from bcd_bench.results.formats.markdown import escape

    rows = [["Column", f"a: {escape(label_a)}", f"b: {escape(label_b)}", "a - b", "95 % interval", "p", "n"]]
    for one in comparisons:
        left, right = (
            f"**{_number(one, x)}**" if one.better == y else _number(one, x) for x, y in ((one.a, "a"), (one.b, "b"))
        )
        interval = "–" if one.ci_low is None else f"\\[{_number(one, one.ci_low)}, {_number(one, one.ci_high)}\\]"
        p_value = "–" if one.p_value is None else ("<0.001" if one.p_value < 0.001 else f"{one.p_value:.3f}")
        name = escape(f"{one.column} ({one.unit})" if one.unit else one.column)
        rows.append(
            [name, left, right, _number(one, one.difference), interval, escape(p_value), str(one.n_pairs or "–")]
        )
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    lines.insert(1, "|" + " --- |" + " ---: |" * (len(rows[0]) - 1))
    said: dict[str, list[str]] = {}
    for one in comparisons:
        if one.note:
            said.setdefault(one.note, []).append(one.column)
    notes = [f"- {escape(', '.join(columns))}: {escape(note)}" for note, columns in said.items()]
    clusters = sorted({one.n_clusters for one in comparisons if one.n_clusters})
    if clusters:
        notes.append(
            f"- Over the pairs both runs scored; intervals and p-values clustered by content identity "
            f"({'/'.join(str(n) for n in clusters)} clusters), p by swapping the runs within clusters."
        )
    return "\n".join([*lines, "", *notes]) + "\n"


def _single(path: Path) -> tuple[Path, RunRecord]:
    records = load_records([path])
    if len(records) != 1:
        what = "no record" if not records else f"{len(records)} records"
        raise UsageError(
            f"{path} holds {what}; name one run folder", hint=f"bcd-bench score {path}" if not records else None
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
            note = "no value for each pair, so no paired interval"
            if a.n_failed or b.n_failed:
                note += "; pairs failed, so the two may rest on different pairs"
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
        interval = None  # of so few, none can be relied on
        note = f"too few content identities for a 95 % interval ({paired.n_clusters})"
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
    """A run with random weights is no better and no worse than anything: it only shows that the pipeline runs."""
    seeded = [label for label, record in (("a", a), ("b", b)) if record.seeded]
    if not seeded:
        return one
    told = f"{' and '.join(seeded)} ran with random weights, a test of the pipeline"
    return replace(one, significant=False, note="; ".join(part for part in (one.note, told) if part))


def _with_frames(one: Comparison, a: RunRecord, b: RunRecord) -> Comparison:
    """A value that leaves out too many frames wins and loses nothing: the frames left out may be the worst ones."""
    shares = [(label, record.values[one.column].frame_coverage) for label, record in (("a", a), ("b", b))]
    few = [(label, share) for label, share in shares if share is not None and share < MIN_COVERAGE]
    if not few:
        return one
    told = [f"{label} rests on {100 * share:.3g} % of the frames" for label, share in few]
    return replace(one, significant=False, note="; ".join(part for part in (one.note, *told) if part))


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
