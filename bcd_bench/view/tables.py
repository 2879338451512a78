"""Tables of a report as JSON for a page: cells with their numbers, so that the page can sort and draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bcd_bench.results.table import REPORTED, Cell, Table

__all__ = ["tables_json"]


def tables_json(tables: Sequence[Table], notes: Sequence[str] = (), *, heading: str = "") -> list[dict[str, Any]]:
    """The tables for `leaderboard.js`, with further `notes` below each; `heading` replaces their titles."""
    return [
        {
            "title": table.title,
            "heading": heading or table.title,
            "corner": table.corner,
            "headers": table.headers,
            "definitions": table.definitions or ("",) * len(table.headers),
            "notes": [*table.notes, *notes],
            "transposed": table.is_transposed,
            "lines": [
                {
                    "label": line.label,
                    "status": line.status,
                    "definition": line.definition,
                    "reported": line.status == REPORTED,
                    "ranked": not line.status,
                    "cells": [_cell(cell) for cell in line.cells],
                }
                for line in table.lines
            ],
        }
        for table in tables
    ]


def _cell(cell: Cell) -> dict[str, Any]:
    value = cell.value
    numbers = (None, None, None) if value is None else (value.value, value.ci_low, value.ci_high)
    if not cell.interval:  # an interval that the table leaves out is not drawn either
        numbers = (numbers[0], None, None)
    return {"text": cell.text, "interval": cell.interval, "mark": cell.mark, "dagger": cell.dagger, "numbers": numbers}
