"""`bcd-bench status`: the progress of runs, read from their folders."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_bench.cli.common import print_json, print_table

if TYPE_CHECKING:
    from bcd_bench.run.status import PartStatus, RunStatus

EXAMPLES = (
    "bcd-bench status runs",
    "bcd-bench status runs/sprites-procedural@1/bcd/0123456789ab --json",
)
HEADER = ("part", "state", "pairs", "failed", "s/pair", "last result", "time left")


def _row(name: str, part: PartStatus) -> list[str]:
    from bcd_bench.util.progress import format_seconds

    left = "-"
    if part.state == "generating" and part.seconds_per_pair is not None:
        left = f"{format_seconds((part.n_pairs - part.n_finished) * part.seconds_per_pair)} of a worker"
    return [
        name,
        part.state,
        f"{part.n_finished}/{part.n_pairs}",
        str(part.n_failed),
        "-" if part.seconds_per_pair is None else f"{part.seconds_per_pair:.2f}",
        "-" if part.last_result is None else f"{format_seconds(part.last_result)} ago",
        left,
    ]


def _rows(status: RunStatus) -> Iterator[list[str]]:
    for part in status.parts:
        yield _row("all" if part.shard is None else f"shard {part.shard}", part)


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders that contain some.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the progress of runs and shards, also of running ones.

    Everything is read from the folder, so it works from any machine that sees it.
    """
    from bcd_bench.run.folder import find_runs
    from bcd_bench.run.status import status_of

    states = [status_of(run) for run in find_runs(runs)]
    if as_json:
        print_json([dataclasses.asdict(state) for state in states])
        return
    for state in states:
        end = "recorded" if state.recorded else "no record yet"
        failed = f", {state.n_failed} failed" if state.n_failed else ""
        title = f"{state.method} on {state.suite}: {state.n_finished}/{state.n_pairs} pairs{failed}, {end}"
        print_table(title, HEADER, _rows(state))
        print(f"run folder: {state.path}")
