"""Aggregation of per-pair rows into values with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bcd_bench.plugin.base import Metric
from bcd_bench.plugin.specs import Column
from bcd_bench.results.schema import Value
from bcd_bench.statistics.intervals import (
    MIN_CLUSTERS_TO_COMPARE,
    Interval,
    bootstrap_mean,
    bootstrap_statistics,
    rate_interval,
    wilson,
)

__all__ = ["aggregate_rows", "empty_value", "frame_share", "over_clusters", "set_value", "unnamed_frames", "usable"]


def usable(column: Column, row: Mapping[str, Any]) -> float | None:
    """The number of a row in a "mean" or "rate" column; None if missing, not finite, or a rate outside [0, 1]."""
    value = row.get(column.name)
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:  # an int that exceeds the float range
        return None
    if not math.isfinite(number) or (column.kind == "rate" and not 0 <= number <= 1):
        return None
    return number


def unnamed_frames(columns: Sequence[Column]) -> list[str]:
    """Columns whose `frames` is not a column of the metric, so that their frames would never be counted."""
    names = {column.name for column in columns}
    return [column.name for column in columns if column.frames and column.frames not in names - {column.name}]


def aggregate_rows(
    metric_name: str,
    metric: Metric,
    columns: Sequence[Column],
    pairs: Sequence[tuple[str, str]],
    rows: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Value], dict[str, list[float | None]]]:
    """Values and per-pair values of a pair metric.

    `pairs` are (id, cluster) of all planned pairs, `rows` the scored ones by id; the remaining pairs count as failed,
    as do rows without the column. None in a column means that it does not apply to this pair, which is then not counted
    at all. Rates are averaged as fractions and returned in percent. Per-pair values are raw (0/1 for rates), in the
    order of `pairs`. The frame coverage of a column with `frames` is the mean of that share over the contributing rows.
    """
    values: dict[str, Value] = {}
    per_pair: dict[str, list[float | None]] = {}
    scored = [(rows[pair], cluster) for pair, cluster in pairs if pair in rows]
    derived = _derive(metric, [row for row, _ in scored], [cluster for _, cluster in scored], columns)
    for column in columns:
        if column.kind == "derived":
            value, interval, count = *derived.get(column.name, (None, None)), len(scored)
            summary = _value(metric_name, column, value, interval, None, count, len(pairs) - count)
            summary = _with_frames(summary, column, [row for row, _ in scored])
            values[column.name] = over_clusters(summary, [cluster for _, cluster in scored])
            continue
        numbers = [usable(column, rows[pair]) if pair in rows else None for pair, _ in pairs]
        per_pair[column.name] = numbers
        scored_numbers = [(number, pair[1]) for number, pair in zip(numbers, pairs, strict=True) if number is not None]
        n_not_applicable = sum(column.name in row and row[column.name] is None for row, _ in scored)
        summary = _summary(metric_name, column, scored_numbers, len(pairs) - n_not_applicable)
        entered = [rows[pair] for number, (pair, _) in zip(numbers, pairs, strict=True) if number is not None]
        summary = _with_frames(summary, column, entered)
        values[column.name] = over_clusters(summary, [cluster for _, cluster in scored_numbers])
    return values, per_pair


def over_clusters(value: Value, clusters: Iterable[str]) -> Value:
    """Add the number of content subjects to `value`, and remove its interval if there are too few.

    With fewer than `MIN_CLUSTERS_TO_COMPARE` clusters, resampling (or leaving out) clusters is hardly informative about
    their variance, and the Wilson interval treats the pairs of one subject as independent.
    """
    number = len(set(clusters))
    update: dict[str, Any] = {"n_clusters": number}
    if number < MIN_CLUSTERS_TO_COMPARE:
        update |= {"ci_low": None, "ci_high": None, "ci_method": None, "wilson": None}
    return value.model_copy(update=update)


def empty_value(metric_name: str, column: Column) -> Value:
    """The value of a column that was not scored at all: no contributing and no failed pairs."""
    return _value(metric_name, column, None, None, None, 0, 0)


def set_value(
    metric_name: str,
    column: Column,
    computed: Any,
    interval: Interval | None,
    n: int,
    total: int,
    all_computed: Mapping[str, Any] | None = None,
) -> Value:
    """The value of a "set" column from `Metric.compute`: a number, or (number, ci_low, ci_high) provided by the metric.

    `all_computed` is the complete result of `compute`, which contains the `frames` of a column.
    """
    if isinstance(computed, tuple | list):
        number, low, high = (float(part) for part in computed)
        interval = Interval(low, high, "metric")
    else:
        number = float(computed)
    summary = _value(metric_name, column, number, interval, None, n, total - n)
    return _with_frames(summary, column, [all_computed or {}] if n else [])


def _with_frames(value: Value, column: Column, rows: Sequence[Mapping[str, Any]]) -> Value:
    """Add the frame coverage to the value: the mean share of `column.frames` over the contributing rows."""
    if not column.frames or not rows:
        return value
    percent = float(np.mean([frame_share(column.frames, row) for row in rows]))
    return value.model_copy(update={"frame_coverage": percent / 100})


def frame_share(name: str, row: Mapping[str, Any]) -> float:
    """Share of frames in percent in the column `name` of a row. Anything other than a number from 0 to 100 counts as 0,
    since it is unknown whether any frame was used."""
    share = row.get(name)
    share = share[0] if isinstance(share, tuple | list) and share else share
    percent = float(share) if isinstance(share, int | float) else math.nan
    return percent if 0 <= percent <= 100 else 0.0


def _summary(metric_name: str, column: Column, kept: Sequence[tuple[float, str]], total: int) -> Value:
    numbers = np.array([number for number, _ in kept], dtype=np.float64)
    clusters = [cluster for _, cluster in kept]
    if not kept:
        return _value(metric_name, column, None, None, None, 0, total)
    if column.kind == "rate":
        interval = rate_interval(numbers, clusters).scaled(100)
        wilson_interval = wilson(float(numbers.sum()), len(numbers)).scaled(100)
        value = 100 * float(numbers.mean())
        return _value(metric_name, column, value, interval, wilson_interval, len(kept), total - len(kept))
    with np.errstate(over="ignore", invalid="ignore"):
        mean, interval_or_none = float(numbers.mean()), bootstrap_mean(numbers, clusters)
    return _value(metric_name, column, mean, interval_or_none, None, len(kept), total - len(kept))


def _derive(
    metric: Metric, rows: Sequence[Mapping[str, Any]], clusters: Sequence[str], columns: Sequence[Column]
) -> dict[str, tuple[float | None, Interval | None]]:
    names = [column.name for column in columns if column.kind == "derived"]
    if not names or not rows:
        return {}

    # Columns that `derive` leaves out are not known for these rows: they are empty, and the others keep their values.
    found = metric.derive(rows)
    known = [name for name in names if name in found]

    def statistic(resample: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        result = metric.derive(resample)
        return {name: float(result[name]) for name in known}

    if not known:
        return {}
    estimate = {name: float(found[name]) for name in known}
    intervals = bootstrap_statistics(rows, clusters, statistic)
    return {
        name: (value, intervals.get(name)) if math.isfinite(value) else (None, None) for name, value in estimate.items()
    }


def _value(
    metric: str,
    column: Column,
    value: float | None,
    interval: Interval | None,
    beside: Interval | None,
    n: int,
    failed: int,
) -> Value:
    if value is not None and not math.isfinite(value):
        value, interval = None, None  # the sum of finite numbers may overflow
    if interval is not None and not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        interval = None
    return Value(
        metric=metric,
        value=value,
        ci_low=None if interval is None else interval.low,
        ci_high=None if interval is None else interval.high,
        ci_method=None if interval is None else interval.method,
        wilson=None if beside is None else (beside.low, beside.high),
        n=n,
        n_failed=failed,
        unit=column.unit,
        higher_is_better=column.higher_is_better,
        kind=column.kind,
        definition=column.definition,
        decimals=column.decimals,
        headline=column.headline,
    )
