"""`bcd-bench report`: tables and pages from records. Needs no torch, no suite and no outputs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load
from bcd_bench.cli.complete import suites
from bcd_bench.cli.tables import print_rows
from bcd_bench.types.errors import UsageError

EXAMPLES = (
    "bcd-bench report",
    "bcd-bench report runs results --suite sprites --format latex --output table.tex",
)


def command(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Run folders, folders of them, or records (default: ./runs)."),
    ] = None,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="markdown, latex, latex-table, csv, json, html, or a plugin's (default: markdown; on a terminal, a "
            "table that fits it).",
        ),
    ] = None,
    suite: Annotated[str | None, typer.Option(metavar="S", help="Only this suite.", autocompletion=suites)] = None,
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a file instead of printing.")] = None,
) -> None:
    """Make tables and pages from run folders and records."""
    from bcd_bench.io.atomic import write_text_atomic
    from bcd_bench.plugin.loading import load_code, plugin_code
    from bcd_bench.results.rows import collect_rows, conflict_notes

    if output is not None and output.is_dir():
        raise UsageError(f"--output {output}: is a folder, not a file")
    registry = load()
    on_terminal = format_ is None and output is None and sys.stdout.isatty()
    format_ = format_ or "markdown"
    render = load_code(registry.report_format(format_).factory, f"report format {format_!r}")
    if not paths and not Path("runs").is_dir():
        raise UsageError("no folder ./runs here; pass run folders or records", hint="bcd-bench report PATH")
    sources = paths or [Path("runs")]
    rows = collect_rows(sources, suite=suite, registry=registry)
    if suite is not None and not rows:
        registry.suite(suite)  # an unknown name is an error; a known one without runs is an empty table
    unfinished = sum(1 for source in sources for plan in source.rglob("plan.json") if not _recorded(plan))
    if unfinished:
        print(f"warning: {unfinished} unfinished run(s) without a record are left out", file=sys.stderr)
    for note in conflict_notes(rows):
        print(f"warning: {note}", file=sys.stderr)
    if on_terminal:
        print_rows(rows)
        return
    with plugin_code(f"report format {format_!r}", "failed"):
        text = render(rows, suite=suite)
        if not isinstance(text, str):
            raise TypeError(f"it returned {type(text).__name__}, not text")
    if output is None:
        print(text, end="" if text.endswith("\n") else "\n")
        return
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(output, text)
    except OSError as error:
        raise UsageError(f"cannot write {output}: {error.strerror or error}") from error
    print(output)


def _recorded(plan: Path) -> bool:
    return (plan.parent / "record.json").exists()
