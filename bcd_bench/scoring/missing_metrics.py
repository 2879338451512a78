"""Metrics that are not scored for want of an asset or a package, told together where they lack the same."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["by_reason", "not_scored", "these_metrics"]

Reason = TypeVar("Reason", bound=Hashable)


def by_reason(lacking: Iterable[tuple[str, Reason]]) -> dict[Reason, list[str]]:
    """(metric, reason) in any number -> reason -> its metrics, each once; both in the order they came in."""
    found: dict[Reason, dict[str, None]] = {}
    for metric, reason in lacking:
        found.setdefault(reason, {})[metric] = None
    return {reason: list(metrics) for reason, metrics in found.items()}


def these_metrics(names: Sequence[str]) -> str:
    """Their names as the beginning of a sentence: "metric fid", "metrics fid, kid"."""
    return f"metric{'s' if len(names) > 1 else ''} {', '.join(names)}"


def not_scored(lacking: Iterable[tuple[str, str]]) -> list[str]:
    """(metric, reason) -> one line for each reason."""
    return [
        f"{these_metrics(names)} {'were' if len(names) > 1 else 'was'} not scored: {reason}"
        for reason, names in by_reason(lacking).items()
    ]
