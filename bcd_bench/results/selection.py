"""What a report shows: its columns, rows, their order, and the number of decimals. Applies to every format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bcd_bench.plugin.registry import nearest
from bcd_bench.results.rows import ReportRow
from bcd_bench.results.schema import Value
from bcd_bench.types.errors import UsageError

__all__ = ["MAX_DECIMALS", "Selection", "parse_decimals"]

MAX_DECIMALS = 12


@dataclass(frozen=True)
class Selection:
    """`metrics` are names of metrics or columns, `methods` names of methods, labels or starts of run ids; both select
    in their order, and empty selects everything. `order` is the column that sorts the rows, best first. `decimals` maps
    a column, or "" for all others, to 0 to 12 decimals.
    """

    metrics: Sequence[str] = ()
    methods: Sequence[str] = ()
    order: str = ""
    decimals: Mapping[str, int] = field(default_factory=dict)

    def apply(self, rows: Sequence[ReportRow]) -> list[ReportRow]:
        """The selected rows with the selected columns. Raises `UsageError` for a name that no row has."""
        chosen = self._rows(list(rows))
        columns = self.columns(chosen)
        known = {name for row in chosen for name in row.metrics}
        for name in self.decimals:
            if name and name not in known:
                raise UsageError(f"--decimals: no column {name!r}; {nearest(name, known)}")
        if self.order:
            chosen = self._sorted(chosen, known)
        return [replace(row, metrics=self._values(row.metrics, columns)) for row in chosen]

    def columns(self, rows: Sequence[ReportRow]) -> tuple[str, ...]:
        """The columns that `metrics` names, in that order: a metric stands for its headline columns."""
        columns: dict[str, str] = {}
        for row in rows:
            for name, value in row.metrics.items():
                columns[name] = columns.get(name) or value.metric
        headline = {name for row in rows for name, value in row.metrics.items() if value.headline}
        found: dict[str, None] = {}
        for wanted in self.metrics:
            names = [wanted] if wanted in columns else [n for n, m in columns.items() if m == wanted and n in headline]
            if not names:
                known = {*columns, *columns.values()} - {""}
                raise UsageError(f"--metric: no record has a metric or column {wanted!r}; {nearest(wanted, known)}")
            found |= dict.fromkeys(names)
        return tuple(found)

    def _rows(self, rows: list[ReportRow]) -> list[ReportRow]:
        if not self.methods:
            return rows
        chosen: list[ReportRow] = []
        for wanted in self.methods:
            found = [row for row in rows if wanted in (row.method, row.label)]
            found = found or [row for row in rows if row.run_id and row.run_id.startswith(wanted)]
            if not found:
                known = {row.method for row in rows}
                raise UsageError(f"--method: no record of {wanted!r}; {nearest(wanted, known)}")
            chosen += [row for row in found if not any(row is other for other in chosen)]
        return chosen

    def _values(self, metrics: Mapping[str, Value], columns: Sequence[str]) -> dict[str, Value]:
        names = [name for name in columns if name in metrics] if self.metrics else list(metrics)
        values = {}
        for name in names:
            decimals = self.decimals.get(name, self.decimals.get("", metrics[name].decimals))
            headline = metrics[name].headline or name in self.metrics
            values[name] = metrics[name].model_copy(update={"decimals": decimals, "headline": headline})
        return values

    def _sorted(self, rows: Sequence[ReportRow], known: set[str]) -> list[ReportRow]:
        if self.order not in known:
            raise UsageError(f"--order: no column {self.order!r}; {nearest(self.order, known)}")
        higher = any(row.metrics[self.order].higher_is_better for row in rows if self.order in row.metrics)

        def key(row: ReportRow) -> float:
            value = row.metrics.get(self.order)
            if value is None or value.value is None:
                return math.inf
            return -value.value if higher else value.value

        return sorted(rows, key=key)


def parse_decimals(items: Sequence[str]) -> dict[str, int]:
    """`["2", "csim=3"]` -> `{"": 2, "csim": 3}`. Raises `UsageError` unless each is N or COLUMN=N with N from 0 to
    12."""
    decimals: dict[str, int] = {}
    for item in items:
        column, _, number = item.rpartition("=")
        if not (number.isascii() and number.isdigit() and int(number) <= MAX_DECIMALS) or item.startswith("="):
            raise UsageError(f"--decimals {item!r}: must be N or COLUMN=N with N from 0 to {MAX_DECIMALS}")
        decimals[column] = int(number)
    return decimals
