"""`bcd-bench report`: tables and pages from records. Needs no torch, no suite and no outputs."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from bcd_bench.cli.common import load, split_names
from bcd_bench.cli.complete import methods, metrics, suites
from bcd_bench.cli.tables import print_rows
from bcd_bench.types.errors import UsageError

EXAMPLES = (
    "bcd-bench report",
    "bcd-bench report runs results --suite sprites --format latex --output table.tex",
    "bcd-bench report runs --suite sprites --format latex-table --metric exact-psnr,skin --interval pm",
    "bcd-bench report runs --format html --folder report",
)
LATEX_ONLY = ("label", "table_star")


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
    folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="html: write the page to a folder, with the videos of the runs."),
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            "--metric",
            "--column",
            metavar="M[,M…]",
            help="Metrics or columns, in this order (default: all with a value).",
            autocompletion=metrics,
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="M[,M…]",
            help="Methods, labels or starts of run ids, in this order (default: all).",
            autocompletion=methods,
        ),
    ] = None,
    order: Annotated[str, typer.Option(metavar="COLUMN", help="Sort the rows by this column, best first.")] = "",
    decimals: Annotated[
        list[str] | None,
        typer.Option(metavar="N|COLUMN=N", help="Decimals of all columns, or of one; repeatable."),
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(metavar="FORM", help="95 % intervals: bracket (default), pm (± half the width), or none."),
    ] = None,
    transpose: Annotated[bool, typer.Option("--transpose", help="One row per column, methods side by side.")] = False,
    short_names: Annotated[bool, typer.Option("--short-names", help="Methods without the recipes of weights.")] = False,
    notes: Annotated[
        str | None, typer.Option(metavar="FORM", help="Notes below the table: footnote (default) or none.")
    ] = None,
    caption: Annotated[str, typer.Option(metavar="TEXT", help="Title of the table, as plain text.")] = "",
    label: Annotated[str, typer.Option(metavar="NAME", help="LaTeX: name for \\ref (default: tab:SUITE).")] = "",
    table_star: Annotated[
        bool, typer.Option("--table-star", help="LaTeX: over both columns of a page with two (table*).")
    ] = False,
) -> None:
    """Make tables and pages from run folders and records."""
    from bcd_bench.io.atomic import write_text_atomic
    from bcd_bench.plugin.loading import load_code, plugin_code
    from bcd_bench.results.layout import Layout
    from bcd_bench.results.rows import collect_rows, conflict_notes
    from bcd_bench.results.selection import Selection, parse_decimals
    from bcd_bench.util.progress import open_progress

    if output is not None and output.is_dir():
        raise UsageError(
            f"--output {output}: is a folder, not a file", hint="bcd-bench report --format html --folder FOLDER"
        )
    if output is not None and folder is not None:
        raise UsageError("--output and --folder: pass one of them")
    selection = Selection(
        split_names(metric, "--metric"), split_names(method, "--method"), order, parse_decimals(decimals or [])
    )
    form = {
        "interval": interval,
        "transpose": transpose,
        "short_names": short_names,
        "notes": notes,
        "caption": caption,
        "label": label,
        "table_star": table_star,
    }
    chosen: dict[str, Any] = {name: value for name, value in form.items() if value}
    registry = load()
    on_terminal = format_ is None and output is None and folder is None and sys.stdout.isatty()
    format_ = format_ or "markdown"
    spec = registry.report_format(format_)
    if folder is not None and not spec.folder:
        raise UsageError(
            f"--folder has no effect on format {format_}", hint="bcd-bench report --format html --folder FOLDER"
        )
    render = load_code(spec.factory, f"report format {format_!r}")
    takes_layout = _takes_layout(render)
    _check_form(chosen, format_, takes_layout=takes_layout)
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
    for row in rows:
        if row.refusal:
            print(f"warning: {row.folder or row.method}: not ranked: {row.refusal}", file=sys.stderr)
    columns = selection.columns(rows)
    rows = selection.apply(rows)
    layout = Layout(**chosen, columns=columns, keep_order=bool(selection.methods or order))
    if on_terminal:
        print_rows(rows, layout)
        return
    if folder is not None:
        write = load_code(spec.folder, f"report format {format_!r}")
        with plugin_code(f"report format {format_!r}", "failed"):
            page = write(rows, folder, suite=suite, layout=layout, registry=registry, progress=open_progress())
        print(page)
        return
    with plugin_code(f"report format {format_!r}", "failed"):
        text = render(rows, suite=suite, layout=layout) if takes_layout else render(rows, suite=suite)
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


def _takes_layout(render: Callable[..., Any]) -> bool:
    try:
        return "layout" in inspect.signature(render).parameters
    except (TypeError, ValueError):  # not a function, or a builtin one: the call says what is wrong with it
        return False


def _check_form(chosen: Mapping[str, Any], format_: str, *, takes_layout: bool) -> None:
    """Raise `UsageError` for an option that the format cannot follow, so that none is without effect."""
    for name in chosen:
        only_latex = name in LATEX_ONLY and format_ in ("markdown", "html")
        if only_latex or not takes_layout:
            option = "--" + name.replace("_", "-")
            hint = "bcd-bench report --format latex" if only_latex else "bcd-bench report --format markdown"
            raise UsageError(f"{option} has no effect on format {format_}", hint=hint)


def _recorded(plan: Path) -> bool:
    return (plan.parent / "record.json").exists()
