"""Messages about metrics that were not scored because an asset or a package is missing, grouped by reason."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar

__all__ = ["by_reason", "not_scored", "these_metrics"]

Reason = TypeVar("Reason", bound=Hashable)


def by_reason(lacking: Iterable[tuple[str, Reason]]) -> dict[Reason, list[str]]:
    """Group (metric, reason) by reason: reason -> its metrics without duplicates; both in input order."""
    groups: dict[Reason, dict[str, None]] = {}
    for metric, reason in lacking:
        groups.setdefault(reason, {})[metric] = None
    return {reason: list(metrics) for reason, metrics in groups.items()}


def these_metrics(names: Sequence[str]) -> str:
    """Names of metrics as the start of a sentence: "metric fid", "metrics fid, kid"."""
    return f"metric{'s' if len(names) > 1 else ''} {', '.join(names)}"


def not_scored(lacking: Iterable[tuple[str, str]]) -> list[str]:
    """One line for each reason, from (metric, reason)."""
    return [
        f"{these_metrics(names)} {'were' if len(names) > 1 else 'was'} not scored: {reason}"
        for reason, names in by_reason(lacking).items()
    ]
