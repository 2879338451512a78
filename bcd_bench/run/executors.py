"""Chooses an executor: its settings, its pool of workers, and the default number of workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from bcd_bench.plugin.loading import load_code
from bcd_bench.plugin.settings import unknown_setting
from bcd_bench.types.errors import UsageError
from bcd_bench.util.pool import PoolOptions

if TYPE_CHECKING:
    from bcd_bench.plugin.specs import ExecutorSpec

__all__ = [
    "check_executor",
    "default_workers",
    "executor_settings",
    "optional_pool",
    "split_settings",
    "with_executor",
]

PREFIX = "executor."
"""Start of the names of an executor's settings among those of `--set`."""


def split_settings(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of `--set` that are for the method, and those for the executor (without `executor.`)."""
    others = {key: value for key, value in settings.items() if not key.startswith(PREFIX)}
    return others, {key.removeprefix(PREFIX): value for key, value in settings.items() if key not in others}


def executor_settings(spec: ExecutorSpec, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of an executor with `changes`; "K.X" changes one entry of a setting that is a mapping.

    Raises `UsageError` for a name that the executor does not have, and for a value of another type than the default's
    (a number may be given for text).
    """
    settings = {key: dict(value) if isinstance(value, Mapping) else value for key, value in spec.config.items()}
    for name, value in changes.items():
        start, _, rest = name.partition(".")
        if rest and isinstance(settings.get(start), dict):
            settings[start][rest] = value
            continue
        if name not in settings:
            raise unknown_setting(name, settings, f"executor {spec.name!r}:")
        settings[name] = _typed(spec, name, settings[name], value)
    return settings


def _typed(spec: ExecutorSpec, name: str, default: Any, value: Any) -> Any:
    if isinstance(default, str) and isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, float) and number:
        return float(value)
    if type(value) is type(default):
        return value
    kind = {bool: "true or false", int: "a whole number", float: "a number", dict: "a mapping"}
    wanted = kind.get(type(default), "text")
    raise UsageError(f"executor {spec.name!r}: --set {PREFIX}{name}={value}: must be {wanted}")


def check_executor(spec: ExecutorSpec, *, timeout: float | None, devices: str | None = None) -> None:
    """Raise `UsageError` for options that the executor does not obey."""
    if timeout is not None and spec.factory and "timeout" not in spec.options:
        raise UsageError(f"--timeout: executor {spec.name!r} has no time limit", hint="--executor local")
    if devices is not None and spec.name != "local":
        raise UsageError(f"--devices: only for the GPUs of this machine, not for executor {spec.name!r}")


def with_executor(spec: ExecutorSpec, pool: PoolOptions, settings: Mapping[str, Any] | None = None) -> PoolOptions:
    """The options of the pool for an executor: `pool` with its factory and settings.

    `settings` replace those of `pool`. Raises `UsageError` as `executor_settings` does.
    """
    complete = executor_settings(spec, pool.settings if settings is None else settings)
    return replace(pool, factory=spec.pool, settings=complete)


def optional_pool(
    spec: ExecutorSpec, pool: PoolOptions | None, settings: Mapping[str, Any] | None = None
) -> PoolOptions | None:
    """As `with_executor`, but None stays None for executors without a pool, shards or settings, such as `local`, which
    then works in this process."""
    if pool is None and not (spec.pool or spec.shards or spec.config or settings):
        return None
    return with_executor(spec, pool or PoolOptions(), settings)


def default_workers(spec: ExecutorSpec, settings: Mapping[str, Any], device: str) -> int | None:
    """The default of `--jobs` for an executor on other machines; None if it is that of this machine."""
    if not spec.jobs:
        return None
    return max(1, int(load_code(spec.jobs, f"executor {spec.name!r}")(settings, device)))
