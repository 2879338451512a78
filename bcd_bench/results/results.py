"""`Results`: the runs of an evaluation, as tables, data frames and comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.plugin.loading import load_code
from bcd_bench.results.rows import collect_rows
from bcd_bench.results.schema import RunRecord, load_records
from bcd_bench.statistics.compare import Comparison, compare_runs, render_comparisons
from bcd_bench.types.errors import BcdBenchError, UsageError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Comparisons", "Results"]


class Comparisons(tuple[Comparison, ...]):
    """Differences between two runs, column by column; prints as a table."""

    labels: tuple[str, str]

    @classmethod
    def of(cls, comparisons: Sequence[Comparison], labels: tuple[str, str]) -> Comparisons:
        made = cls(comparisons)
        made.labels = labels
        return made

    def __str__(self) -> str:
        return render_comparisons(list(self), *self.labels)

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return str(self)

    def to_dataframe(self) -> pd.DataFrame:
        """One line per column: values a and b, their difference with its 95 % interval, p-value, pairs and clusters."""
        import dataclasses

        import pandas as pd

        return pd.DataFrame([dataclasses.asdict(one) for one in self])


@dataclass(frozen=True)
class Results:
    """Finished runs, read from their folders: nothing is kept in memory, so a `Results` is cheap to make and to keep.

    In a notebook it shows its table. `errors` holds the error of every method that did not get as far as a record.
    """

    paths: tuple[Path, ...]
    errors: Mapping[str, BcdBenchError] = field(default_factory=dict)

    @property
    def records(self) -> list[RunRecord]:
        """The records of all runs, with provenance."""
        return [record for _, record in load_records(self.paths)]

    def table(self, format: str = "markdown", *, suite: str | None = None) -> str:
        """The table of `bcd-bench report`: "markdown", "latex", "html", "csv", "json", or the format of a plugin.

        Raises `UsageError` for a format that does not exist.
        """
        from bcd_bench.plugin.registry import load_registry

        registry = load_registry()
        render = load_code(registry.report_format(format).factory, f"report format {format!r}")
        text: str = render(collect_rows(self.paths, suite, registry, with_reported=False), suite=suite)
        return text

    def to_dataframe(self) -> pd.DataFrame:
        """One line per run and column, with intervals: see `bcd_bench.results_frame`."""
        from bcd_bench.results.dataframe import results_frame

        return results_frame(*self.paths)

    def pairs(self) -> pd.DataFrame:
        """One line per run, pair and column: see `bcd_bench.pairs_frame`."""
        from bcd_bench.results.dataframe import pairs_frame

        return pairs_frame(*self.paths)

    def compare(self, a: str, b: str, columns: Sequence[str] = ()) -> Comparisons:
        """Paired differences a - b of two methods (or run ids), with clustered 95 % intervals.

        Raises `UsageError` for a name that is not among the runs, or that several runs have.
        """
        return Comparisons.of(compare_runs(self._path(a), self._path(b), list(columns)), (a, b))

    def _path(self, name: str) -> Path:
        runs = list(load_records(self.paths))
        found = [path for path, record in runs if name == record.method.name or record.run_id.startswith(name)]
        if len(found) != 1:
            known = ", ".join(f"{record.method.name} ({record.run_id[:8]})" for _, record in runs)
            trouble = "several runs are called" if found else "no run is called"
            raise UsageError(f"{trouble} {name!r}; there are: {known}", hint="name a run by the start of its id")
        return found[0]

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __str__(self) -> str:
        failed = [f"{name}: {' '.join(str(error).split())}" for name, error in self.errors.items()]
        return "\n".join([self.table(), *failed]) if self.paths else "\n".join(failed) or "no runs"

    def _repr_markdown_(self) -> str:
        return str(self)
