"""All presets by name, and how `--set` changes them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.extensions.base import known_extensions
from bcd_bench_bcd.presets.base import Preset
from bcd_bench_bcd.presets.heads_small import HEADS_SMALL
from bcd_bench_bcd.presets.heads_tiny import HEADS_TINY
from bcd_bench_bcd.presets.lrs3_tiny import LRS3_TINY
from bcd_bench_bcd.presets.paper import (
    HEADS_PAPER_SMALL,
    LRS3,
    SPRITES,
    SPRITES_PAPER_SMALL,
    SPRITES_PROCEDURAL_PAPER_SMALL,
)
from bcd_bench_bcd.presets.sprites_small import SPRITES_PROCEDURAL_SMALL, SPRITES_SMALL
from bcd_bench_bcd.presets.sprites_tiny import SPRITES_PROCEDURAL_TINY, SPRITES_TINY

__all__ = ["PRESETS", "fields_of", "resolve_preset", "settings_of"]

PRESETS: dict[str, Preset] = {
    "sprites-procedural-small": SPRITES_PROCEDURAL_SMALL,
    "sprites-small": SPRITES_SMALL,
    "sprites-procedural-tiny": SPRITES_PROCEDURAL_TINY,
    "sprites-tiny": SPRITES_TINY,
    "sprites-procedural-paper-small": SPRITES_PROCEDURAL_PAPER_SMALL,
    "sprites-paper-small": SPRITES_PAPER_SMALL,
    "sprites": SPRITES,
    "heads-small": HEADS_SMALL,
    "heads-tiny": HEADS_TINY,
    "heads-paper-small": HEADS_PAPER_SMALL,
    "lrs3": LRS3,
    "lrs3-tiny": LRS3_TINY,
}


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield prefix + name
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _nearest_fields(key: str, tree: Mapping[str, Any]) -> str:
    """A hint naming the fields closest to `key`: by their last component, then by the full name."""
    fields = list(_leaves(tree))
    fields += [f"extensions.{name}.{field}" for name, kind in known_extensions().items() for field in kind.model_fields]
    last = {name.rpartition(".")[2] for name in fields}
    close = difflib.get_close_matches(key.rpartition(".")[2], last, n=2, cutoff=0.7)
    matches = [name for last_name in close for name in dict.fromkeys(fields) if name.rpartition(".")[2] == last_name]
    near = matches or difflib.get_close_matches(key, fields, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near[:3])}?" if near else "; fields look like train.lr or model.decoder.depth"


def resolve_preset(name: str, overrides: Mapping[str, Any] | None = None) -> Preset:
    """The preset `name` with dotted `overrides` ("train.lr": 1e-4) applied and validated.

    "extensions.NAME": null switches an extension off, {} switches it on with its defaults. Raises `UsageError` for
    unknown presets, fields and extensions, for values out of range, and for mutually exclusive settings.
    """
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=2)
        raise UsageError(
            f"unknown preset {name!r} of bcd; nearest: {', '.join(near) or 'none'}",
            hint=f"choose one of: {', '.join(PRESETS)}",
        )
    tree = PRESETS[name].model_dump(mode="json")
    for key, value in (overrides or {}).items():
        _set(tree, key, value, name)
    try:
        return Preset.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if where == "extensions" and message.partition(":")[0].partition(".")[0] in known_extensions():
            raise UsageError(f"--set extensions.{message}") from None
        raise UsageError(f"--set {where}: {message}" if where else f"--set: {message}") from None


def _set(tree: dict[str, Any], key: str, value: Any, preset: str) -> None:
    path = key.split(".")
    if path[0] == "extensions" and len(path) > 1:
        known = known_extensions()
        if path[1] not in known:
            near = difflib.get_close_matches(path[1], known, n=2)
            raise UsageError(
                f"--set {key}: unknown extension {path[1]!r}"
                + (f"; did you mean {' or '.join(near)}?" if near else f"; choose one of: {', '.join(known)}")
            )
        if len(path) > 2 and path[1] not in tree["extensions"]:
            raise UsageError(
                f"--set {key}: preset {preset!r} does not use extension {path[1]}",
                hint=f"switch it on with --set extensions.{path[1]}={{}}",
            )
        if len(path) > 2 and path[2] not in known[path[1]].model_fields:
            fields = known[path[1]].model_fields
            near = difflib.get_close_matches(path[2], fields, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else f"its fields: {', '.join(fields) or 'none'}"
            raise UsageError(f"--set {key}: extension {path[1]} has no such field; {hint}")
        if len(path) == 2:
            tree["extensions"][path[1]] = value
            return
    node: Any = tree
    for part in path[:-1]:
        node = node.get(part) if isinstance(node, dict) else None
    if not isinstance(node, dict) or (path[-1] not in node and path[0] != "extensions"):
        raise UsageError(f"--set {key}: preset {preset!r} has no such field{_nearest_fields(key, tree)}")
    node[path[-1]] = value


def fields_of(preset: BaseModel) -> list[tuple[str, Any, str]]:
    """Every field of a preset: its dotted name, its value as JSON, and its description."""
    return list(_fields_of(preset, preset.model_dump(mode="json"), ""))


def settings_of(name: str) -> list[tuple[str, Any, str]]:
    """`fields_of` the preset `name`, then the extensions that are off."""
    preset = resolve_preset(name)
    off = [kind for extension, kind in known_extensions().items() if extension not in preset.extensions.names]
    return [*fields_of(preset), *((f"extensions.{kind.name}", "off", kind.summary) for kind in off)]


def _fields_of(model: BaseModel, tree: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any, str]]:
    meanings = _docstrings(type(model))
    for name in type(model).model_fields:
        value = getattr(model, name)
        if name == "extensions":
            for extension in value:
                yield f"extensions.{extension.name}", "on", extension.summary
                yield from _fields_of(extension, tree[name][extension.name], f"extensions.{extension.name}.")
        elif isinstance(value, BaseModel) and isinstance(tree[name], Mapping) and not hasattr(value, "points"):
            yield from _fields_of(value, tree[name], f"{prefix}{name}.")
        else:
            yield prefix + name, tree[name], meanings.get(name, "")


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The first sentence of every field's docstring in the source of a model and its bases."""
    import ast
    import inspect
    import re
    import textwrap

    descriptions: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not (isinstance(base, type) and issubclass(base, BaseModel)) or base is BaseModel:
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, body.body[1:], strict=False):
            if not (isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)):
                continue
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                text = " ".join(str(after.value.value).split())
                descriptions[field.target.id] = re.split(r"(?<=\.) (?=[A-Z\"])", text, maxsplit=1)[0]
    return descriptions
