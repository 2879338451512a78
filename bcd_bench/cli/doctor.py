"""`bcd-bench doctor`: what works, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bcd_bench import __version__
from bcd_bench.cli.common import print_json, print_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bcd_bench.plugin.registry import Registry

SCARCE_DISK = 1_000_000_000
"""Bytes; a full run over the larger suites writes a few hundred megabytes of lossless video."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `mend` is the command or action that would make it "ok"."""

    area: str
    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str = ""
    mend: str = ""


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements(distribution: str) -> Iterator[tuple[str, str]]:
    """(name, requirement) of what a distribution needs without extras."""
    for text in importlib.metadata.requires(distribution) or []:
        requirement, _, condition = text.partition(";")
        if "extra" not in condition:
            name = requirement.strip()
            for mark in "[<>=!~ (":
                name = name.partition(mark)[0]
            yield name, requirement.strip()


def check_packages(distributions: list[str]) -> Iterator[Finding]:
    """The dependencies of the harness and of the installed plugins, found without importing any."""
    yield Finding("python", platform.python_version(), "ok", sys.executable)
    seen: dict[str, str] = {}
    for distribution in distributions:
        if _installed(distribution) is None:
            continue
        for name, requirement in _requirements(distribution):
            seen.setdefault(name, requirement)
    for name, requirement in sorted(seen.items()):
        version = _installed(name)
        if version is None:
            yield Finding("package", name, "missing", f"{requirement} is needed", f"pip install '{requirement}'")
        else:
            yield Finding("package", name, "ok", version)


def check_plugins(registry: Registry) -> Iterator[Finding]:
    """Whether every plugin loads, and whether two of them claim one name."""
    for plugin in registry.plugins:
        if plugin.status == "ok":
            yield Finding("plugin", plugin.name, "ok", f"{plugin.dist} {plugin.version}")
        else:
            mend = f"pip install --force-reinstall {plugin.dist}, or pip uninstall {plugin.dist}"
            yield Finding("plugin", plugin.name, "broken", " ".join(str(plugin.error).split()), mend)
    for clash in registry.clashes:
        yield Finding("plugin", clash.name, "broken", str(clash), f"pip uninstall {clash.plugins[-1].dist}")


def check_assets(registry: Registry) -> Iterator[Finding]:
    """Whether every declared asset is here and what it should be."""
    from bcd_bench.assets.store import AssetStore, format_size

    for status in AssetStore(registry).status():
        spec = status.spec
        if status.state == "ok":
            yield Finding("asset", spec.name, "ok", str(status.path))
            continue
        verb = f"fetch {spec.name}" if spec.urls else f"add {spec.name} PATH"
        what = f"any such {'folder' if spec.directory else 'file'}" if spec.any_file else format_size(spec.size)
        detail = f"{status.problem}; {' or '.join([spec.filename, *spec.also])}, {what}, licence {spec.licence}"
        state: Literal["missing", "broken"] = "missing" if status.state == "missing" else "broken"
        yield Finding("asset", spec.name, state, detail, f"bcd-bench assets {verb}")


def check_weights(registry: Registry) -> Iterator[Finding]:
    """Whether the weights that methods ship are there and unaltered; those that are assets are looked at as such."""
    from bcd_bench.assets.weights import verify_weights
    from bcd_bench.types.errors import MissingAssetError

    for method in registry.methods.values():
        for weights in method.weights:
            if weights.asset is not None:
                continue
            name = f"{method.name}/{weights.name}"
            try:
                yield Finding("weights", name, "ok", str(verify_weights(weights, None).path))
            except (MissingAssetError, OSError) as error:
                yield Finding("weights", name, "broken", str(error), getattr(error, "hint", None) or "reinstall it")


def check_machine() -> Iterator[Finding]:
    """Processor, accelerator, disk, the cache folder and pdflatex. Does not import torch."""
    from bcd_bench.assets.store import cache_folder, format_size

    yield Finding("machine", "cpu", "ok", f"{platform.machine()}, {os.cpu_count()} logical cores")
    driver = shutil.which("nvidia-smi") is not None
    yield Finding("machine", "gpu", "ok", "NVIDIA driver found: --device cuda" if driver else "none: --device cpu")
    home = cache_folder()
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            yield Finding("machine", "cache", "ok", str(home))
    except OSError as error:
        yield Finding("machine", "cache", "broken", f"{home}: {error.strerror}", "export BCD_BENCH_HOME=FOLDER")
    free = shutil.disk_usage(Path.cwd()).free
    if free < SCARCE_DISK:
        yield Finding("machine", "disk", "missing", f"{format_size(free)} free here", "run with --out on a larger disk")
    else:
        yield Finding("machine", "disk", "ok", f"{format_size(free)} free here")
    latex = shutil.which("pdflatex")
    if latex is None:
        mend = "apt-get install texlive-latex-base texlive-latex-recommended"
        yield Finding("machine", "pdflatex", "missing", "only needed to compile LaTeX reports", mend)
    else:
        yield Finding("machine", "pdflatex", "ok", latex)


def examine() -> list[Finding]:
    """Everything the doctor looks at, in the order it is printed."""
    from bcd_bench.plugin.registry import load_registry

    registry = load_registry()
    distributions = list(dict.fromkeys(plugin.dist for plugin in registry.plugins))
    return [
        *check_packages(distributions),
        *check_plugins(registry),
        *check_assets(registry),
        *check_weights(registry),
        *check_machine(),
    ]


def command(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> int:
    """What works, what is missing, and the command that mends it. Exit code 3 where a needed package is missing."""
    findings = examine()
    if as_json:
        print_json({"version": __version__, "findings": [asdict(finding) for finding in findings]})
    else:
        print_table(
            f"bcd-bench {__version__}",
            ["status", "area", "name", "detail"],
            [[f.status, f.area, f.name, f.detail] for f in findings],
        )
        mends = [f for f in findings if f.mend]
        if mends:
            print("\nTo mend:")
        for finding in mends:
            print(f"  {finding.area} {finding.name}: {finding.mend}")
    return 3 if any(f.area == "package" and f.status == "missing" for f in findings) else 0
