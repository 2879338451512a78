"""Finds plugins and keeps what they hand in. A broken plugin is listed as BROKEN and takes nothing down."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import pluggy

from bcd_bench.plugin import hookspecs
from bcd_bench.plugin.hookspecs import ENTRY_POINT_GROUP
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.plugin.specs import (
    AssetSpec,
    CommandSpec,
    ExecutorSpec,
    ExtractorSpec,
    MethodSpec,
    MetricSpec,
    ReportFormatSpec,
    SuiteSpec,
    TrainableSpec,
)
from bcd_bench.types.errors import UsageError, one_line

__all__ = ["CORE_PLUGIN", "KINDS", "Clash", "PluginInfo", "Registry", "load_registry", "nearest"]

CORE_PLUGIN = "core"
"""The entry point of the harness itself; it loads whatever `BCD_BENCH_PLUGINS` says."""
CORE_MODULE = "bcd_bench.plugin.builtin"
CORE_SOURCES = ("builtin.py", "reference_methods.py")
"""What decides the outputs of the core's own methods; the rest of the harness may change without new run ids."""

KINDS: Mapping[str, type[Any]] = {
    "methods": MethodSpec,
    "metrics": MetricSpec,
    "suites": SuiteSpec,
    "extractors": ExtractorSpec,
    "assets": AssetSpec,
    "trainables": TrainableSpec,
    "report_formats": ReportFormatSpec,
    "executors": ExecutorSpec,
    "commands": CommandSpec,
}
"""Kind -> type of its specs; the hook of a kind is `bcd_bench_<kind>`."""


NAME = re.compile(r"(?![.\s])[^,/\\\x00-\x1f\x7f]+(?<!\s)")
"""What a spec may be called: names are listed with commas between them, and become names of folders."""


@dataclass(frozen=True)
class PluginInfo:
    """One entry point: its name, distribution and version, and whether it loaded."""

    name: str
    dist: str
    version: str
    module: str
    status: str = "ok"
    """"ok" or "BROKEN"."""
    error: str | None = None

    @cached_property
    def source_sha256(self) -> str:
        """Hash over the plugin's `.py` files, without importing them. Enters the identity of its methods' runs."""
        from bcd_bench.assets.hashing import sha256_sources, source_sha256

        if self.module == CORE_MODULE:
            root = Path(__file__).parent
            return sha256_sources(root, [root / name for name in CORE_SOURCES])
        return source_sha256(self.module.partition(".")[0])


@dataclass(frozen=True)
class Clash:
    """One name handed in twice: unusable until one of the two is gone, while everything else works."""

    kind: str
    name: str
    plugins: tuple[PluginInfo, ...]

    def __str__(self) -> str:
        owners = " and ".join(f"{plugin.dist} (plugin {plugin.name})" for plugin in self.plugins)
        return f"the name {self.name!r} under {self.kind} is claimed by {owners}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause for error messages: the nearest known names, or all of them where none is near."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"there are: {', '.join(known)}" if known else "there are none"


@dataclass
class Registry:
    """Everything that plugins handed in, by kind and name. Made by `load_registry` or `Registry.from_modules`."""

    plugins: list[PluginInfo] = field(default_factory=list)
    methods: dict[str, MethodSpec] = field(default_factory=dict)
    metrics: dict[str, MetricSpec] = field(default_factory=dict)
    suites: dict[str, SuiteSpec] = field(default_factory=dict)
    extractors: dict[str, ExtractorSpec] = field(default_factory=dict)
    assets: dict[str, AssetSpec] = field(default_factory=dict)
    trainables: dict[str, TrainableSpec] = field(default_factory=dict)
    report_formats: dict[str, ReportFormatSpec] = field(default_factory=dict)
    executors: dict[str, ExecutorSpec] = field(default_factory=dict)
    commands: dict[str, CommandSpec] = field(default_factory=dict)
    clashes: list[Clash] = field(default_factory=list)
    _owners: dict[tuple[str, str], PluginInfo] = field(default_factory=dict, repr=False)
    _finished_hooks: list[tuple[PluginInfo, Callable[..., Any]]] = field(default_factory=list, repr=False)

    @classmethod
    def from_modules(cls, modules: Sequence[Any], *, core: bool = True) -> Registry:
        """A registry of these modules (or objects with hook implementations), for tests and tools.

        Unlike installed plugins they are not guarded: their errors are raised. `core` adds the built-in specs.
        """
        registry = cls()
        if core:
            modules = [importlib.import_module(CORE_MODULE), *modules]
        for module in modules:
            path = getattr(module, "__name__", None) or type(module).__module__
            name = CORE_PLUGIN if path == CORE_MODULE else path.rpartition(".")[2]
            info = PluginInfo(name, dist=path.partition(".")[0], version="0", module=path)
            registry._accept(info, *_specs_of(module))
        return registry

    def get(self, kind: str, name: str) -> Any:
        """The spec called `name`. Raises `UsageError` with the nearest names, or naming both owners of a clash."""
        specs: dict[str, Any] = getattr(self, kind)
        if name in specs:
            return specs[name]
        for clash in self.clashes:
            if (clash.kind, clash.name) == (kind, name):
                raise UsageError(str(clash), hint="uninstall one of them, or limit loading with BCD_BENCH_PLUGINS")
        singular = kind.removesuffix("s").replace("_", " ")
        broken = [plugin.name for plugin in self.plugins if plugin.status != "ok"]
        hint = f"plugin {', '.join(broken)} is BROKEN; see: bcd-bench doctor" if broken else None
        if hint is None and kind in ("methods", "metrics", "suites"):
            hint = f"bcd-bench list {kind}"
        raise UsageError(f"unknown {singular} {name!r}; {nearest(name, specs)}", hint=hint)

    def owner(self, kind: str, name: str) -> PluginInfo:
        """The plugin that handed in this spec. Raises `UsageError` as `get` does."""
        self.get(kind, name)
        return self._owners[kind, name]

    def run_finished(self, run_dir: Path) -> list[str]:
        """Call every `bcd_bench_run_finished` hook; errors come back as lines and never spoil a finished run."""
        errors = []
        for plugin, function in self._finished_hooks:
            try:
                with PluginScope():
                    function(run_dir=run_dir)
            except BaseException as error:
                if not raised_by_plugin(error):
                    raise
                errors.append(f"plugin {plugin.name}: {one_line(error)}")
        return errors

    def _accept(self, info: PluginInfo, specs: Mapping[str, list[Any]], finished: Sequence[Callable[..., Any]]) -> None:
        self.plugins.append(info)
        self._finished_hooks += [(info, function) for function in finished]
        for kind, items in specs.items():
            for spec in items:
                self._add(kind, spec, info)

    def _add(self, kind: str, spec: Any, info: PluginInfo) -> None:
        table: dict[str, Any] = getattr(self, kind)
        for index, clash in enumerate(self.clashes):
            if (clash.kind, clash.name) == (kind, spec.name):
                self.clashes[index] = Clash(kind, spec.name, (*clash.plugins, info))
                return
        if spec.name in table:
            del table[spec.name]
            self.clashes.append(Clash(kind, spec.name, (self._owners.pop((kind, spec.name)), info)))
            return
        table[spec.name] = spec
        self._owners[kind, spec.name] = info


def _specs_of(plugin: Any) -> tuple[dict[str, list[Any]], list[Callable[..., Any]]]:
    """Call a plugin's hooks and check what they hand in. Raises whatever the plugin raises, or TypeError."""
    manager = pluggy.PluginManager("bcd_bench")
    manager.add_hookspecs(hookspecs)
    manager.register(plugin)
    manager.check_pending()
    found: dict[str, list[Any]] = {}
    for kind, type_ in KINDS.items():
        caller: pluggy.HookCaller = getattr(manager.hook, f"bcd_bench_{kind}")
        if not caller.get_hookimpls():
            continue
        specs: list[Any] = [spec for handed_in in caller() for spec in handed_in]
        for spec in specs:
            if not isinstance(spec, type_):
                raise TypeError(f"bcd_bench_{kind} handed in {type(spec).__name__}, not {type_.__name__}")
            if not NAME.fullmatch(spec.name):
                raise ValueError(
                    f"bcd_bench_{kind}: {spec.name!r} is no name (no commas, slashes, outer spaces or leading dots)"
                )
        found[kind] = specs
    return found, [impl.function for impl in manager.hook.bcd_bench_run_finished.get_hookimpls()]


def _entry_points() -> list[EntryPoint]:
    """All entry points of the group, the core first, then by name; one found twice on the path counts once."""
    unique = {(e.name, e.value, e.dist.name if e.dist else ""): e for e in entry_points(group=ENTRY_POINT_GROUP)}
    return sorted(unique.values(), key=lambda e: (e.name != CORE_PLUGIN, e.name, e.value))


def _wanted(only: Sequence[str] | None, known: Iterable[str]) -> set[str] | None:
    if only is None and os.environ.get("BCD_BENCH_PLUGINS"):
        only = [name.strip() for name in os.environ["BCD_BENCH_PLUGINS"].split(",") if name.strip()]
    if only is None:
        return None
    known = set(known)
    for name in only:
        if name not in known:
            raise UsageError(f"BCD_BENCH_PLUGINS: no plugin {name!r} is installed; {nearest(name, known)}")
    return {CORE_PLUGIN, *only}


def load_registry(*, only: Sequence[str] | None = None) -> Registry:
    """Load every installed plugin, each behind a guard.

    `only` (or the environment variable `BCD_BENCH_PLUGINS`, comma-separated) limits loading by entry-point name; the
    core always loads. A plugin that raises is kept in `plugins` with status "BROKEN" and hands in nothing. Two
    distributions with one plugin name are both BROKEN, but for the core, which nobody can take down. Raises
    `UsageError` where a name in `only` is not installed.
    """
    found = _entry_points()
    wanted = _wanted(only, (entry.name for entry in found))
    dists: dict[str, list[str]] = {}
    for entry in found:
        dists.setdefault(entry.name, []).append(entry.dist.name if entry.dist else "?")
    registry = Registry()
    for entry in found:
        if wanted is not None and entry.name not in wanted:
            continue
        dist, version = (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")
        info = PluginInfo(entry.name, dist, version, entry.module)
        try:
            if len(dists[entry.name]) > 1 and entry.value != CORE_MODULE:  # nobody takes the core down
                raise UsageError(f"the plugin name {entry.name!r} is claimed by {' and '.join(dists[entry.name])}")
            with PluginScope():
                handed_in = _specs_of(entry.load())
            registry._accept(info, *handed_in)
        except BaseException as error:  # one that fails takes nothing down
            if not raised_by_plugin(error):
                raise
            why = str(error) if isinstance(error, UsageError) else one_line(error)
            registry.plugins.append(PluginInfo(entry.name, dist, version, entry.module, "BROKEN", why))
    return registry
