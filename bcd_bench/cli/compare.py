"""`bcd-bench compare`: runs over the same pairs, column by column, with paired intervals."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import print_json, split_names
from bcd_bench.cli.complete import metrics
from bcd_bench.types.errors import UsageError

EXAMPLES = (
    "bcd-bench compare runs/sprites@1/bcd/RUN_ID runs/sprites@1/oracle/RUN_ID --metric exact-psnr",
    "bcd-bench compare RUN RUN RUN --format latex-table --plot forest.pdf",
)


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Run folders or records, two or more.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="M[,M…]", help="Metrics or columns (default: all).", autocompletion=metrics),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="markdown (default), latex or latex-table.")
    ] = "markdown",
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the differences as a forest plot: .png or .pdf.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare runs pair by pair."""
    from bcd_bench.results.comparison_tables import FORMATS, render
    from bcd_bench.statistics.compare import compare_runs, render_comparisons, single_record
    from bcd_bench.statistics.pairwise import compare_all

    if len(runs) < 2:
        raise UsageError("compare needs at least two runs", hint="bcd-bench compare RUN RUN")
    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if as_json and format_ != "markdown":
        raise UsageError(f"--json and --format {format_} exclude each other")
    names = split_names(metric, "--metric")
    tournament = compare_all(runs, names) if len(runs) > 2 or plot is not None or format_ != "markdown" else None
    if plot is not None and tournament is not None:
        from bcd_bench.results.forest import draw_forest

        draw_forest(tournament, plot)
        print(plot, file=sys.stderr)
    if len(runs) == 2 and format_ == "markdown":
        comparisons = compare_runs(runs[0], runs[1], names)
        if as_json:
            print_json(comparisons)
            return
        records = [single_record(path)[1] for path in runs]
        labels = [f"{record.method.name} {record.run_id[:8]}" for record in records]
        print(render_comparisons(comparisons, *labels), end="")
    elif tournament is not None and as_json:
        print_json(tournament.differences)
    elif tournament is not None:
        print(render(tournament, format_), end="")
