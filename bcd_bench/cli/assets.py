"""`bcd-bench assets`: weights and data by name, size, sha256, licence and source."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import load, print_json, print_table
from bcd_bench.types.errors import MissingAssetError, UsageError

if TYPE_CHECKING:
    from bcd_bench.assets.store import AssetStatus, AssetStore

app = typer.Typer(add_completion=False)


def _store() -> AssetStore:
    from bcd_bench.assets.store import AssetStore

    return AssetStore(load())


def _facts(status: AssetStatus) -> dict[str, Any]:
    spec = status.spec
    return {
        "name": spec.name,
        "state": status.state,
        "filename": spec.filename,
        "size": spec.size,
        "sha256": spec.sha256 or status.sha256 or None,
        "files": len(spec.files) if spec.directory else None,
        "licence": spec.licence,
        "restricted": spec.restricted,
        "urls": list(spec.urls),
        "how_to": spec.how_to,
        "path": status.path,
        "problem": status.problem or None,
    }


def _print_statuses(statuses: list[AssetStatus], *, as_json: bool) -> None:
    from bcd_bench.assets.store import format_size

    if as_json:
        print_json([_facts(status) for status in statuses])
        return
    if not statuses:
        print("no plugin declares an asset")
        return
    rows = []
    for status in statuses:
        spec = status.spec
        content = f"{len(spec.files)} files" if spec.directory else f"sha256 {spec.sha256[:12]}…"
        if spec.any_file:
            content = "any folder" if spec.directory else "any file"
            content += f", here sha256 {status.sha256[:12]}…" if status.sha256 else ""
        where = str(status.path) if status.state == "ok" else status.problem
        size = format_size(spec.size) if spec.size else "–"
        rows.append([spec.name, status.state, size, content, spec.licence, where])
    print_table("assets", ["name", "state", "size", "content", "licence", "where"], rows)


@app.command("list")
def list_assets(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Every asset: whether it is here, its size, sha256, licence and source."""
    _print_statuses(_store().status(), as_json=as_json)


@app.command()
def fetch(
    assets: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Names of assets.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every asset that has a download source.")] = False,
) -> None:
    """Download assets into the cache and verify them."""
    store = _store()
    if bool(assets) == everything:
        raise UsageError("name the assets to fetch, or --all", hint="bcd-bench assets list")
    known = store.registry.assets
    for name in assets or [name for name, spec in sorted(known.items()) if spec.urls]:
        print(f"{name}: {store.fetch(name)}")
        if known[name].restricted:
            print(f"{name}: {known[name].restricted} ({known[name].licence})")


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the asset.")],
    path: Annotated[Path, typer.Argument(help="The file or folder you have.")],
) -> None:
    """Verify a file or folder you have and copy it into the cache."""
    store = _store()
    print(f"{name}: {store.add(name, path.expanduser())}")
    restricted = store.registry.assets[name].restricted
    if restricted:
        print(f"{name}: {restricted}")


@app.command()
def verify(
    assets: Annotated[list[str] | None, typer.Argument(metavar="NAME...", help="Names; without any, all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Hash assets again. Exit code 3 where one is altered, or where one that was named is missing."""
    store = _store()
    statuses = [store.status_of(name, fresh=True) for name in assets] if assets else store.verify()
    _print_statuses(statuses, as_json=as_json)
    bad = [s for s in statuses if s.state == "altered" or (assets and s.state != "ok")]
    if bad:
        problems = "; ".join(f"{s.spec.name} is {s.state} ({s.problem})" for s in bad)
        first = bad[0].spec
        verb = "fetch" if first.urls else "add"
        raise MissingAssetError(problems, hint=f"bcd-bench assets {verb} {first.name}{'' if first.urls else ' PATH'}")
