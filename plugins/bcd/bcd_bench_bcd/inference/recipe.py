"""The recipe of a weight file, read from its header without importing torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bcd_bench import WeightsRecipe
from bcd_bench.io.safetensors import read_weight_header
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.paper import PAPER

__all__ = ["FORMAT", "MAKER", "describe_weights", "read_card"]

FORMAT = "bcd-2"
MAKER = "bcd-bench train bcd"


def describe_weights(path: Path) -> WeightsRecipe:
    """ "paper" for a recipe without extensions, else the number of extensions and their names.

    Raises `UsageError` for a file that does not hold BCD weights.
    """
    header = read_weight_header(path, form=FORMAT, what="BCD", maker=MAKER)
    try:
        recipe, labels = (tuple(str(name) for name in json.loads(header[key])) for key in ("recipe", "labels"))
    except (KeyError, ValueError, TypeError):
        raise UsageError(
            f"{path.name}: the header does not contain a recipe", hint=f"use weights written by {MAKER}"
        ) from None
    suite = str(_card(header).get("suite", ""))
    if recipe == (PAPER,):
        return WeightsRecipe(PAPER, suite=suite)
    return WeightsRecipe(f"+ {len(recipe)} extension{'s' if len(recipe) > 1 else ''}", recipe, labels, suite)


def read_card(path: Path) -> dict[str, Any]:
    """The card of a weight file: training data, settings and duration; empty if it has none.

    Raises `UsageError` for a file that does not hold BCD weights.
    """
    return _card(read_weight_header(path, form=FORMAT, what="BCD", maker=MAKER))


def _card(header: Mapping[str, str]) -> dict[str, Any]:
    try:
        card = json.loads(header.get("card", "{}"))
    except ValueError:
        return {}
    return dict(card) if isinstance(card, dict) else {}
