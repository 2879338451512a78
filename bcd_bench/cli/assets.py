"""`bcd-bench assets`: weights and data by name, size, sha256, licence and source."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import load, print_json, print_table, split_names
from bcd_bench.cli.complete import assets as complete_assets
from bcd_bench.cli.help import examples_text
from bcd_bench.plugin.registry import nearest
from bcd_bench.types.errors import BcdBenchError, MissingAssetError, UsageError

if TYPE_CHECKING:
    from bcd_bench.assets.store import AssetStatus, AssetStore
    from bcd_bench.plugin.registry import Registry

app = typer.Typer(add_completion=False)

EXAMPLES = (
    "bcd-bench assets list",
    "bcd-bench assets fetch --for heads-cross",
    "bcd-bench assets add arcface model.onnx",
)

FETCH_EXAMPLES = ("bcd-bench assets fetch inception-fid", "bcd-bench assets fetch --for heads-cross,csim")


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
    """List every asset with its state, size, sha256, licence and source."""
    _print_statuses(_store().status(), as_json=as_json)


def assets_for(registry: Registry, name: str) -> list[str]:
    """The assets that a suite (with its default metrics), a metric or a method needs.

    Raises `UsageError` if nothing has this name.
    """
    from bcd_bench.plugin.suites import load_suite
    from bcd_bench.scoring.features import extractor_assets
    from bcd_bench.scoring.provenance import metric_assets

    needed: list[str] = []
    metrics = [name] if name in registry.metrics else []
    if name in registry.suites:
        needed += registry.suite(name).assets
        with contextlib.suppress(BcdBenchError):  # its data or assets are missing: only its own assets are known
            metrics += [
                metric_name
                for metric_name in load_suite(registry, name).default_metrics
                if metric_name in registry.metrics
            ]
    if name in registry.methods:
        spec = registry.method(name)
        needed += [*spec.assets, *extractor_assets(registry, spec.extractors)]
        needed += [weights.asset for weights in spec.weights if weights.asset is not None]
        needed += [asset for weights in spec.weights for asset in weights.assets]
    if not metrics and name not in registry.suites and name not in registry.methods:
        names = [*registry.suites, *registry.metrics, *registry.methods]
        raise UsageError(f"--for {name}: no such suite, metric or method; {nearest(name, names)}")
    for metric in metrics:
        needed += metric_assets(registry, registry.metric(metric))
    return list(dict.fromkeys(needed))


@app.command(epilog=examples_text(FETCH_EXAMPLES))
def fetch(
    assets: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Names of assets.", autocompletion=complete_assets),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every asset that has a download source.")] = False,
    needed_for: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="NAME", help="Everything that a suite, metric or method needs."),
    ] = None,
) -> None:
    """Download assets into the cache and verify them."""
    store = _store()
    specs = store.registry.assets
    users = split_names(needed_for, "--for")
    if (bool(assets), everything, bool(users)).count(True) != 1:
        raise UsageError("name the assets to fetch, or use --all or --for NAME", hint="bcd-bench assets list")
    requested = list(assets or [])
    if everything:
        requested = [name for name, spec in sorted(specs.items()) if spec.urls]
    for user in users:
        requested += assets_for(store.registry, user)
    missing: list[str] = []
    for name in dict.fromkeys(requested):
        if users and not store.registry.asset(name).urls:
            status = store.status_of(name)
            if status.state != "ok":
                print(f"{name}: cannot be downloaded; {specs[name].how_to}")
                missing.append(name)
                continue
            print(f"{name}: {status.path}")
            continue
        print(f"{name}: {store.fetch(name)}")
        if specs[name].restricted:
            print(f"{name}: {specs[name].restricted} ({specs[name].licence})")
    if users and not requested:
        print(f"{', '.join(users)}: no assets are needed")
    if missing:
        raise MissingAssetError(
            f"add these manually: {', '.join(missing)}", hint=f"bcd-bench assets add {missing[0]} PATH"
        )


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="Name of the asset.")],
    path: Annotated[Path, typer.Argument(help="Your file or folder.")],
) -> None:
    """Verify a local file or folder and copy it into the cache."""
    store = _store()
    print(f"{name}: {store.add(name, path.expanduser())}")
    restricted = store.registry.assets[name].restricted
    if restricted:
        print(f"{name}: {restricted}")


@app.command()
def verify(
    assets: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Names of assets (default: all).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Verify the hashes of assets. The exit code is 3 if one is altered, or a named one is missing."""
    store = _store()
    statuses = [store.status_of(name, fresh=True) for name in assets] if assets else store.verify()
    _print_statuses(statuses, as_json=as_json)
    bad = [s for s in statuses if s.state == "altered" or (assets and s.state != "ok")]
    if bad:
        problems = "; ".join(f"{s.spec.name} is {s.state} ({s.problem})" for s in bad)
        first = bad[0].spec
        verb = "fetch" if first.urls else "add"
        raise MissingAssetError(problems, hint=f"bcd-bench assets {verb} {first.name}{'' if first.urls else ' PATH'}")
