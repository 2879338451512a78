"""The table that `run` and `score` end with: one line per number, one column per run, and where the files are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.cli.common import console
from bcd_bench.scoring.missing_metrics import not_scored

if TYPE_CHECKING:
    from bcd_bench.results.table import Cell, Table

__all__ = ["print_runs", "trouble_of"]


def _cell(cell: Cell) -> str:
    text = cell.text + ("†" if cell.dagger else "")
    return f"{text} {cell.interval}" if cell.interval else text


def _print_table(table: Table) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Grid

    grid = Grid(box=box.MARKDOWN, header_style="bold")
    grid.add_column("")
    for line in table.lines:
        grid.add_column(escape(f"{line.label} ({line.status})" if line.status else line.label), justify="right")
    for index, header in enumerate(table.headers):
        grid.add_row(escape(header), *(escape(_cell(line.cells[index])) for line in table.lines))
    screen = console()
    with screen.capture() as drawn:
        screen.print(grid)
    print(f"{table.title}\n")
    print("\n".join(line for line in drawn.get().splitlines() if line.strip()) + "\n")
    for note in table.notes:
        print(f"- {note}")


def print_runs(folders: Sequence[Path]) -> None:
    """Print the tables of these run folders, then the folders. Nothing for no folders."""
    from bcd_bench.results.rows import collect_rows
    from bcd_bench.results.table import build_tables

    if not folders:
        return
    for table in build_tables(collect_rows(folders)):
        _print_table(table)
    print()
    for folder in folders:
        print(f"run folder: {folder}")


def trouble_of(folders: Sequence[Path], *, wanted: Sequence[str] | None = ()) -> int:
    """Exit code of finished runs: 1 where pairs or whole metrics failed (said on stderr), else 0.

    A metric that was not scored for want of an asset or package is said too; it means 3 where it is among `wanted`
    (None: every metric is) and nothing else.
    """
    from bcd_bench.results.schema import load_records

    code, lacking = 0, False
    said: set[str] = set()
    for path, record in load_records(folders):
        if record.n_failed:
            reason, count = max(record.failures.items(), key=lambda item: item[1])
            print(
                f"warning: {record.method.name}: {record.n_failed} of {record.n_pairs} pairs failed "
                f"({count}x {reason}); to try them again: the same command with --retry-failed",
                file=sys.stderr,
            )
            code = 1
        missing = {name: str(metric.error) for name, metric in record.metrics.items() if metric.missing}
        for line in not_scored(missing.items()):
            if line not in said:  # the next method lacks the same
                print(f"note: {line}", file=sys.stderr)
                said.add(line)
        if missing:
            print(f"hint: once that is mended: bcd-bench score {path.parent}", file=sys.stderr)
            lacking = lacking or wanted is None or bool(missing.keys() & set(wanted))
        for name, metric in record.metrics.items():
            if name in missing:
                continue
            if metric.error:
                print(f"warning: {record.method.name}: metric {name} failed: {metric.error}", file=sys.stderr)
                print(f"hint: bcd-bench score {path.parent} --metric {name}", file=sys.stderr)
                code = 1
            elif metric.failures:
                reason, count = max(metric.failures.items(), key=lambda item: item[1])
                print(
                    f"warning: {record.method.name}: metric {name} could not score {sum(metric.failures.values())} of "
                    f"{record.n_pairs - record.n_failed} outputs ({count}x {reason})",
                    file=sys.stderr,
                )
    return 3 if lacking else code
