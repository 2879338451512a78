"""The options of `bcd-bench` itself, with a custom `--help` for commands that have to start fast.

typer imports pydantic to parse its own `--help`, which takes longer than the whole command `list`. It parses a plain
flag with the default False without pydantic.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from bcd_bench import __version__

__all__ = ["Help", "examples_text", "options"]


def _show_help(context: typer.Context, asked: bool) -> None:
    """Print the help of the current command and exit."""
    if asked:
        print(context.get_help())
        raise typer.Exit


Help = Annotated[
    bool, typer.Option("--help", "-h", callback=_show_help, is_eager=True, help="Show this message and exit.")
]
"""A parameter of commands that are created with `add_help_option=False`."""


def _show_version(asked: bool) -> None:
    if asked:
        print(f"bcd-bench {__version__}")
        raise typer.Exit


def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    help_: Help = False,
) -> None:
    """Benchmark and evaluation harness for disentangled motion transfer in video."""


def examples_text(examples: Sequence[str]) -> str | None:
    """Examples below the options; the marker keeps their lines as they are."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples) if examples else None
