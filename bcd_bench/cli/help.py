"""The options of `bcd-bench` itself, with a `--help` of our own for the verbs that have to be fast.

typer loads pydantic to read the value of its own `--help`, which takes longer than all that `list` does. A plain flag
with a default of False is read without it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from bcd_bench import __version__

__all__ = ["Help", "options"]


def _show_help(context: typer.Context, asked: bool) -> None:
    """Print the help of the command at hand and stop."""
    if asked:
        print(context.get_help())
        raise typer.Exit


Help = Annotated[
    bool, typer.Option("--help", "-h", callback=_show_help, is_eager=True, help="Show this message and exit.")
]
"""A parameter of commands that are made with `add_help_option=False`."""


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
