"""`bcd-bench show`: one suite, method or metric in full, with its requirements and origin."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.cli.common import load, parse_data, print_json, to_jsonable
from bcd_bench.plugin.loading import load_factory
from bcd_bench.types.errors import BcdBenchError, UsageError, printable

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry

KINDS = {
    "suite": "suites",
    "method": "methods",
    "metric": "metrics",
    "trainable": "trainables",
    "asset": "assets",
    "extractor": "extractors",
    "preprocessor": "preprocessors",
}

EXAMPLES = (
    "bcd-bench show suite heads-cross-128",
    "bcd-bench show metric csim",
    "bcd-bench show trainable bcd --preset sprites-small    # settings of a preset",
)


def _suite_facts(registry: Registry, name: str, data: dict[str, Path]) -> dict[str, Any]:
    """The facts that require building the suite, such as its pairs and hash, or the error if that fails."""
    from bcd_bench.plugin.suites import load_suite

    try:
        suite = load_suite(registry, name, data)
    except BcdBenchError as error:
        return {"available": False, "missing": str(error), "fix": error.hint}
    return {
        "available": True,
        "pairs": len(suite.pairs),
        "height": suite.size[0],
        "width": suite.size[1],
        "fps": suite.fps,
        "seed": suite.seed,
        "default_metrics": list(suite.default_metrics),
        "notes": list(suite.notes),
        "manifest_sha256": suite.manifest_sha256,
    }


def _metric_facts(spec: Any) -> dict[str, Any]:
    """The columns with unit, direction and definition."""
    from bcd_bench.plugin.loading import plugin_code

    try:
        with plugin_code(f"metric {spec.name!r}", "cannot be loaded"):
            return {"columns": to_jsonable(list(load_factory(spec.factory)().columns))}
    except BcdBenchError as error:
        return {"columns": [], "missing": str(error)}


def facts(registry: Registry, kind: str, name: str, data: dict[str, Path]) -> dict[str, Any]:
    """All facts about one spec, JSON-safe. Raises `UsageError` for an unknown name."""
    spec = registry.get(KINDS[kind], name)
    owner = registry.owner(KINDS[kind], name)
    result: dict[str, Any] = {"kind": kind, **to_jsonable(spec)}
    result["plugin"] = {"name": owner.name, "distribution": owner.dist, "version": owner.version}
    if kind == "suite":
        result |= _suite_facts(registry, name, data)
    elif kind == "metric":
        result |= _metric_facts(spec)
    return result


def _print_facts(found: dict[str, Any], indent: str = "") -> None:
    """Name and value per line; nested records indented under their name."""
    width = max((len(key) for key in found), default=0)
    for key, value in found.items():
        if key == "config" and value:  # all settings, also those without a default value
            print(f"{indent}{key}:")
            _print_facts(
                {name: "none" if default is None else default for name, default in value.items()}, indent + "  "
            )
        elif isinstance(value, dict) and value:
            print(f"{indent}{key}:")
            _print_facts(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            print(f"{indent}{key}:")
            for item in value:
                print(f"{indent}  - {item.get('name') or item.get('method')}")
                _print_facts({k: v for k, v in item.items() if k not in {"name", "method"}}, indent + "      ")
        elif isinstance(value, list) and any(" " in str(item) for item in value):  # sentences
            print(f"{indent}{key}:")
            for item in value:
                print(f"{indent}  - {printable(str(item))}")
        elif value not in (None, "", [], {}):
            text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
            print(f"{indent}{key:<{width}}  {text}")


def command(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=f"One of {', '.join(KINDS)}.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, see `bcd-bench list`.")],
    data: Annotated[
        list[str] | None, typer.Option("--data", metavar="NAME=PATH", help="Your own data for a suite.")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="List the settings of a trainable's preset, for `train --set`.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one suite, method, metric or trainable in full."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        raise UsageError(f"cannot show a {kind!r}; choose one of {', '.join(KINDS)}", hint=_near_hint(near, name))
    if data and kind != "suite":
        raise UsageError(f"--data is only for suites, not for a {kind}")
    if preset is not None and kind != "trainable":
        raise UsageError(f"--preset is only for trainables, not for a {kind}")
    registry = load()
    if preset is not None:
        settings = preset_settings(registry, name, preset)
        if as_json:
            print_json([{"name": key, "value": value, "meaning": meaning} for key, value, meaning in settings])
        else:
            _print_settings(settings)
        return
    result = facts(registry, kind, name, parse_data(data or []))
    if as_json:
        print_json(result)
    else:
        _print_facts(result)


def preset_settings(registry: Registry, name: str, preset: str) -> list[tuple[str, Any, str]]:
    """(name, value, meaning) of every setting of a trainable's preset. Raises `UsageError` for unknown names."""
    from bcd_bench.plugin.loading import plugin_code
    from bcd_bench.plugin.registry import nearest

    spec = registry.trainable(name)
    if preset not in spec.presets:
        raise UsageError(f"unknown preset {preset!r} of {name}; {nearest(preset, spec.presets)}")
    if not spec.settings:
        raise UsageError(f"{name} does not list its settings", hint=f"bcd-bench show trainable {name}")
    with plugin_code(f"trainable {name!r}", "cannot list its settings"):
        return [(str(key), value, str(meaning)) for key, value, meaning in load_factory(spec.settings)(preset)]


def _print_settings(settings: list[tuple[str, Any, str]]) -> None:
    import json

    rows = [(key, value if isinstance(value, str) else json.dumps(value), text) for key, value, text in settings]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for key, value, text in rows:
        print(f"{key:<{widths[0]}}  {value:<{min(widths[1], 40)}}  {text}".rstrip())


def _near_hint(near: list[str], name: str) -> str | None:
    return f"bcd-bench show {near[0]} {name}" if near else None
