"""`bcd-bench list`: everything that is installed, by kind, with its plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import load, print_json, print_table
from bcd_bench.cli.help import Help

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

KINDS = ("methods", "suites", "metrics", "plugins", "trainables", "assets", "extractors", "preprocessors", "commands")
SHOWN_BY_DEFAULT = ("methods", "suites", "metrics", "trainables", "plugins")

EXAMPLES = (
    "bcd-bench list methods",
    "bcd-bench list --json",
)


def rows_of(registry: Registry, kind: str) -> list[dict[str, Any]]:
    """One JSON-safe row per item of a kind, sorted by name (plugins in loading order)."""
    if kind == "plugins":
        return [
            {"name": p.name, "distribution": p.dist, "version": p.version, "status": p.status, "error": p.error}
            for p in registry.plugins
        ]
    rows = []
    for name, spec in sorted(getattr(registry, kind).items()):
        row = {"name": name, "version": getattr(spec, "version", ""), "summary": getattr(spec, "summary", "")}
        if kind == "assets":
            row |= {"summary": spec.filename, "sha256": spec.sha256, "size": spec.size}
        if kind == "trainables":
            row |= {"presets": list(spec.presets), "default_preset": spec.default_preset}
        row |= {"licence": getattr(spec, "licence", ""), "plugin": registry.owner(kind, name).name}
        rows.append(row)
    return rows


def _print_kind(registry: Registry, kind: str) -> None:
    rows = rows_of(registry, kind)
    if kind == "plugins":
        columns = ["name", "distribution", "version", "status"]
        cells = [[r["name"], r["distribution"], r["version"], r["status"]] for r in rows]
        for cell, row in zip(cells, rows, strict=True):
            if row["status"] != "ok":
                cell[-1] += f": {' '.join(str(row['error']).split())}"
    else:
        columns = ["name", "version", "summary", "plugin"]
        cells = [[row[column] for column in columns] for row in rows]
    print_table(kind, columns, cells)


def _show(kinds: tuple[str, ...], *, as_json: bool, whole: bool) -> None:
    registry = load()
    if as_json:
        print_json({kind: rows_of(registry, kind) for kind in kinds} if whole else rows_of(registry, kinds[0]))
        return
    for index, kind in enumerate(kinds):
        if index:
            print()
        _print_kind(registry, kind)


# One command per kind, with flags only: for other parameters typer imports pydantic, see `bcd_bench.cli.help`.
app = typer.Typer(add_completion=False, add_help_option=False)
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def everything(context: typer.Context, as_json: AsJson = False, help_: Help = False) -> None:
    """List methods, suites, metrics and plugins."""
    context.obj = as_json
    if context.invoked_subcommand is None:
        _show(KINDS if as_json else SHOWN_BY_DEFAULT, as_json=as_json, whole=True)


def _add_kind(kind: str) -> None:
    @app.command(kind, help=f"List {kind}, one per line.", add_help_option=False)
    def one_kind(context: typer.Context, as_json: AsJson = False, help_: Help = False) -> None:
        _show((kind,), as_json=as_json or bool(context.obj), whole=False)


for _kind in KINDS:
    _add_kind(_kind)
