"""What raters see: the page, and the items without a word on methods."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bcd_bench.study.design import MEDIA, Item, Study
from bcd_bench.study.questions import QUESTIONS, SCALE
from bcd_bench.view.template import fill_page

__all__ = ["render_page", "shown_item"]


def shown_item(item: Item) -> dict[str, Any]:
    """An item as raters get it: random names only, and the scores that an attention check asks for."""
    return {
        "id": item.id,
        "practice": item.kind == "practice",
        "asked": item.expected or None,
        **{role: f"{MEDIA}/{getattr(item, role)}.mp4" for role in ("content", "motion", "video")},
    }


def render_page(study: Study, slot: int | None = None) -> str:
    """The page that asks a server for items, or with `slot` the page of this slot that works without a server."""
    data: dict[str, Any] = {
        "study": study.id,
        "title": study.title,
        "consent": study.consent,
        "questions": [asdict(question) for question in QUESTIONS],
        "scale": list(SCALE),
        "slot": slot,
        "items": None if slot is None else [shown_item(item) for item in study.order(slot)],
    }
    return fill_page("bcd_bench.study", data)
