"""Records the environment of a run: versions, git state, device and CPU. No host names, user names or paths."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = [
    "cpu_name",
    "distributions_of",
    "environment",
    "git_state",
    "package_versions",
    "requirements_of",
    "worker_environment",
]

MODULES = {"opencv-python": "cv2", "opencv-contrib-python": "cv2", "pillow": "PIL", "scikit-image": "skimage"}
"""Distributions whose module has a different name."""


def requirements_of(distribution: str) -> list[Requirement]:
    """The requirements of a distribution that apply to this machine, without its extras.

    Raises `importlib.metadata.PackageNotFoundError` if it is not installed.
    """
    requirements = map(Requirement, importlib.metadata.requires(distribution) or [])
    return [item for item in requirements if item.marker is None or item.marker.evaluate({"extra": ""})]


def package_versions(distributions: Iterable[str] = ("bcd-bench",)) -> dict[str, str]:
    """Versions of the packages that these distributions require, directly or through other bcd-bench packages.

    Versions come from the packages' metadata. If a module is already imported and reports a different version, as
    happens with several distributions of OpenCV in one folder, the version of the module is used.
    """
    versions: dict[str, str] = {}
    pending = list(distributions)
    visited: set[str] = set()
    while pending:
        name = pending.pop()
        if name in visited:
            continue
        visited.add(name)
        try:
            requirements = requirements_of(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        for requirement in requirements:
            package = canonicalize_name(requirement.name)
            if package.startswith("bcd-bench"):
                pending.append(package)
                continue
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                versions[package] = _running_version(package, importlib.metadata.version(package))
    return dict(sorted(versions.items()))


def _running_version(package: str, stated: str) -> str:
    module = sys.modules.get(MODULES.get(package, package.replace("-", "_")))
    running = str(getattr(module, "__version__", "") or stated)
    return stated if _same_version(running, stated) else f"{running} (metadata: {stated})"


def _same_version(running: str, stated: str) -> bool:
    """If two spellings name one version: `v1.9.0` and `1.9.0`, `2.9.1` and `2.9.1+cpu`.

    A record must not depend on which packages a worker happens to have imported, so only a real difference counts.
    """
    with contextlib.suppress(InvalidVersion):
        running, stated = str(Version(running)), str(Version(stated))
    return stated.startswith(running) or running.startswith(stated)


def git_state(folder: Path | None = None) -> dict[str, Any] | None:
    """`{"commit", "dirty"}` of the checkout that holds bcd-bench, or None for an installed copy."""
    folder = Path(__file__).parent if folder is None else folder

    def git(*arguments: str) -> str | None:
        try:
            process = subprocess.run(
                ["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return process.stdout.strip()

    top = git("rev-parse", "--show-toplevel")
    if top is None or not (Path(top) / "bcd_bench" / "__init__.py").is_file():
        return None
    commit, changes = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return None if commit is None else {"commit": commit, "dirty": bool(changes)}


def cpu_name() -> str:
    """The model name of the processor, as the system reports it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _device(device: str) -> dict[str, Any]:
    """The device's name, and the model of a GPU if the method has already imported torch."""
    info: dict[str, Any] = {"name": device}
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        info |= {"model": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return info


def worker_environment(device: str, distributions: Iterable[str]) -> dict[str, Any]:
    """The parts of `environment` that depend on what a worker has imported: `threads`, `device` and `packages`."""
    return {
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "device": _device(device),
        "packages": package_versions(distributions),
    }


def distributions_of(registry: Registry) -> tuple[str, ...]:
    """The distributions whose requirements an environment lists: ours, and those of all plugins."""
    return tuple(dict.fromkeys(["bcd-bench", *(plugin.dist for plugin in registry.plugins)]))


def environment(registry: Registry, device: str) -> dict[str, Any]:
    """The environment of a run, as plain JSON.

    Keys: `bcd_bench`, `python`, `system`, `machine`, `cpu`, `cpu_count`, `threads`, `device`, `packages`, `git`,
    `plugins` (distribution -> version and source hash of every plugin that loaded).
    """
    from bcd_bench import __version__

    return {
        "bcd_bench": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpu": cpu_name(),
        "cpu_count": os.cpu_count(),
        **worker_environment(device, distributions_of(registry)),
        "git": git_state(),
        "plugins": {
            plugin.dist: {"version": plugin.version, "source_sha256": plugin.source_sha256}
            for plugin in registry.plugins
            if plugin.status == "ok"
        },
    }
