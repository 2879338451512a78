"""`bcd-bench new-plugin`: write a small plugin that installs, runs and passes the conformance kit."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bcd_bench import __version__
from bcd_bench.cli.common import load, split_names
from bcd_bench.types.errors import UsageError

TEMPLATE = Path(__file__).parent.parent / "templates" / "new-plugin"
PARTS = {"metric": "activity", "suite": "squares", "extractor": "changes", "executor": "processes"}
"""Part that `--with` adds to the method -> the suffix of its name."""
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")

EXAMPLES = (
    "bcd-bench new-plugin my-method",
    "bcd-bench new-plugin my-benchmark --with metric,suite,extractor,executor",
)


def write_plugin(name: str, folder: Path, parts: Sequence[str] = ("metric",)) -> list[Path]:
    """Write the plugin `name` into the new folder `folder` and return its files, relative to it, sorted.

    `parts` are the names in `PARTS` that the plugin contains in addition to its method. Raises `UsageError` for an
    invalid name or part, and for a folder that exists or cannot be written.
    """
    import jinja2

    if not NAME.fullmatch(name):
        raise UsageError(f"invalid plugin name {name!r}: use lowercase letters, digits and hyphens, such as my-method")
    for part in parts:
        if part not in PARTS:
            raise UsageError(f"--with {part}: choose from {', '.join(PARTS)}")
    if folder.exists():
        raise UsageError(f"{folder} already exists", hint=f"bcd-bench new-plugin {name} --out ANOTHER_FOLDER")
    package = "bcd_bench_" + name.replace("-", "_")
    words = {
        "name": name,
        "distribution": f"bcd-bench-{name}",
        "package": package,
        "class_name": "".join(part.capitalize() for part in name.split("-")),
        "bcd_bench_version": __version__,
        "parts": tuple(parts),
        "contents": [(part, f"{name}-{PARTS[part]}") for part in PARTS if part in parts],
        "suite": f"{name}-squares" if "suite" in parts else "sprites-procedural",
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATE), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    written = []
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-plugin-") as scratch:
            draft = Path(scratch) / "draft"
            for source in environment.list_templates(extensions=["jinja"]):
                if Path(source).name.partition(".")[0] in PARTS.keys() - set(parts):
                    continue
                target = Path(source.removesuffix(".jinja").replace("package/", f"{package}/", 1))
                written.append(target)
                (draft / target).parent.mkdir(parents=True, exist_ok=True)
                (draft / target).write_text(environment.get_template(source).render(words), encoding="utf-8")
            draft.rename(folder)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from error
    return sorted(written)


def command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the plugin, such as my-method.")],
    with_: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="PART[,…]", help=f"Additional parts: {', '.join(PARTS)} (default: metric)."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder to write (default: bcd-bench-NAME).")] = None,
) -> None:
    """Write a plugin that installs, runs and passes the conformance kit."""
    folder = Path(f"bcd-bench-{name}") if out is None else out
    registry = load()
    owners = [plugin for plugin in registry.plugins if plugin.name == name]
    owners += [registry.owner("methods", name)] if name in registry.methods else []
    if owners:
        owner = f"{owners[0].dist} (plugin {owners[0].name})"
        raise UsageError(f"the name {name!r} is already used by {owner}", hint="choose another name")
    parts = split_names(with_, "--with") or ["metric"]
    suite = f"{name}-squares" if "suite" in parts else "sprites-procedural"
    for file in write_plugin(name, folder, parts):
        print(folder / file)
    print(f"\nNext:\n  pip install -e '{folder}[test]'\n  bcd-bench list plugins")
    print(f"  bcd-bench run --method {name} --suite {suite} --limit 16\n  pytest {folder}")
