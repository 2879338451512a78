"""pluggy's plugin manager with a guard around every hook implementation, so that a failing plugin affects no other.

Hooks follow pluggy's rules: implementations may accept a subset of the arguments, wrap each other (`wrapper=True`,
`hookwrapper=True`) and request an order (`tryfirst`, `trylast`).
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pluggy

from bcd_bench.plugin import hookspecs
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
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

__all__ = ["CORE_MODULE", "KINDS", "Failure", "PluginInfo", "PluginManager"]

PROJECT = "bcd_bench"
CORE_MODULE = "bcd_bench.plugin.builtin"
CORE_SOURCES = ("builtin.py", "reference_methods.py")
"""Source files that the run ids of the built-in methods depend on; other modules can change freely."""

KINDS: Mapping[str, type[Any]] = {
    "methods": MethodSpec,
    "metrics": MetricSpec,
    "suites": SuiteSpec,
    "extractors": ExtractorSpec,
    "preprocessors": PreprocessorSpec,
    "assets": AssetSpec,
    "trainables": TrainableSpec,
    "report_formats": ReportFormatSpec,
    "executors": ExecutorSpec,
    "commands": CommandSpec,
}
"""Kind -> type of its specs; the hook of a kind is `bcd_bench_<kind>`."""

NAME = re.compile(r"(?![.\s])[^,/\\\x00-\x1f\x7f]+(?<!\s)")
"""Valid names of specs: names appear in comma-separated lists and as folder names."""


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

    @property
    def hashed(self) -> bool:
        """True if the source can be hashed. Always true for plugins, but not for every object defined in a notebook."""
        return True

    @cached_property
    def source_sha256(self) -> str:
        """Hash of the plugin's `.py` files (which are not imported). Part of the fingerprint of its methods' runs."""
        from bcd_bench.assets.hashing import sha256_sources, source_sha256

        if self.module == CORE_MODULE:
            root = Path(__file__).parent
            return sha256_sources(root, [root / name for name in CORE_SOURCES])
        return source_sha256(self.module.partition(".")[0])


@dataclass(frozen=True)
class Failure:
    """An exception that a hook of a plugin raised."""

    plugin: PluginInfo
    error: BaseException


class PluginManager:
    """Registers plugins and calls their hooks.

    With `guard=True` an exception of a plugin is added to `failures` and its implementation contributes nothing;
    otherwise it is raised.
    """

    def __init__(self, *, guard: bool) -> None:
        self.failures: list[Failure] = []
        self._guard = guard
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(hookspecs)
        self._plugins: list[PluginInfo] = []
        self._owners: dict[int, tuple[Any, PluginInfo]] = {}
        """id of a spec -> the spec (kept alive, so that its id is not reused) and the plugin that returned it first."""

    def register(self, plugin: Any, info: PluginInfo) -> None:
        """Register a module or object with hook implementations.

        Raises `pluggy.PluginValidationError` for an implementation of a hook that does not exist, or with arguments
        that the hook does not have.
        """
        guarded = SimpleNamespace()
        for name in dir(plugin):
            options = self._pluggy.parse_hookimpl_opts(plugin, name)
            if options is not None:
                hook = options["specname"] or name
                wraps = bool(options["wrapper"] or options["hookwrapper"])
                make = self._guarded_wrapper if wraps else self._guarded
                setattr(guarded, name, make(info, hook, getattr(plugin, name), old_style=options["hookwrapper"]))
        name = f"{len(self._plugins)} {info.name}"
        try:
            self._pluggy.register(guarded, name=name)
            self._pluggy.check_pending()
        except pluggy.PluginValidationError:
            if self._pluggy.has_plugin(name):
                self._pluggy.unregister(name=name)
            raise
        self._plugins.append(info)

    def specs(self, kind: str) -> list[tuple[PluginInfo, Any]]:
        """Every spec of a kind with the plugin that returned it, in the order in which plugins were registered."""
        results = getattr(self._pluggy.hook, f"{PROJECT}_{kind}")()
        owned_specs = [(self._owners[id(spec)][1], spec) for specs in results for spec in specs]
        order = {id(info): number for number, info in enumerate(self._plugins)}
        return sorted(owned_specs, key=lambda item: order[id(item[0])])

    def run_finished(self, run_dir: Path) -> list[Failure]:
        """Call `bcd_bench_run_finished`. Returns the failures of this call."""
        before, guard = len(self.failures), self._guard
        self._guard = True  # an error of a plugin must not invalidate a finished run
        try:
            self._pluggy.hook.bcd_bench_run_finished(run_dir=run_dir)
        finally:
            self._guard = guard
        return self.failures[before:]

    def _guarded(self, info: PluginInfo, hook: str, function: Callable[..., Any], *, old_style: bool) -> Any:
        del old_style

        @functools.wraps(function)  # pluggy reads the options and the names of the arguments from the original
        def implementation(*arguments: Any) -> Any:
            return self._attempt(info, lambda: self._claim(info, hook, function(*arguments)))

        return implementation

    def _guarded_wrapper(self, info: PluginInfo, hook: str, function: Callable[..., Any], *, old_style: bool) -> Any:
        """Guard a hook wrapper; if it fails, the result stays unchanged."""

        def start(arguments: tuple[Any, ...]) -> Generator[Any, Any, Any]:
            generator: Generator[Any, Any, Any] = function(*arguments)
            next(generator)
            return generator

        def finish(generator: Generator[Any, Any, Any], outcome: Any) -> Any:
            try:
                generator.send(outcome)
            except StopIteration as stop:
                result = outcome.get_result() if old_style else stop.value
                for specs in result or []:
                    self._claim(info, hook, specs)
                return (result,)
            raise RuntimeError(f"the wrapper of {hook} yielded twice")

        @functools.wraps(function)
        def wrapper(*arguments: Any) -> Generator[Any, Any, Any]:
            generator = self._attempt(info, lambda: start(arguments))
            outcome = yield
            finished = None if generator is None else self._attempt(info, lambda: finish(generator, outcome))
            return outcome if finished is None else finished[0]

        return wrapper

    def _attempt(self, info: PluginInfo, work: Callable[[], Any]) -> Any:
        """The result of `work`, or None if it raises."""
        try:
            with PluginScope():
                return work()
        except BaseException as error:  # a failing plugin must not affect the others
            if not self._guard or not raised_by_plugin(error):
                raise
            self.failures.append(Failure(info, error))
            return None

    def _claim(self, info: PluginInfo, hook: str, returned: Any) -> Any:
        """Check the specs that a hook returned, and record their owner. Raises `TypeError` or `ValueError`."""
        type_ = KINDS.get(hook.removeprefix(f"{PROJECT}_"))
        if type_ is None or returned is None:
            return returned
        specs = list(returned)
        for spec in specs:
            if not isinstance(spec, type_):
                raise TypeError(f"{hook} returned {type(spec).__name__}, not {type_.__name__}")
            if not NAME.fullmatch(spec.name):
                raise ValueError(
                    f"{hook}: {spec.name!r} is not a valid name (no commas, slashes, outer spaces or leading dots)"
                )
            self._owners.setdefault(id(spec), (spec, info))
        return specs
