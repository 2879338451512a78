"""`bcd-bench cache`: how large the cache folder is, and making it smaller."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import print_json, print_table, split_names
from bcd_bench.cli.help import examples_text
from bcd_bench.types.errors import UsageError
from bcd_bench.util.cache import (
    KINDS,
    LIMIT_VARIABLE,
    CachedFile,
    cached_files,
    limit_from_environment,
    parse_size,
    prune,
)

app = typer.Typer(add_completion=False)

EXAMPLES = ("bcd-bench cache info", "bcd-bench cache prune --max-size 20GB")
PRUNE_EXAMPLES = (
    "bcd-bench cache prune --max-size 20GB",
    "bcd-bench cache prune --unused-for 30 --only features",
    "bcd-bench cache prune --max-size 0 --dry-run",
)


def _home() -> Path:
    from bcd_bench.assets.store import cache_folder

    return cache_folder()


def _sizes(home: Path, files: list[CachedFile]) -> dict[str, tuple[int, int]]:
    """Number of files and bytes, by kind, and within a kind by its folder (an extractor, a renderer)."""
    sizes: dict[str, tuple[int, int]] = {}
    for file in files:
        kind, *inner = file.path.relative_to(home).parts[:-1]
        name = f"{kind}/{inner[0]}" if inner and len(inner[0]) > 2 else kind  # two letters: part of a hash
        count, size = sizes.get(name, (0, 0))
        sizes[name] = (count + 1, size + file.size)
    return dict(sorted(sizes.items()))


@app.command()
def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the number and size of cached features and clips. Assets are listed by `bcd-bench assets list`."""
    from bcd_bench.assets.store import format_size

    home, limit = _home(), limit_from_environment()
    files = list(cached_files(home))
    sizes = _sizes(home, files)
    total = sum(file.size for file in files)
    if as_json:
        contents = {name: {"files": count, "bytes": size} for name, (count, size) in sizes.items()}
        print_json({"folder": home, "contents": contents, "bytes": total, "limit": limit})
        return
    rows = [[name, str(count), format_size(size)] for name, (count, size) in sizes.items()]
    print_table("cache", ["content", "files", "size"], [*rows, ["all", str(len(files)), format_size(total)]])
    print(f"folder: {home}")
    print(f"limit of features: {'none' if limit is None else format_size(limit)} ({LIMIT_VARIABLE})")


@app.command("prune", epilog=examples_text(PRUNE_EXAMPLES))
def prune_command(
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Delete what was used longest ago until SIZE is left.")
    ] = None,
    unused_for: Annotated[
        float | None, typer.Option(metavar="DAYS", min=0, help="Delete what was not used for DAYS.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", metavar="KIND[,KIND…]", help=f"Kinds: {', '.join(KINDS)}.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be deleted.")] = False,
) -> None:
    """Delete cached features and clips. They are recomputed when they are needed.

    This is safe while other commands run. Assets are never deleted.
    """
    from bcd_bench.assets.store import format_size

    kinds = split_names(only, "--only") or list(KINDS)
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"--only {unknown[0]}: choose from {', '.join(KINDS)}")
    if max_size is None and unused_for is None:
        raise UsageError("say what to delete: --max-size SIZE or --unused-for DAYS", hint=PRUNE_EXAMPLES[0])
    size = None if max_size is None else parse_size(max_size, "--max-size")
    home = _home()
    files = list(cached_files(home, kinds))
    try:
        deleted = prune(files, max_size=size, unused_days=unused_for, dry_run=dry_run)
    except OSError as error:
        raise UsageError(f"cannot delete {error.filename}: {error.strerror}") from error
    rows = [[name, str(count), format_size(size)] for name, (count, size) in _sizes(home, deleted).items()]
    if rows:
        print_table("deleted", ["content", "files", "size"], rows)
    freed = sum(file.size for file in deleted)
    left = sum(file.size for file in files) - freed
    verb = "would delete" if dry_run else "deleted"
    print(f"{verb} {len(deleted)} of {len(files)} files, {format_size(freed)}; {format_size(left)} left")
