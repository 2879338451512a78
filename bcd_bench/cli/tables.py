"""The table at the end of `run` and `score`: one line per column, one column per run, then the run folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.cli.common import console
from bcd_bench.scoring.missing_metrics import not_scored

if TYPE_CHECKING:
    from bcd_bench.results.layout import Layout
    from bcd_bench.results.rows import ReportRow
    from bcd_bench.results.table import Cell, Line, Table

__all__ = ["exit_code", "print_rows", "print_runs"]


def _cell(cell: Cell) -> str:
    text = cell.text + ("†" if cell.dagger else "")
    return f"{text} {cell.interval}" if cell.interval else text


def _print_table(table: Table) -> None:
    from rich import box
    from rich.markup import escape
    from rich.table import Table as Grid

    screen = console()
    print(f"{table.title}\n")
    for lines in _groups(table, screen.width):
        grid = Grid(box=box.MARKDOWN, header_style="bold")
        grid.add_column("", no_wrap=True)
        for line in lines:
            grid.add_column(escape(_label(line)), justify="right", overflow="fold")
        for index, header in enumerate(table.headers):
            grid.add_row(escape(header), *(escape(_cell(line.cells[index])) for line in lines))
        with screen.capture() as capture:
            screen.print(grid)
        print("\n".join(line for line in capture.get().splitlines() if line.strip()) + "\n")
    for note in table.notes:
        print(f"- {note}")


def _label(line: Line) -> str:
    return f"{line.label} ({line.status})" if line.status else line.label


def _groups(table: Table, width: int) -> list[list[Line]]:
    """The lines of a table in groups whose columns fit the terminal side by side; only labels are wrapped."""
    groups: list[list[Line]] = []
    first = 3 + max((len(header) for header in table.headers), default=0)
    used = first
    for line in table.lines:
        words = [len(word) for word in _label(line).split()]
        needed = 3 + max([*words, *(len(_cell(cell)) for cell in line.cells)], default=0)
        if not groups or used + needed > width - 1:
            groups.append([])
            used = first
        groups[-1].append(line)
        used += needed
    return groups


def print_rows(rows: Sequence[ReportRow], layout: Layout | None = None) -> None:
    """Print the tables of these rows so that they fit a terminal: methods side by side, unless the layout transposes
    this."""
    from bcd_bench.results.table import build_tables

    for table in build_tables(rows, layout=layout):
        _print_table(table)


def print_runs(folders: Sequence[Path]) -> None:
    """Print the tables of these run folders, then the folders. Does nothing if there are no folders."""
    from bcd_bench.results.layout import Layout
    from bcd_bench.results.rows import collect_rows

    if not folders:
        return
    print_rows(collect_rows(folders), Layout(keep_unscored=True))
    print()
    for folder in folders:
        print(f"run folder: {folder}")


def exit_code(folders: Sequence[Path], *, required: Sequence[str] | None = (), told: bool = False) -> int:
    """Exit code of finished runs: 1 if pairs or whole metrics failed (printed on stderr), else 0.

    A metric that was not scored because an asset or package is missing means 3 if it is `required` (None: every
    metric is) and is ignored otherwise. With `told`, these metrics were already printed before the run.
    """
    from bcd_bench.results.schema import load_records

    code, unscored = 0, False
    printed: set[str] = set()
    unfinished: list[str] = []
    for path, record in load_records(folders):
        if record.n_failed:
            reason, count = max(record.failures.items(), key=lambda item: item[1])
            print(
                f"warning: {record.method.name}: {record.n_failed} of {record.n_pairs} pairs failed "
                f"({count}x {reason}); run the same command with --retry-failed to try them again",
                file=sys.stderr,
            )
            code = 1
        missing = {name: str(metric.error) for name, metric in record.metrics.items() if metric.missing}
        for line in [] if told else not_scored(missing.items()):
            if line not in printed:  # the next method misses the same asset
                print(f"note: {line}", file=sys.stderr)
                printed.add(line)
        if missing:
            unfinished.append(str(path.parent))
            unscored = unscored or required is None or bool(missing.keys() & set(required))
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
    if unfinished:
        print(f"hint: score them later with: bcd-bench score {' '.join(unfinished)}", file=sys.stderr)
    return 3 if unscored else code
