"""`bcd-bench bundle`: packs a run's record, values, plan and environment into one file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.types.errors import UsageError

EXAMPLES = ("bcd-bench bundle runs/sprites@1/bcd/RUN_ID", "bcd-bench bundle RUN --output submission.zip")


def command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run folder.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The bundle (default: SUITE-METHOD-RUN_ID.zip here).")
    ] = None,
) -> None:
    """Pack a run's record as one file for others to check."""
    from bcd_bench.run.folder import RunFolder
    from bcd_bench.verification.bundle import write_bundle

    plan = RunFolder(run).plan
    output = output or Path(f"{plan.suite.name}-{plan.method.name}-{plan.run_id}.zip")
    if output.is_dir():
        raise UsageError(f"--output {output}: is a folder, not a file")
    write_bundle(run, output)
    print(output)
