"""Values of a variant over its seeds, and paired comparisons of two variants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bcd_bench.io.atomic import read_jsonl
from bcd_bench.results.schema import RECORD_NAME, PairValues, RunRecord, Value, load_record
from bcd_bench.statistics.intervals import PairedDifference, bootstrap_mean, paired_difference, rate_interval
from bcd_bench_bcd.ablations.runner import Outcome

__all__ = ["CONTENT_ACCURACY", "SECONDS", "Column", "Difference", "VariantValues", "compare", "variant_values"]

CONTENT_ACCURACY, ATTRIBUTES = "content-accuracy", ("skin", "pants", "top", "hair")
"""A column of ours on Sprites: the mean of the four accuracies of the content."""
SECONDS = "seconds"
"""A column of ours: seconds per clip."""


@dataclass(frozen=True)
class Column:
    """One value of a variant, averaged over its seeds; rates are in percent.

    The interval is over pairs, clustered by subject: values are averaged over the seeds first. It is None for columns
    without values per pair if there are several seeds. `by_seed` are the values of the single seeds.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    n_clusters: int | None
    by_seed: tuple[float, ...]
    unit: str
    higher_is_better: bool | None
    decimals: int
    headline: bool
    definition: str


@dataclass
class VariantValues:
    """The columns of one variant. `pairs` maps a column and a pair to the mean over seeds, in the unit of the column;
    `pairs_by_seed` has the same for each seed."""

    name: str
    columns: dict[str, Column] = field(default_factory=dict)
    pairs: dict[str, dict[str, float]] = field(default_factory=dict)
    pairs_by_seed: list[dict[str, dict[str, float]]] = field(default_factory=list)
    clusters: dict[str, str] = field(default_factory=dict)
    records: dict[int, RunRecord] = field(default_factory=dict)
    """By seed."""
    folders: dict[int, Path] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    """Reasons why seeds are missing."""


@dataclass(frozen=True)
class Difference:
    """Values of `better` minus values of `worse` of a column: mean, paired interval, and the mean of each seed."""

    column: str
    better: float
    worse: float
    paired: PairedDifference
    by_seed: tuple[float, ...]
    unit: str
    higher_is_better: bool
    decimals: int


def variant_values(name: str, outcomes: Sequence[Outcome], *, timed: bool = False) -> VariantValues:
    """Read the records of one variant's finished runs, and with `timed` the seconds per clip.

    Raises `UsageError` for a record that is damaged.
    """
    result = VariantValues(name)
    for outcome in outcomes:
        if outcome.run is None:
            reason = "unfinished" if outcome.unfinished else " ".join(str(outcome.error or "not run").split())
            result.missing.append(f"seed {outcome.job.seed}: {reason}")
            continue
        record = load_record(outcome.run / RECORD_NAME)
        result.records[outcome.job.seed] = record
        result.folders[outcome.job.seed] = outcome.run
        values = PairValues.load(outcome.run)
        result.pairs_by_seed.append({} if values is None else _in_units(values, record))
        if values is not None:
            result.clusters |= values.cluster_by_pair()
        if timed:
            _add_seconds(result.pairs_by_seed[-1], outcome.run)
    if not result.records:
        return result
    for column in dict.fromkeys(column for seed in result.pairs_by_seed for column in seed):
        seeds = [seed.get(column, {}) for seed in result.pairs_by_seed]
        common = [pair for pair in seeds[0] if all(pair in seed for seed in seeds)]
        result.pairs[column] = {pair: float(np.mean([seed[pair] for seed in seeds])) for pair in common}
    records = list(result.records.values())
    for column in records[0].values:
        if all(column in record.values for record in records):
            result.columns[column] = _column(column, [record.values[column] for record in records], result)
    if all(name in result.columns for name in ATTRIBUTES):
        rate = result.columns[ATTRIBUTES[0]]
        definition = f"Mean of {', '.join(ATTRIBUTES)}."
        result.columns[CONTENT_ACCURACY] = _from_pairs(CONTENT_ACCURACY, result, rate.unit, True, 2, definition)
    if SECONDS in result.pairs:
        text = "Seconds per clip, measured while other programs may have been running; not part of the record."
        result.columns[SECONDS] = _from_pairs(SECONDS, result, "s", False, 3, text)
    return result


def _in_units(values: PairValues, record: RunRecord) -> dict[str, dict[str, float]]:
    """Values per pair with rates in percent, and the mean accuracy of the content on Sprites."""
    columns = {}
    for column in values.columns:
        scale = 100.0 if column in record.values and record.values[column].kind == "rate" else 1.0
        columns[column] = {pair: scale * value for pair, value in values.by_pair(column).items()}
    if all(columns.get(name) for name in ATTRIBUTES):
        common = [pair for pair in columns[ATTRIBUTES[0]] if all(pair in columns[name] for name in ATTRIBUTES)]
        columns[CONTENT_ACCURACY] = {
            pair: float(np.mean([columns[name][pair] for name in ATTRIBUTES])) for pair in common
        }
    return columns


def _add_seconds(columns: dict[str, dict[str, float]], run: Path) -> None:
    lines = read_jsonl(run / "pairs.jsonl")
    seconds = {str(line["id"]): float(line["seconds"]) for line in lines if line.get("status") == "ok"}
    if seconds:
        columns[SECONDS] = seconds


def _column(name: str, seeds: Sequence[Value], result: VariantValues) -> Column:
    """A column of the records: as recorded with one seed, else averaged."""
    first = seeds[0]
    numbers = tuple(value.value for value in seeds if value.value is not None)
    mean = float(np.mean(numbers)) if len(numbers) == len(seeds) else None
    low, high = first.ci_low, first.ci_high
    pairs = result.pairs.get(name, {})
    if len(seeds) > 1:
        low, high = _interval(pairs, result.clusters, rate=first.kind == "rate") if pairs else (None, None)
    return Column(
        value=mean,
        low=low,
        high=high,
        n=min(value.n for value in seeds),
        n_clusters=first.n_clusters,
        by_seed=numbers,
        unit=first.unit,
        higher_is_better=first.higher_is_better,
        decimals=first.decimals,
        headline=first.headline,
        definition=first.definition,
    )


def _from_pairs(
    name: str, result: VariantValues, unit: str, higher_is_better: bool, decimals: int, definition: str
) -> Column:
    """A column that is computed here, from values per pair."""
    pairs = result.pairs[name]
    low, high = _interval(pairs, result.clusters, rate=name == CONTENT_ACCURACY)
    seeds = (seed[name] for seed in result.pairs_by_seed if seed.get(name))
    return Column(
        value=float(np.mean(list(pairs.values()))),
        low=low,
        high=high,
        n=len(pairs),
        n_clusters=len({result.clusters[pair] for pair in pairs if pair in result.clusters}) or None,
        by_seed=tuple(float(np.mean(list(seed.values()))) for seed in seeds),
        unit=unit,
        higher_is_better=higher_is_better,
        decimals=decimals,
        headline=True,
        definition=definition,
    )


def _interval(
    pairs: Mapping[str, float], clusters: Mapping[str, str], *, rate: bool
) -> tuple[float | None, float | None]:
    """95 % interval of the mean over pairs: the clustered bootstrap, or Wilson's for a rate that is 0 or 100 %."""
    known = [pair for pair in pairs if pair in clusters]
    if not known:
        return None, None
    values = _array(pairs, known)
    names = [clusters[pair] for pair in known]
    if rate:
        interval = rate_interval(values / 100, names).scaled(100)
        return interval.low, interval.high
    bootstrap = bootstrap_mean(values, names)
    return (None, None) if bootstrap is None else (bootstrap.low, bootstrap.high)


def compare(better: VariantValues, worse: VariantValues, columns: Iterable[str]) -> Difference | None:
    """The paired difference in the first of `columns` that both variants have per pair; None if there is none.

    Only seeds that both have count, so that a failed seed of one variant is left out of both.
    """
    seeds = [seed for seed in better.records if seed in worse.records]
    for column in columns:
        info = better.columns.get(column)
        if info is None or info.higher_is_better is None or column not in worse.columns or not seeds:
            continue
        left, right = (
            [one.pairs_by_seed[list(one.records).index(seed)].get(column, {}) for seed in seeds]
            for one in (better, worse)
        )
        pairs = [pair for pair in left[0] if all(pair in values for values in (*left, *right))]
        pairs = [pair for pair in pairs if pair in better.clusters]
        if not pairs:
            continue
        a = np.mean([_array(values, pairs) for values in left], axis=0)
        b = np.mean([_array(values, pairs) for values in right], axis=0)
        by_seed = tuple(float((_array(x, pairs) - _array(y, pairs)).mean()) for x, y in zip(left, right, strict=True))
        paired = paired_difference(a, b, [better.clusters[pair] for pair in pairs])
        return Difference(
            column, float(a.mean()), float(b.mean()), paired, by_seed, info.unit, info.higher_is_better, info.decimals
        )
    return None


def _array(values: Mapping[str, float], pairs: Sequence[str]) -> npt.NDArray[np.float64]:
    return np.array([values[pair] for pair in pairs], dtype=np.float64)
