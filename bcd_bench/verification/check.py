"""One check of a record and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Check", "failed", "passed", "skipped"]


@dataclass(frozen=True)
class Check:
    """`detail` says what was found: one clause. A check is "skipped" if it lacks something that it needs."""

    name: str
    status: Literal["ok", "failed", "skipped"]
    detail: str


def failed(name: str, detail: str) -> Check:
    return Check(name, "failed", detail)


def passed(name: str, detail: str) -> Check:
    return Check(name, "ok", detail)


def skipped(name: str, detail: str) -> Check:
    return Check(name, "skipped", detail)
