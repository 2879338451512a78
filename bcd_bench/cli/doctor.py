"""`bcd-bench doctor`: check the installation and show how to fix problems."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from packaging.utils import canonicalize_name
from packaging.version import Version

from bcd_bench import __version__
from bcd_bench.cli.common import print_json, print_table
from bcd_bench.run.environment import requirements_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from packaging.requirements import Requirement

    from bcd_bench.plugin.registry import Registry

SCARCE_DISK = 1_000_000_000
"""Bytes; a full run over the larger suites writes a few hundred megabytes of lossless video."""

EXAMPLES = (
    "bcd-bench doctor",
    "bcd-bench doctor --fast    # do not import the packages",
)


@dataclass(frozen=True)
class Finding:
    """The result of one check. `fix` is the command or action that would make it "ok"."""

    area: str
    name: str
    status: Literal["ok", "missing", "broken"]
    detail: str = ""
    fix: str = ""


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _modules_of(distributions: Collection[str]) -> dict[str, str]:
    """Distribution -> one module to import from it, for those that have any."""
    names = {canonicalize_name(name): name for name in distributions}
    modules: dict[str, str] = {}
    for module, owners in sorted(importlib.metadata.packages_distributions().items()):
        for owner in owners:
            name = names.get(canonicalize_name(owner))
            if name is not None and not module.startswith("_") and module.isidentifier():
                modules.setdefault(name, module)
    return modules


def import_errors(modules: Iterable[str]) -> dict[str, str]:
    """Module -> its import error. Modules are imported in another process, since an import can crash."""
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    print('>', name, flush=True)\n"
        "    try: importlib.import_module(name)\n"
        "    except BaseException as error:\n"
        "        print('!', type(error).__name__ + ': ' + ' '.join(str(error).split()), flush=True)\n"
    )
    errors: dict[str, str] = {}
    remaining = list(modules)
    while remaining:
        process = subprocess.run([sys.executable, "-c", code, *remaining], capture_output=True, text=True, check=False)
        name = ""
        for line in process.stdout.splitlines():
            if line.startswith("> "):
                name = line[2:]
            elif line.startswith("! ") and name:
                errors[name] = line[2:]
        if process.returncode == 0 or name not in remaining:
            break
        errors[name] = f"the interpreter ended with code {process.returncode}"
        remaining = remaining[remaining.index(name) + 1 :]
    return errors


def check_packages(distributions: list[str], *, fast: bool = False) -> Iterator[Finding]:
    """The dependencies of the harness and of the installed plugins: present, of a required version, and
    importable (unless `fast`)."""
    yield Finding("python", platform.python_version(), "ok", sys.executable)
    required: dict[str, list[Requirement]] = {}
    for distribution in distributions:
        if _installed(distribution) is not None:
            for requirement in requirements_of(distribution):
                required.setdefault(canonicalize_name(requirement.name), []).append(requirement)
    modules = {} if fast else _modules_of(required.keys())
    errors = import_errors(modules.values())
    for name, requirements in sorted(required.items()):
        version = _installed(name)
        unmet = [str(req) for req in requirements if version and not req.specifier.contains(version, prereleases=True)]
        error = errors.get(modules.get(name, ""))
        if version is None:
            yield Finding(
                "package", name, "missing", f"{requirements[0]} is needed", f"pip install '{requirements[0]}'"
            )
        elif unmet:
            yield Finding("package", name, "missing", f"{version}, {unmet[0]} is needed", f"pip install '{unmet[0]}'")
        elif error is not None:
            yield Finding("package", name, "broken", f"{version} cannot be imported: {error}", _import_fix(name, error))
        else:
            yield Finding("package", name, "ok", version)
    yield from _check_opencv()


def _import_fix(name: str, error: str) -> str:
    if "libGL" in error or "libxcb" in error or "libglib" in error:
        return "apt-get install libgl1 libglib2.0-0, or pip install opencv-contrib-python-headless in place of OpenCV"
    return f"pip install --force-reinstall {name}"


def _check_opencv() -> Iterator[Finding]:
    """Several distributions of OpenCV overwrite each other's files; the last one installed is used."""
    names = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")
    versions = {name: version for name in names if (version := _installed(name)) is not None}
    if len(set(versions.values())) > 1:
        detail = f"{', '.join(f'{name} {version}' for name, version in versions.items())} share one folder"
        common = min(versions.values(), key=Version)  # the distributions are not released at the same time
        fix = " ".join(f"'{name}=={common}'" for name in versions)
        yield Finding("package", "cv2", "broken", detail, f"pip install --force-reinstall --no-deps {fix}")


def check_plugins(registry: Registry) -> Iterator[Finding]:
    """Check that every plugin loads and that no two plugins claim the same name."""
    for plugin in registry.plugins:
        if plugin.status == "ok":
            yield Finding("plugin", plugin.name, "ok", f"{plugin.dist} {plugin.version}")
        else:
            fix = f"pip install --force-reinstall {plugin.dist}, or pip uninstall {plugin.dist}"
            yield Finding("plugin", plugin.name, "broken", " ".join(str(plugin.error).split()), fix)
    for clash in registry.clashes:
        yield Finding("plugin", clash.name, "broken", str(clash), f"pip uninstall {clash.plugins[-1].dist}")


def check_assets(registry: Registry) -> Iterator[Finding]:
    """Check that every declared asset is present and has the right hash."""
    from bcd_bench.assets.store import AssetStore, format_size

    for status in AssetStore(registry).status():
        spec = status.spec
        if status.state == "ok":
            yield Finding("asset", spec.name, "ok", str(status.path))
            continue
        verb = f"fetch {spec.name}" if spec.urls else f"add {spec.name} PATH"
        size = f"any such {'folder' if spec.directory else 'file'}" if spec.any_file else format_size(spec.size)
        detail = f"{status.problem}; {' or '.join([spec.filename, *spec.also])}, {size}, licence {spec.licence}"
        state: Literal["missing", "broken"] = "missing" if status.state == "missing" else "broken"
        yield Finding("asset", spec.name, state, detail, f"bcd-bench assets {verb}")


def check_weights(registry: Registry) -> Iterator[Finding]:
    """Check that bundled weights are present and unaltered; weights that are assets are checked as assets."""
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
        fix = "apt-get install texlive-latex-base texlive-latex-recommended"
        yield Finding("machine", "pdflatex", "missing", "only needed to compile LaTeX reports", fix)
    else:
        yield Finding("machine", "pdflatex", "ok", latex)


def examine(*, fast: bool = False) -> list[Finding]:
    """All checks, in the order in which they are printed."""
    from bcd_bench.plugin.registry import load_registry

    registry = load_registry()
    distributions = list(dict.fromkeys(plugin.dist for plugin in registry.plugins))
    return [
        *check_packages(distributions, fast=fast),
        *check_plugins(registry),
        *check_assets(registry),
        *check_weights(registry),
        *check_machine(),
    ]


def command(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    fast: Annotated[bool, typer.Option("--fast", help="Do not try to import the packages.")] = False,
) -> int:
    """Check the installation and show how to fix problems.

    The exit code is 3 if a required package is missing or cannot be imported.
    """
    findings = examine(fast=fast)
    if as_json:
        print_json({"version": __version__, "findings": [asdict(finding) for finding in findings]})
    else:
        print_table(
            f"bcd-bench {__version__}",
            ["status", "area", "name", "detail"],
            [[f.status, f.area, f.name, f.detail] for f in findings],
        )
        fixes = [f for f in findings if f.fix]
        if fixes:
            print("\nTo fix:")
        for finding in fixes:
            print(f"  {finding.area} {finding.name}: {finding.fix}")
    return 3 if any(f.area == "package" and f.status != "ok" for f in findings) else 0
