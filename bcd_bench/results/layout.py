"""How a table looks: intervals, orientation, names, caption and notes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from bcd_bench.types.errors import UsageError

__all__ = ["INTERVALS", "NOTES", "Layout"]

INTERVALS = ("bracket", "pm", "none")
NOTES = ("footnote", "none")
_LABEL = re.compile(r"[A-Za-z0-9:._+/-]+")


@dataclass(frozen=True)
class Layout:
    """The form of a table; the default is that of `bcd-bench report`.

    `interval` shows 95 % intervals as [low, high], as ± half their width, or not at all. `transpose` makes columns of
    the methods. `short_names` omits the recipes of weights. `notes` is "footnote" or "none". `caption` replaces the
    title; as text, never as markup. `columns` are those that somebody chose, in order: they are shown even if nobody
    scored them. With `keep_unscored`, so is every other column. With `keep_order`, the rows stay in the given order.
    `label` and `table_star` are for LaTeX: the name for `\\ref`, and a table over both columns of a page.

    Raises `UsageError` for other values of `interval` and `notes`, and for a label that LaTeX could not read.
    """

    interval: Literal["bracket", "pm", "none"] = "bracket"
    transpose: bool = False
    short_names: bool = False
    notes: Literal["footnote", "none"] = "footnote"
    caption: str = ""
    columns: tuple[str, ...] = ()
    keep_unscored: bool = False
    keep_order: bool = False
    label: str = ""
    table_star: bool = False

    def __post_init__(self) -> None:
        for option, value, allowed in (("interval", self.interval, INTERVALS), ("notes", self.notes, NOTES)):
            if value not in allowed:
                raise UsageError(f"--{option} {value}: must be {', '.join(allowed[:-1])} or {allowed[-1]}")
        if self.label and not _LABEL.fullmatch(self.label):
            raise UsageError(f"--label {self.label!r}: only letters, digits and : . _ + / - are allowed")
