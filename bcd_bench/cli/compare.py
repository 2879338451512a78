"""`bcd-bench compare`: two runs over the same pairs, column by column, with paired intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import print_json, split_names
from bcd_bench.cli.complete import metrics

EXAMPLES = ("bcd-bench compare runs/sprites@1/bcd/RUN_ID runs/sprites@1/oracle/RUN_ID --metric exact-psnr",)


def command(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder or record.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another run over the same pairs.")],
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="M[,M…]", help="Metrics or columns (default: all).", autocompletion=metrics),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare two runs pair by pair."""
    from bcd_bench.results.schema import load_records
    from bcd_bench.statistics.compare import compare_runs, render_comparisons

    comparisons = compare_runs(first, second, split_names(metric, "--metric"))
    if as_json:
        print_json(comparisons)
        return
    labels = []
    for path in (first, second):
        [(_, record)] = load_records([path])
        labels.append(f"{record.method.name} {record.run_id[:8]}")
    print(render_comparisons(comparisons, *labels), end="")
