"""The command line `bcd-bench`: one module per verb, each imported only when its verb is used."""

from bcd_bench.cli.app import main

__all__ = ["main"]
