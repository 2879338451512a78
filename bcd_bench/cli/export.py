"""`bcd-bench export`: a suite's clips and pairs as files, for tools outside the harness."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from bcd_bench.cli.common import load, parse_data, print_notes
from bcd_bench.cli.complete import suites
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress

EXAMPLES = ("bcd-bench export --suite heads-cross-128 --out exported --format png",)


def command(
    suite: Annotated[str, typer.Option(metavar="S", help="Suite, see `bcd-bench list suites`.", autocompletion=suites)],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write.")],
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data for the suite.")] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pairs.")] = None,
    format: Annotated[str, typer.Option(metavar="mkv|png", help="Lossless videos, or folders of frames.")] = "mkv",
) -> None:
    """Write a suite's clips and pairs as files, for tools outside the harness. Rerun the same command to resume."""
    from bcd_bench.io.export import Kind, export_suite
    from bcd_bench.plugin.suites import load_suite

    if format not in get_args(Kind):
        raise UsageError(f"--format {format!r}: choose {' or '.join(get_args(Kind))}")
    built = load_suite(load(), suite, parse_data(data or []))
    print_notes(built.notes)
    kind: Kind = "mkv" if format == "mkv" else "png"
    rows = export_suite(built, out, limit=limit, kind=kind, progress=open_progress())
    clips = {path for row in rows for path in (row.content, row.motion)}
    print(f"{len(rows)} pairs of {built.name}@{built.version} in {out}: pairs.jsonl and {len(clips)} clips")
    print("To score outputs, put them into one folder, with the names in `output` and the lengths in `frames`:")
    print(f"  bcd-bench run --method folder --set path=FOLDER --suite {built.name}")
