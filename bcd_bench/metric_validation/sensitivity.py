"""Sensitivity of a metric's columns to perturbations of known severity, and their rank correlation with the true
error."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.metric_validation.perturbations import TRUTH_KEY, Perturbation
from bcd_bench.plugin.base import Metric
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column, MetricSpec
from bcd_bench.statistics.aggregate import frame_share, usable
from bcd_bench.statistics.intervals import MIN_CLUSTERS_TO_COMPARE, bootstrap_mean, bootstrap_statistics
from bcd_bench.types.errors import BcdBenchError, one_line
from bcd_bench.types.failed import Failed

__all__ = ["Agreement", "Cell", "DoseResponse", "Reaction", "Taken", "rank_correlation"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Reaction:
    """Sensitivity of one column to one perturbation."""

    metric: str
    column: str
    unit: str
    headline: bool
    perturbation: str
    doses: tuple[float, ...]
    """Severities, starting with 0."""
    means: tuple[float | None, ...]
    """Mean of the column at each severity, over pairs with a value at every severity; the value of a set metric."""
    rank: float | None
    """Spearman correlation of severity and value within a pair, averaged over pairs: 1 means that a stronger
    perturbation always scores worse. Constant values count as 0. For columns without a direction, 1 means that the
    value rises."""
    rank_low: float | None
    rank_high: float | None
    n: int
    n_failed: int
    """Number of pairs without a value at some severity."""
    frames: tuple[float | None, ...]
    """Fraction of frames, 0..1, that the means are based on at each severity; None for columns that use all frames."""
    side_effect: bool
    """True if the metric measures nothing that this perturbation changes, so it should not react."""


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of a column with the true error, over all pairs, perturbations and severities with a known
    truth.

    Clips whose true error is 0 would be ties; they define the floor and are excluded from the correlation.
    """

    metric: str
    column: str
    spearman: float
    low: float | None
    high: float | None
    n: int
    n_failed: int
    floor: float | None
    """Mean of the column over clips whose true error is 0."""
    n_floor: int


def rank_correlation(first: Sequence[float] | Floats, second: Sequence[float] | Floats) -> float:
    """Spearman correlation with mean ranks for ties; 0 if either input is constant."""
    from scipy.stats import rankdata

    ranks = [rankdata(values) for values in (first, second)]
    spread = [float(np.ptp(rank)) for rank in ranks]
    if 0.0 in spread:
        return 0.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


Cell = tuple[str, int]
"""Name of a perturbation and index of its severity; index 0 is unperturbed and shared by all perturbations."""


Table = Mapping[str, Mapping[Cell, Floats]]


@dataclass(frozen=True)
class Taken:
    """The part of a `DoseResponse` that belongs to some cells."""

    values: Table
    frames: Table
    truths: Table
    states: Mapping[Cell, Any]
    lost: Collection[Cell]
    failures: Collection[str]


class DoseResponse:
    """Responses of one loaded metric, whose code runs in `scope`, to every perturbation, severity and pair."""

    def __init__(
        self, spec: MetricSpec, metric: Metric, scope: PluginScope, faults: Sequence[Perturbation], pairs: int
    ) -> None:
        self.spec, self.metric, self._scope = spec, metric, scope
        self.failures: set[str] = set()
        kinds = ("set",) if spec.level == "set" else ("mean", "rate")
        self.columns = [column for column in metric.columns if column.kind in kinds]
        cells = [(fault.name, level) for fault in faults for level in range(1 + len(fault.doses))]
        self._states: dict[Cell, Any] = dict.fromkeys(cells)
        self._lost: set[Cell] = set()
        self._values = {column.name: {cell: np.full(pairs, math.nan) for cell in cells} for column in self.columns}
        self._frames = {column.name: {cell: np.full(pairs, math.nan) for cell in cells} for column in self.columns}
        self._truths = {column.name: {cell: np.full(pairs, math.nan) for cell in cells} for column in self.columns}

    def take(self, items: Sequence[Scored], start: int, cells: Sequence[Cell]) -> None:
        """Score the outputs of one severity; `start` is the index of the first item's pair."""
        if self.spec.level == "set":
            self._fold(items, cells)
            return
        for index, row in enumerate(self._rows(items), start):
            if isinstance(row, Failed):
                self.failures.add(row.reason)
                continue
            truth: Mapping[str, float] = items[index - start].info.get(TRUTH_KEY, {})
            for column in self.columns:
                value, true_value = usable(column, row), truth.get(column.name)
                for cell in cells:
                    self._values[column.name][cell][index] = math.nan if value is None else value
                    if column.frames:
                        self._frames[column.name][cell][index] = frame_share(column.frames, row) / 100
                    self._truths[column.name][cell][index] = math.nan if true_value is None else true_value

    def taken(self, cells: Sequence[Cell]) -> Taken:
        """What was scored for `cells`, to be sent to another process."""

        def of(table: Table) -> Table:
            return {name: {cell: found[cell] for cell in cells} for name, found in table.items()}

        states = {cell: self._states[cell] for cell in cells}
        self._states |= dict.fromkeys(cells)  # they are large, and complete
        lost = self._lost & set(cells)
        return Taken(of(self._values), of(self._frames), of(self._truths), states, lost, set(self.failures))

    def join(self, taken: Taken) -> None:
        """Take over what another process has scored."""
        for mine, found in ((self._values, taken.values), (self._frames, taken.frames), (self._truths, taken.truths)):
            for name, cells in found.items():
                mine[name].update(cells)
        self._states |= dict(taken.states)
        self._lost |= set(taken.lost)
        self.failures |= set(taken.failures)

    def _fold(self, items: Sequence[Scored], cells: Sequence[Cell]) -> None:
        """Add outputs to the sets of `cells`. If the metric raises, the state of the set is undefined and the cell is
        lost."""
        for cell in set(cells) - self._lost:
            try:
                refuse = getattr(self.metric, "refuse", None)
                with self._scope:
                    accepted = [item for item in items if refuse is None or refuse(item) is None]
                    if accepted:
                        self._states[cell] = self.metric.update(self._states[cell], accepted)
            except BcdBenchError:
                raise
            except BaseException as error:
                if not raised_by_plugin(error):
                    raise
                self.failures.add(one_line(error, place=False))
                self._lost.add(cell)
                self._states[cell] = None

    def _rows(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        try:
            with self._scope:
                return list(self.metric.score(list(items)))
        except BcdBenchError:
            raise
        except BaseException as error:  # an invalid clip must not affect others
            if not raised_by_plugin(error):
                raise
            if len(items) == 1:
                return [Failed(one_line(error, place=False))]
            return [row for item in items for row in self._rows([item])]

    def reactions(self, faults: Sequence[Perturbation], clusters: Sequence[str]) -> Iterator[Reaction]:
        """Yield a reaction for every column and perturbation."""
        find = self._of_set if self.spec.level == "set" else self._of_pairs
        for column in self.columns:
            for fault in faults:
                doses = (0.0, *fault.doses)
                means, ranks, complete = find(column, fault, doses)
                cluster_names = [clusters[int(index)] for index in np.flatnonzero(complete)]
                # A set metric has one value for all pairs: its rank has no interval.
                enough = len(ranks) == len(cluster_names) and len(set(cluster_names)) >= MIN_CLUSTERS_TO_COMPARE
                interval = bootstrap_mean(ranks, cluster_names) if enough else None
                yield Reaction(
                    metric=self.spec.name,
                    column=column.name,
                    unit=column.unit,
                    headline=column.headline,
                    perturbation=fault.name,
                    doses=doses,
                    means=tuple(_finite(mean) for mean in means),
                    rank=float(ranks.mean()) if len(ranks) else None,
                    rank_low=interval.low if interval else None,
                    rank_high=interval.high if interval else None,
                    n=int(complete.sum()),
                    n_failed=int((~complete).sum()),
                    frames=self._coverage(column, fault, doses, complete),
                    side_effect=bool(self.spec.measures) and not set(self.spec.measures) & set(fault.changes),
                )

    def _coverage(
        self, column: Column, fault: Perturbation, doses: tuple[float, ...], whole: npt.NDArray[np.bool_]
    ) -> tuple[float | None, ...]:
        """Mean fraction of frames at every severity, over the pairs with a value at each of them."""
        if not column.frames or self.spec.level == "set" or not whole.any():
            return (None,) * len(doses)
        shares = [self._frames[column.name][fault.name, level][whole] for level in range(len(doses))]
        return tuple(float(share.mean()) for share in shares)

    def _of_pairs(
        self, column: Column, fault: Perturbation, doses: tuple[float, ...]
    ) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        """Mean at every severity, rank of every pair with a value at each of them, and the mask of these pairs."""
        table = np.stack([self._values[column.name][fault.name, level] for level in range(len(doses))], 1)
        complete = np.isfinite(table).all(1)
        scale = 100.0 if column.kind == "rate" else 1.0
        means = table[complete].mean(0) * scale if complete.any() else np.full(len(doses), math.nan)
        return means, np.array([self._rank(column, doses, row) for row in table[complete]]), complete

    def _of_set(
        self, column: Column, fault: Perturbation, doses: tuple[float, ...]
    ) -> tuple[Floats, Floats, npt.NDArray[np.bool_]]:
        """Value at every severity, its single rank, and a mask that includes all pairs."""
        states = [self._states[fault.name, level] for level in range(len(doses))]
        numbers = np.array([math.nan if state is None else self._of_state(column, state) for state in states])
        ranks = [self._rank(column, doses, numbers)] if np.isfinite(numbers).all() else []
        return numbers, np.array(ranks), np.ones(len(self._values[column.name][fault.name, 0]), bool)

    def _of_state(self, column: Column, state: Any) -> float:
        try:
            with self._scope:
                value = self.metric.compute(state)[column.name]
            return float(value[0] if isinstance(value, tuple | list) else value)
        except BcdBenchError:
            raise
        except BaseException as error:  # such as too few outputs for a covariance
            if not raised_by_plugin(error):
                raise
            self.failures.add(one_line(error, place=False))
            return math.nan

    @staticmethod
    def _rank(column: Column, doses: Sequence[float], values: Floats) -> float:
        """1 if a stronger perturbation always scores worse; for a column without a direction, if the value always
        rises."""
        return rank_correlation(doses, -values if column.higher_is_better else values)

    def agreements(self, clusters: Sequence[str]) -> Iterator[Agreement]:
        """Yield an agreement for every column with known true values."""
        for column in self.columns:
            truths, values = dict(self._truths[column.name]), self._values[column.name]
            faults = {fault for fault, level in truths if level > 0 and np.isfinite(truths[fault, level]).any()}
            # The unperturbed target has no error and is shared by all perturbations, so it is counted once.
            first = min(faults, default="")
            truths |= {(first, 0): np.zeros(len(clusters))}
            cells = [cell for cell in truths if cell[0] in faults and (cell[1] > 0 or cell[0] == first)]
            rows: list[dict[str, Any]] = [
                {"true": float(truths[cell][index]), "found": float(values[cell][index]), "cluster": cluster}
                for cell in cells
                for index, cluster in enumerate(clusters)
                if math.isfinite(truths[cell][index])
            ]
            at_zero = [row["found"] for row in rows if row["true"] == 0 and math.isfinite(row["found"])]
            rows = [row for row in rows if row["true"] != 0]
            scored = [row for row in rows if math.isfinite(row["found"])]
            if not scored:
                continue
            intervals = bootstrap_statistics(scored, [row["cluster"] for row in scored], _agreement)
            interval = intervals.get("spearman")
            yield Agreement(
                metric=self.spec.name,
                column=column.name,
                spearman=_agreement(scored)["spearman"],
                low=interval.low if interval else None,
                high=interval.high if interval else None,
                n=len(scored),
                n_failed=len(rows) - len(scored),
                floor=float(np.mean(at_zero)) if at_zero else None,
                n_floor=len(at_zero),
            )


def _agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {"spearman": rank_correlation([row["true"] for row in rows], [row["found"] for row in rows])}


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None
