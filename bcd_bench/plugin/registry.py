"""Finds plugins and stores their specs by kind and name. A broken plugin is listed as BROKEN; the others still work."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from bcd_bench.plugin.hookspecs import ENTRY_POINT_GROUP
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.plugin.manager import CORE_MODULE, KINDS, PluginInfo, PluginManager
from bcd_bench.plugin.specs import (
    AssetSpec,
    CommandSpec,
    ExecutorSpec,
    ExtractorSpec,
    MethodSpec,
    MetricSpec,
    PreprocessorSpec,
    ReportFormatSpec,
    SuiteSpec,
    TrainableSpec,
)
from bcd_bench.types.errors import UsageError, one_line

__all__ = ["CORE_PLUGIN", "KINDS", "Clash", "PluginInfo", "Registry", "load_registry", "nearest"]

CORE_PLUGIN = "core"
"""The entry point of the harness itself, which is always loaded, regardless of `BCD_BENCH_PLUGINS`."""


@dataclass(frozen=True)
class Clash:
    """A name that several plugins claim. It cannot be used until one of them is uninstalled; all other names work."""

    kind: str
    name: str
    plugins: tuple[PluginInfo, ...]

    def __str__(self) -> str:
        owners = " and ".join(f"{plugin.dist} (plugin {plugin.name})" for plugin in self.plugins)
        return f"the name {self.name!r} under {self.kind} is claimed by {owners}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A clause for error messages: the closest known names, or all known names if none is close."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"available: {', '.join(known)}" if known else "none are available"


@dataclass
class Registry:
    """The specs of all plugins, by kind and name. Built by `load_registry` or `Registry.from_modules`."""

    plugins: list[PluginInfo] = field(default_factory=list)
    methods: dict[str, MethodSpec] = field(default_factory=dict)
    metrics: dict[str, MetricSpec] = field(default_factory=dict)
    suites: dict[str, SuiteSpec] = field(default_factory=dict)
    extractors: dict[str, ExtractorSpec] = field(default_factory=dict)
    preprocessors: dict[str, PreprocessorSpec] = field(default_factory=dict)
    assets: dict[str, AssetSpec] = field(default_factory=dict)
    trainables: dict[str, TrainableSpec] = field(default_factory=dict)
    report_formats: dict[str, ReportFormatSpec] = field(default_factory=dict)
    executors: dict[str, ExecutorSpec] = field(default_factory=dict)
    commands: dict[str, CommandSpec] = field(default_factory=dict)
    clashes: list[Clash] = field(default_factory=list)
    _owners: dict[tuple[str, str], PluginInfo] = field(default_factory=dict, repr=False)
    _manager: PluginManager | None = field(default=None, repr=False)

    @classmethod
    def from_modules(cls, modules: Sequence[Any], *, core: bool = True) -> Registry:
        """Build a registry from modules (or objects with hook implementations), for tests and tools.

        Unlike installed plugins they are not guarded: their errors are raised. `core` adds the built-in specs.
        """
        registry = cls(_manager=PluginManager(guard=False))
        if core:
            modules = [importlib.import_module(CORE_MODULE), *modules]
        for module in modules:
            path = getattr(module, "__name__", None) or type(module).__module__
            name = CORE_PLUGIN if path == CORE_MODULE else path.rpartition(".")[2]
            info = PluginInfo(name, dist=path.partition(".")[0], version="0", module=path)
            registry._register(module, info)
        registry._collect()
        return registry

    def method(self, name: str) -> MethodSpec:
        """The method called `name`. Raises `UsageError` as `get` does."""
        spec: MethodSpec = self.get("methods", name)
        return spec

    def metric(self, name: str) -> MetricSpec:
        """The metric called `name`. Raises `UsageError` as `get` does."""
        spec: MetricSpec = self.get("metrics", name)
        return spec

    def suite(self, name: str) -> SuiteSpec:
        """The suite called `name`. Raises `UsageError` as `get` does."""
        spec: SuiteSpec = self.get("suites", name)
        return spec

    def extractor(self, name: str) -> ExtractorSpec:
        """The extractor called `name`. Raises `UsageError` as `get` does."""
        spec: ExtractorSpec = self.get("extractors", name)
        return spec

    def preprocessor(self, name: str) -> PreprocessorSpec:
        """The preprocessor called `name`. Raises `UsageError` as `get` does."""
        spec: PreprocessorSpec = self.get("preprocessors", name)
        return spec

    def asset(self, name: str) -> AssetSpec:
        """The asset called `name`. Raises `UsageError` as `get` does."""
        spec: AssetSpec = self.get("assets", name)
        return spec

    def trainable(self, name: str) -> TrainableSpec:
        """The trainable called `name`. Raises `UsageError` as `get` does."""
        spec: TrainableSpec = self.get("trainables", name)
        return spec

    def report_format(self, name: str) -> ReportFormatSpec:
        """The report format called `name`. Raises `UsageError` as `get` does."""
        spec: ReportFormatSpec = self.get("report_formats", name)
        return spec

    def executor(self, name: str) -> ExecutorSpec:
        """The executor called `name`. Raises `UsageError` as `get` does."""
        spec: ExecutorSpec = self.get("executors", name)
        return spec

    def get(self, kind: str, name: str) -> Any:
        """The spec of a kind (a key of `KINDS`) by name; each of the typed accessors above is for one kind.

        Raises `UsageError` for an unknown name (with the closest names) and for a clash (with its owners).
        """
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
        """The plugin that a spec comes from. Raises `UsageError` as `get` does."""
        self.get(kind, name)
        return self._owners[kind, name]

    def add(self, kind: str, spec: Any, owner: PluginInfo) -> None:
        """Add one spec. If another spec of the kind has the same name, the name becomes a clash."""
        table: dict[str, Any] = getattr(self, kind)
        if owner not in self.plugins:
            self.plugins.append(owner)
        for index, clash in enumerate(self.clashes):
            if (clash.kind, clash.name) == (kind, spec.name):
                self.clashes[index] = Clash(kind, spec.name, (*clash.plugins, owner))
                return
        if spec.name in table:
            del table[spec.name]
            self.clashes.append(Clash(kind, spec.name, (self._owners.pop((kind, spec.name)), owner)))
            return
        table[spec.name] = spec
        self._owners[kind, spec.name] = owner

    def run_finished(self, run_dir: Path) -> list[str]:
        """Call every `bcd_bench_run_finished` hook. Returns one line per plugin that failed; the run stays finished."""
        failures = [] if self._manager is None else self._manager.run_finished(run_dir)
        return [f"plugin {failure.plugin.name}: {one_line(failure.error)}" for failure in failures]

    def _register(self, plugin: Any, info: PluginInfo) -> None:
        assert self._manager is not None
        self._manager.register(plugin, info)
        self.plugins.append(info)

    def _collect(self) -> None:
        """Call the hooks of all kinds. If one hook of a plugin fails, none of the plugin's specs are added."""
        assert self._manager is not None
        collected = [(kind, info, spec) for kind in KINDS for info, spec in self._manager.specs(kind)]
        failed: dict[int, BaseException] = {}
        for failure in self._manager.failures:
            failed.setdefault(id(failure.plugin), failure.error)
        for kind, info, spec in collected:
            if id(info) not in failed:
                self.add(kind, spec, info)
        self.plugins = [
            replace(info, status="BROKEN", error=one_line(failed[id(info)])) if id(info) in failed else info
            for info in self.plugins
        ]


def _entry_points() -> list[EntryPoint]:
    """All entry points of the group without duplicates: the core first, then by name."""
    unique = {(e.name, e.value, e.dist.name if e.dist else ""): e for e in entry_points(group=ENTRY_POINT_GROUP)}
    return sorted(unique.values(), key=lambda e: (e.name != CORE_PLUGIN, e.name, e.value))


def _selected(only: Sequence[str] | None, known: Iterable[str]) -> set[str] | None:
    if only is None and os.environ.get("BCD_BENCH_PLUGINS"):
        only = [name.strip() for name in os.environ["BCD_BENCH_PLUGINS"].split(",") if name.strip()]
    if only is None:
        return None
    known = set(known)
    for name in only:
        if name not in known:
            raise UsageError(f"BCD_BENCH_PLUGINS: plugin {name!r} is not installed; {nearest(name, known)}")
    return {CORE_PLUGIN, *only}


def load_registry(*, only: Sequence[str] | None = None) -> Registry:
    """Load every installed plugin, each behind a guard.

    `only` (or the environment variable `BCD_BENCH_PLUGINS`, comma-separated) limits loading by entry-point name; the
    core always loads. A plugin that raises is listed in `plugins` with status "BROKEN" and adds no specs. If two
    distributions use the same plugin name, both are BROKEN (except the core). Raises `UsageError` if a name in `only`
    is not installed.
    """
    entries = _entry_points()
    selected = _selected(only, (entry.name for entry in entries))
    dists: dict[str, list[str]] = {}
    for entry in entries:
        dists.setdefault(entry.name, []).append(entry.dist.name if entry.dist else "?")
    registry = Registry(_manager=PluginManager(guard=True))
    for entry in entries:
        if selected is not None and entry.name not in selected:
            continue
        dist, version = (entry.dist.name, entry.dist.version) if entry.dist else ("?", "?")
        info = PluginInfo(entry.name, dist, version, entry.module)
        try:
            if len(dists[entry.name]) > 1 and entry.value != CORE_MODULE:  # the core is always loaded
                raise UsageError(f"the plugin name {entry.name!r} is claimed by {' and '.join(dists[entry.name])}")
            with PluginScope():
                plugin = entry.load()
            registry._register(plugin, info)
        except BaseException as error:  # a failing plugin must not affect the others
            if not raised_by_plugin(error):
                raise
            reason = str(error) if isinstance(error, UsageError) else one_line(error)
            registry.plugins.append(replace(info, status="BROKEN", error=reason))
    registry._collect()
    return registry
