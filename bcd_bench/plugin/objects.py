"""Registers Python objects, such as those defined in a notebook, as methods and metrics.

They are identified by their source and state (`bcd_bench.plugin.fingerprint`). Runs of an object without a fingerprint
appear in tables but are never ranked. The objects exist only in this process, so executors that start other processes
cannot run them.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.plugin.fingerprint import fingerprint
from bcd_bench.plugin.manager import PluginInfo
from bcd_bench.plugin.specs import MethodSpec, MetricSpec
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.types.clip import Clip
    from bcd_bench.types.failed import Failed
    from bcd_bench.types.pair import Pair

__all__ = ["ObjectPlugin", "add_method", "add_metric", "is_object"]

_FACTORIES: dict[str, Callable[..., Any]] = {}
"""Name -> factory of an object of this process; specs name it as `bcd_bench.plugin.objects:NAME`."""


def __getattr__(name: str) -> Any:
    if name in _FACTORIES:
        return _FACTORIES[name]
    if name.startswith("object_"):
        raise UsageError("a method or metric that is a Python object cannot run in another process", hint="use jobs=1")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@dataclass(frozen=True)
class ObjectPlugin(PluginInfo):
    """The owner of a spec that was created from an object; `fingerprint` is None if the object cannot be hashed."""

    fingerprint: str | None = None

    @property
    def hashed(self) -> bool:
        return self.fingerprint is not None

    @cached_property
    def source_sha256(self) -> str:
        """The fingerprint, or a random unique value if there is none."""
        return self.fingerprint or f"unhashed-{uuid.uuid4().hex}"


def is_object(spec: MethodSpec | MetricSpec) -> bool:
    """Whether a spec was made from a Python object, which exists in this process only."""
    return spec.factory.startswith(f"{__name__}:")


def add_method(registry: Registry, method: Any) -> str:
    """Add a method to a registry and return its name.

    `method` is an object with `transfer(pairs, seed=…)` (see `bcd_bench.Method`), such a class, or a function
    `f(content, motion) -> Clip or uint8[T, H, W, 3]` of two clips. Its name is its attribute `name`, or else the name
    of its class or function. The attributes `config` (JSON values) and `extractors` are used like those of
    `MethodSpec`.

    Raises `UsageError` for any other object, and if an installed method has the same name.
    """
    built = method() if isinstance(method, type) else method
    if not hasattr(built, "transfer") and not callable(built):
        raise UsageError(f"{_name(method)} is not a method: it has no transfer(pairs, seed=…) and cannot be called")
    name = _free_name(registry, "methods", method)
    config = getattr(built, "config", None)
    spec = MethodSpec(
        name=name,
        version=str(getattr(built, "version", "0")),
        summary=_summary(built),
        factory=_register(lambda config: _ObjectMethod(built)),
        config=dict(config) if isinstance(config, Mapping) else {},
        extractors=tuple(getattr(built, "extractors", ())),
    )
    registry.add("methods", spec, _owner(name, built))
    return name


def add_metric(registry: Registry, metric: Any) -> str:
    """Add a metric to a registry and return its name.

    `metric` is a `PairMetric` or `SetMetric`, an object with the same methods, or such a class. Its name is its
    attribute `name`, or else the name of its class. The attributes `extractors` and `needs_target` are used like those
    of `MetricSpec`. Raises `UsageError` for any other object, and if an installed metric has the same name.
    """
    built = metric() if isinstance(metric, type) else metric
    is_set = hasattr(built, "update")
    if not hasattr(built, "columns") or not (is_set or hasattr(built, "score")):
        raise UsageError(f"{_name(metric)} is not a metric: it needs `columns`, and score(items) or update(…)")
    name = _free_name(registry, "metrics", metric)
    spec = MetricSpec(
        name=name,
        version=str(getattr(built, "version", "0")),
        summary=_summary(built),
        factory=_register(lambda: built),
        level="set" if is_set else "pair",
        extractors=tuple(getattr(built, "extractors", ())),
        needs_target=bool(getattr(built, "needs_target", False)),
    )
    registry.add("metrics", spec, _owner(name, built))
    return name


class _ObjectMethod:
    """Adapts an object to the method interface: `load` and `close` are optional, functions receive two clips."""

    def __init__(self, built: Any) -> None:
        self._built = built

    @property
    def frame_size(self) -> tuple[int, int] | None:
        size: tuple[int, int] | None = getattr(self._built, "frame_size", None)
        return size

    def load(self, weights: Path | None, device: str) -> None:
        if hasattr(self._built, "load"):
            self._built.load(weights, device)

    def transfer(self, pairs: Sequence[Pair], *, seed: int, **features: Any) -> Iterator[Clip | Failed]:
        if hasattr(self._built, "transfer"):
            yield from self._built.transfer(pairs, seed=seed, **features)
            return
        from bcd_bench.types.clip import Clip

        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            output = self._built(content, motion)
            yield Clip(output, motion.fps, pair.id) if hasattr(output, "dtype") else output

    def close(self) -> None:
        if hasattr(self._built, "close"):
            self._built.close()


def _register(factory: Callable[..., Any]) -> str:
    name = f"object_{uuid.uuid4().hex}"
    _FACTORIES[name] = factory
    return f"{__name__}:{name}"


def _name(obj: Any) -> str:
    name = getattr(obj, "name", None)
    return name if isinstance(name, str) and name else str(getattr(obj, "__name__", None) or type(obj).__name__)


def _free_name(registry: Registry, kind: str, obj: Any) -> str:
    name = re.sub(r"[^\w.+-]+", "-", _name(obj)).strip("-.") or "object"
    if name in getattr(registry, kind):
        raise UsageError(f"the name {name!r} of {obj!r} is already used by an installed plugin or an earlier object",
                         hint="set its attribute `name` to a different name")  # fmt: skip
    return name


def _summary(built: Any) -> str:
    text = str(getattr(built, "__doc__", "") or "").strip()
    return text.splitlines()[0] if text else "A Python object."


def _owner(name: str, built: Any) -> ObjectPlugin:
    module = getattr(built, "__module__", None) or type(built).__module__
    return ObjectPlugin(f"object {name}", dist="-", version="0", module=str(module), fingerprint=fingerprint(built))
