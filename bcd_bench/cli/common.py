"""Shared by the commands: parsing of `k=v` and of lists, JSON output, tables for terminals and pipes."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.types.errors import BcdBenchError, UsageError, printable

if TYPE_CHECKING:
    from rich.console import Console

    from bcd_bench.plugin.registry import PluginInfo, Registry

__all__ = [
    "console",
    "load",
    "parse_data",
    "parse_settings",
    "print_error",
    "print_json",
    "print_notes",
    "print_table",
    "split_names",
    "to_jsonable",
    "warn_broken",
]

PIPE_WIDTH = 200
"""Columns of a table that is not printed on a terminal: wide, so that `| grep` finds whole lines."""
SHOWN_NOTES = 20
"""Notes of a suite that are printed; a folder of thousands of videos may have hundreds."""


def parse_settings(items: Iterable[str], option: str) -> dict[str, Any]:
    """`["steps=5", "name=x"]` -> `{"steps": 5, "name": "x"}`; values that are not JSON are kept as text.

    Raises UsageError for an item without `=` or a key given twice.
    """
    settings: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise UsageError(f"{option} {item!r} is not of the form key=value")
        if key in settings:
            raise UsageError(f"{option} {key} is given twice")
        try:
            settings[key] = json.loads(text)
        except ValueError:
            settings[key] = text
    return settings


def parse_data(items: Iterable[str]) -> dict[str, Path]:
    """`["lrs3=/data/lrs3"]` -> `{"lrs3": Path(...)}`. Raises `UsageError` if a path does not exist or a name is given
    twice."""
    data: dict[str, Path] = {}
    for item in items:
        name, equals, path = item.partition("=")
        if not equals or not name or not path:
            raise UsageError(f"--data {item!r} is not of the form NAME=PATH")
        if name in data:
            raise UsageError(f"--data {name} is given twice")
        data[name] = Path(path).expanduser()
        if not data[name].exists():
            raise UsageError(f"--data {name}: {path} does not exist")
    return data


def split_names(items: Iterable[str] | None, option: str) -> list[str]:
    """`["bcd,oracle", "fomm"]` -> `["bcd", "oracle", "fomm"]`, each once: lists take commas, repetition, or both.

    Empty if the option is not passed. Raises `UsageError` if it is passed without any name.
    """
    values = list(items or [])
    names = list(dict.fromkeys(part.strip() for item in values for part in item.split(",") if part.strip()))
    if values and not names:
        raise UsageError(f"{option} needs at least one name")
    return names


def to_jsonable(value: Any) -> Any:
    """`value` as JSON types: records become objects, paths text, tuples lists."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def print_json(value: Any) -> None:
    print(json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False))


def console() -> Console:
    """A console on stdout: as wide as the terminal, or wide enough for a pipe."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table that folds on a terminal and keeps each row on one line in a pipe; cells are taken literally."""
    grid = [list(columns), *map(list, rows)]
    if not sys.stdout.isatty():
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        print(title)
        for row in grid:
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, no_wrap=index == 0, overflow="fold")
    for row in grid[1:]:
        table.add_row(*(Text(cell) for cell in row))
    console().print(table)


def print_error(error: BcdBenchError, what: object) -> None:
    """Print an error that does not end the command, in the same format as fatal errors; `what` is its subject."""
    print(f"error: {what}: {' '.join(str(error).split())}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)


def warn_broken(plugins: Iterable[PluginInfo]) -> None:
    """Print one line on stderr for every plugin that failed to load. The others still work."""
    for plugin in plugins:
        if plugin.status != "ok":
            reason = " ".join(str(plugin.error or "").split())
            print(f"warning: plugin {plugin.name} ({plugin.dist}) is BROKEN: {reason}", file=sys.stderr)


def print_notes(notes: Iterable[str]) -> None:
    """Print the notes of a suite on stderr: the first ones, then the number of further notes."""
    every = [printable(note) for note in notes]
    for note in every[:SHOWN_NOTES]:
        print(f"note: {note}", file=sys.stderr)
    if len(every) > SHOWN_NOTES:
        print(f"note: and {len(every) - SHOWN_NOTES} more; `bcd-bench show suite` prints all", file=sys.stderr)


def load() -> Registry:
    """The registry of everything installed, with a warning for each broken plugin."""
    from bcd_bench.plugin.registry import load_registry

    registry = load_registry()
    warn_broken(registry.plugins)
    return registry
