"""Checks settings that users pass as K=V against their types, and reports errors in one line."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields, replace
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, TypeVar

from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from pydantic import BaseModel, ValidationError

    M = TypeVar("M", bound=BaseModel)
    D = TypeVar("D", bound=DataclassInstance)

__all__ = ["change_settings", "change_tree", "field_names", "first_error", "unknown_setting", "validate"]


def first_error(error: ValidationError) -> str:
    """The first error that pydantic reports, such as `train.lr: Input should be greater than 0`."""
    detail = error.errors()[0]
    path = ".".join(str(part) for part in detail["loc"])
    message = detail["msg"].removeprefix("Value error, ")
    return f"{path}: {message}" if path else message


def validate(model: type[M], values: Mapping[str, Any], option: str = "--set", *, owner: str = "") -> M:
    """Validate `values` and return them as a `model`.

    `option` is the option that the user passed the values with, `owner` ("cdsvae") the owner of the settings; both
    appear in messages. Raises `UsageError` for the first invalid value or unknown name, with the closest names.
    """
    from pydantic import ValidationError

    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        start = f"{owner}: {option}" if owner else option
        detail = error.errors()[0]
        if detail["type"] == "extra_forbidden":
            name = ".".join(str(part) for part in detail["loc"])
            raise unknown_setting(name, field_names(model), start) from None
        raise UsageError(f"{start} {first_error(error)}") from None


def change_tree(
    settings: M, changes: Mapping[str, Any], option: str = "--set", *, owner: str = "", fixed: tuple[str, ...] = ()
) -> M:
    """A copy of `settings` with `changes` by dotted name ("train.lr": 1e-4).

    Names in `fixed` may not be changed. Raises `UsageError` as `validate` does.
    """
    tree = settings.model_dump(mode="json")
    for name, value in changes.items():
        *path, last = name.split(".")
        node: Any = tree
        for part in path:
            node = node.get(part) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last not in node or name in fixed:
            raise unknown_setting(name, _leaves(tree), f"{owner}: {option}" if owner else option, fixed)
        node[last] = value
    return validate(type(settings), tree, option, owner=owner)


def change_settings(
    settings: D, changes: Mapping[str, Any], option: str = "--set", *, owner: str = "", fixed: tuple[str, ...] = ()
) -> D:
    """A copy of a flat dataclass of integers, floats and strings with `changes` by name.

    Names in `fixed` may not be changed. A list becomes a comma-separated string. Raises `UsageError` for an unknown
    name, and for a value of the wrong type.
    """
    kinds = {field.name: type(getattr(settings, field.name)) for field in fields(settings) if field.name not in fixed}
    start = f"{owner}: {option}" if owner else option
    changed: dict[str, Any] = {}
    for name, value in changes.items():
        if name not in kinds:
            raise unknown_setting(name, kinds, start, fixed)
        kind = kinds[name]
        if kind is str:
            changed[name] = ",".join(str(part) for part in value) if isinstance(value, list) else str(value)
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or (kind is int and value != int(value)):
            raise UsageError(f"{start} {name}={value}: must be a {'whole number' if kind is int else 'number'}")
        changed[name] = kind(value)
    return replace(settings, **changed)


def field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted names of the settings of `model`, including those of nested models."""
    from pydantic import BaseModel

    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from field_names(inner, f"{prefix}{name}.")
        else:
            yield prefix + name


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def unknown_setting(name: str, known: Iterable[str], start: str, fixed: tuple[str, ...] = ()) -> UsageError:
    """The error for an unknown setting. It suggests settings with a similar last part, or else with a similar name."""
    from bcd_bench.plugin.registry import nearest

    if name in fixed:
        return UsageError(f"{start} {name}: fixed by the preset", hint="choose another --preset")
    names = [known_name for known_name in known if known_name not in fixed]
    last = {known_name.rpartition(".")[2] for known_name in names}
    close = get_close_matches(name.rpartition(".")[2], sorted(last), n=2, cutoff=0.7)
    suggestions = [known_name for part in close for known_name in names if known_name.rpartition(".")[2] == part][:3]
    clause = f"did you mean {' or '.join(suggestions)}?" if suggestions else nearest(name, names)
    return UsageError(f"{start} {name}: no such setting; {clause}")
