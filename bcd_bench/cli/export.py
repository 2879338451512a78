"""`bcd-bench export`: a suite's clips and pairs as files, for tools outside the harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from bcd_bench.cli.common import load, parse_data, print_notes
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress


def command(
    suite: Annotated[str, typer.Option(metavar="S", help="A suite, as `list suites` names it.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write.")],
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Data of your own.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first N pairs only.")] = None,
    format: Annotated[str, typer.Option(metavar="mkv|png", help="Lossless videos, or folders of frames.")] = "mkv",
) -> None:
    """Write a suite's clips and pairs as files, for tools outside the harness. The same command continues."""
    from bcd_bench.io.export import Kind, export_suite
    from bcd_bench.plugin.suites import load_suite

    if format not in get_args(Kind):
        raise UsageError(f"--format {format!r}: clips are written as {' or '.join(get_args(Kind))}")
    made = load_suite(load(), suite, parse_data(data or []))
    print_notes(made.notes)
    kind: Kind = "mkv" if format == "mkv" else "png"
    rows = export_suite(made, out, limit=limit, kind=kind, progress=open_progress())
    clips = {path for row in rows for path in (row.content, row.motion)}
    print(f"{len(rows)} pairs of {made.name}@{made.version}: {out / 'pairs.jsonl'} and {len(clips)} clips beside it")
    print("Name each output as `output` says, with as many frames as `frames` says, in one folder, and score it:")
    print(f"  bcd-bench run --method folder --config path=FOLDER --suite {made.name}")
