"""Values, counts and intervals of a record, computed again from the value of every pair."""

from __future__ import annotations

import math

import numpy as np

from bcd_bench.results.schema import PairValues, RunRecord, Value
from bcd_bench.statistics.intervals import (
    MIN_CLUSTERS_TO_COMPARE,
    Interval,
    bootstrap_mean,
    rate_interval,
    wilson,
)
from bcd_bench.verification.check import Check, failed, passed

__all__ = ["check_intervals", "check_values"]

TOLERANCE = 1e-8
"""Relative to the largest value of a column: `values.json` holds 9 digits."""
INTERVAL_TOLERANCE = 1e-6
"""Larger, since the rounding of every pair enters the percentiles."""


def check_values(record: RunRecord, values: PairValues) -> Check:
    """Whether every value is the mean of its pairs, and its counts are theirs."""
    name = "values"
    for column in values.columns:
        if column not in record.values:
            return failed(name, f"values.json has a column {column}, but the record has not")
    checked = 0
    for column, value in record.values.items():
        if value.kind not in ("mean", "rate"):
            continue
        if column not in values.columns:
            if value.n or value.value is not None:
                return failed(name, f"{column} has no values of pairs")
            continue
        if reason := _wrong_value(column, value, values, record.n_pairs):
            return failed(name, reason)
        checked += 1
    rest = sum(value.kind not in ("mean", "rate") and value.value is not None for value in record.values.values())
    more = f"; {rest} of whole sets need the outputs (--rescore)" if rest else ""
    return passed(name, f"{checked} are the means of their pairs{more}")


def check_intervals(record: RunRecord, values: PairValues) -> Check:
    """Whether every interval of a mean or a rate is the one that its pairs give, and the others contain their value."""
    checked = 0
    for column, value in record.values.items():
        if reason := _wrong_interval(column, value, values):
            return failed("intervals", reason)
        checked += value.ci_low is not None and value.kind in ("mean", "rate")
    return passed("intervals", f"{checked} are those that their pairs give")


def _wrong_value(column: str, value: Value, values: PairValues, n_pairs: int) -> str:
    numbers = [number for number in values.columns[column] if number is not None]
    if value.n != len(numbers):
        return f"{column} is said to be of {value.n} pairs, but {len(numbers)} have a value"
    if value.n + value.n_failed > n_pairs:
        return f"{column} counts {value.n + value.n_failed} pairs, but the record has {n_pairs}"
    if not numbers:
        return "" if value.value is None else f"{column} is {value.value:g}, but no pair has a value"
    if value.kind == "rate" and not all(0 <= number <= 1 for number in numbers):
        return f"{column} is a rate, but a pair has a value outside 0 to 1"
    scale = 100.0 if value.kind == "rate" else 1.0
    mean = scale * math.fsum(numbers) / len(numbers)
    if value.value is None or abs(value.value - mean) > TOLERANCE * scale * max(map(abs, numbers)) + 1e-12:
        told = "missing" if value.value is None else f"{value.value:.9g}"
        return f"{column} is {told}, but the mean of its {len(numbers)} pairs is {mean:.9g}"
    return ""


def _wrong_interval(column: str, value: Value, values: PairValues) -> str:
    low, high = value.ci_low, value.ci_high
    if (low is None) != (high is None):
        return f"the interval of {column} has one end"
    if low is not None and high is not None:
        if value.n_clusters is not None and value.n_clusters < MIN_CLUSTERS_TO_COMPARE:
            return f"{column} has an interval over {value.n_clusters} subjects, which are too few for one"
        if value.value is None or low > high:
            return f"the interval of {column} is not one: [{low:g}, {high:g}]"
    if value.kind in ("derived", "set"):
        return _wrong_about_set(column, value)
    by_pair = values.by_pair(column)
    if not by_pair:
        return "" if low is None else f"{column} has an interval, but no pair has a value"
    clusters_of = values.cluster_by_pair()
    clusters = [clusters_of[pair] for pair in by_pair]
    number = len(set(clusters))
    if value.n_clusters is not None and value.n_clusters != number:
        return f"{column} is said to be of {value.n_clusters} subjects, but its pairs are of {number}"
    numbers = np.array(list(by_pair.values()), dtype=np.float64)
    scale = 100.0 if value.kind == "rate" else 1.0
    tolerance = INTERVAL_TOLERANCE * scale * float(np.abs(numbers).max()) + 1e-12
    if value.kind == "rate" and value.wilson is not None:
        exact = wilson(float(numbers.sum()), len(numbers)).scaled(100)
        if not _equal(value.wilson, exact, tolerance):
            return f"the Wilson interval of {column} is {_text(value.wilson)}, but its pairs give {_text(exact)}"
    if low is None or high is None:
        return ""
    own = rate_interval(numbers, clusters) if value.kind == "rate" else bootstrap_mean(numbers, clusters)
    own = None if own is None else own.scaled(scale)
    if own is None or not _equal((low, high), own, tolerance):
        given = "none" if own is None else _text(own)
        return f"the interval of {column} is {_text((low, high))}, but its pairs give {given}"
    return ""


def _wrong_about_set(column: str, value: Value) -> str:
    """What can be said of an interval without the outputs: the jackknife's is centred on the value, and the bootstrap's
    of a derived column contains it."""
    low, high = value.ci_low, value.ci_high
    if low is None or high is None or value.value is None:
        return ""
    slack = INTERVAL_TOLERANCE * max(abs(low), abs(high), 1e-6)
    if value.ci_method == "delete-group jackknife" and abs((low + high) / 2 - value.value) > slack:
        return f"the interval of {column} is centred on {(low + high) / 2:.9g}, but its value is {value.value:.9g}"
    if value.kind == "derived" and not low - slack <= value.value <= high + slack:
        return f"{column} is {value.value:.9g}, outside its own interval {_text((low, high))}"
    return ""


def _equal(told: tuple[float, float], computed: Interval, tolerance: float) -> bool:
    return abs(told[0] - computed.low) <= tolerance and abs(told[1] - computed.high) <= tolerance


def _text(interval: tuple[float, float] | Interval) -> str:
    low, high = (interval.low, interval.high) if isinstance(interval, Interval) else interval
    return f"[{low:.7g}, {high:.7g}]"
