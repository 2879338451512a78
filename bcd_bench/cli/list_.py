"""`bcd-bench list`: what is installed, by kind, with the plugin that brings it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import load, print_json, print_table
from bcd_bench.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugins import Registry

KINDS = ("methods", "suites", "metrics", "plugins", "trainables", "assets", "extractors", "commands")
SHOWN_BY_DEFAULT = ("methods", "suites", "metrics", "trainables", "plugins")


def rows_of(registry: Registry, kind: str) -> list[dict[str, Any]]:
    """One JSON-safe row per thing of `kind`, sorted by name (plugins in loading order)."""
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


def command(
    kind: Annotated[str | None, typer.Argument(help=f"One of {', '.join(KINDS)}; without it, the main ones.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What is installed: methods, suites, metrics, plugins."""
    if kind is not None and kind not in KINDS:
        raise UsageError(f"there is no list of {kind!r}; there are {', '.join(KINDS)}")
    registry = load()
    if as_json:
        print_json({k: rows_of(registry, k) for k in KINDS} if kind is None else rows_of(registry, kind))
        return
    for index, shown in enumerate(SHOWN_BY_DEFAULT if kind is None else (kind,)):
        if index:
            print()
        _print_kind(registry, shown)
