"""What to run: methods on suites with their settings, from the command line or from a run file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from bcd_bench.plugin.settings import validate
from bcd_bench.run.pipeline import Prepared, prepare_all
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

__all__ = ["RunRequest", "prepare_requests", "read_run_file"]


@dataclass(frozen=True)
class RunRequest:
    """Every method on every suite, with the same settings. The fields are as in `pipeline.prepare_all`."""

    methods: Sequence[str]
    suites: Sequence[str]
    weights: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Path] = field(default_factory=dict)
    metrics: Sequence[str] | None = None
    limit: int | None = None
    pairs: Sequence[str] | None = None
    seed: int = 0


class _Entry(BaseModel):
    """One `[[run]]` of a run file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    methods: list[str] = Field(min_length=1)
    suites: list[str] = Field(min_length=1)
    weights: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    data: dict[str, str] = Field(default_factory=dict)
    metrics: list[str] | None = Field(default=None, min_length=1)
    limit: int | None = Field(default=None, ge=1)
    pairs: list[str] | None = Field(default=None, min_length=1)
    seed: int = Field(default=0, ge=0)


def read_run_file(path: Path) -> list[RunRequest]:
    """The runs of a TOML file: each `[[run]]`, with the values of `[defaults]` where it has none of its own.

    Tables (`set`, `data`) are merged key by key. Paths are relative to the file. Raises `UsageError` with the file and
    the number of the run for anything that is not as described in docs/command-line.md.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{path} is not a TOML file: {error}") from None
    unknown = sorted(set(content) - {"run", "defaults"})
    if unknown:
        raise UsageError(f"{path}: unknown table {unknown[0]!r}; a run file has [defaults] and [[run]]")
    defaults, entries = content.get("defaults", {}), content.get("run")
    if not isinstance(defaults, dict):
        raise UsageError(f"{path}: defaults must be a table, [defaults]")
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError(f"{path} has no runs; write each as [[run]] with methods and suites")
    return [
        _request(validate(_Entry, _merged(defaults, entry), f"run {number}:", owner=str(path)), path.parent)
        for number, entry in enumerate(entries, 1)
    ]


def _merged(defaults: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **entry}
    for key, value in entry.items():
        if isinstance(value, dict) and isinstance(defaults.get(key), dict):
            merged[key] = {**defaults[key], **value}
    return merged


def _request(entry: _Entry, folder: Path) -> RunRequest:
    settings: dict[str, Any] = {}
    for key, value in entry.set.items():
        if isinstance(value, dict) and key in entry.methods:  # [run.set.METHOD], or METHOD.K without quotes
            settings |= {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            settings[key] = value
    weights = entry.weights
    if weights is not None and (folder / weights).exists():
        weights = str(folder / weights)
    data = {name: folder / Path(text).expanduser() for name, text in entry.data.items()}
    for name, place in data.items():
        if not place.exists():
            raise UsageError(f"data {name!r}: {place} does not exist", hint="paths are relative to the run file")
    return RunRequest(
        entry.methods, entry.suites, weights, settings, data, entry.metrics, entry.limit, entry.pairs, entry.seed
    )


def prepare_requests(
    registry: Registry, requests: Sequence[RunRequest], *, device: str = "cpu", strict: bool = False
) -> list[tuple[RunRequest, str, dict[str, Prepared]]]:
    """Prepare all runs, so that what can be checked is checked before the first one starts.

    Returns (request, suite, method -> prepared run) for each suite of each request. Each suite gets the data that it
    uses. Raises as `pipeline.prepare_all` does, and `UsageError` for data that none of a request's suites uses.
    """
    prepared = []
    for request in requests:
        used = {name: set(registry.suite(name).data) for name in request.suites}
        for name in request.data:
            if len(used) > 1 and not any(name in names for names in used.values()):
                raise UsageError(f"no suite of {', '.join(request.suites)} uses data {name!r}")
        for suite in request.suites:
            data = {name: path for name, path in request.data.items() if len(used) == 1 or name in used[suite]}
            runs = prepare_all(
                registry,
                request.methods,
                suite,
                weights=request.weights,
                settings=request.settings,
                data=data,
                metrics=request.metrics,
                limit=request.limit,
                pairs=request.pairs,
                seed=request.seed,
                device=device,
                strict=strict,
            )
            prepared.append((request, suite, runs))
    return prepared
