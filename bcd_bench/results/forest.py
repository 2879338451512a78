"""A forest plot of the differences between runs: one panel for each column, one line for each pair of runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bcd_bench.io.atomic import atomic_path
from bcd_bench.statistics.pairwise import Difference, Tournament
from bcd_bench.types.errors import MissingDependencyError, UsageError

__all__ = ["draw_forest"]

ACROSS = 3
"""Panels beside each other."""
BETTER, WORSE, NEITHER = "#1b6ca8", "#b5482a", "0.45"


def draw_forest(tournament: Tournament, path: Path) -> None:
    """Write .png or .pdf, by the ending of `path`: differences with their 95 % intervals, in the unit of the column.

    Markers are filled where the difference is significant after Holm's adjustment, blue if the first run of the pair is
    better and red if the second one is. Equal input gives equal files. Raises `UsageError` for another ending, a file
    that cannot be written, or runs without any interval, and `MissingDependencyError` without matplotlib.
    """
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("png", "pdf"):
        raise UsageError(f"--plot {path}: must end in .png or .pdf")
    by_column: dict[str, list[Difference]] = {}
    for one in tournament.differences:
        if one.comparison.ci_low is not None:
            by_column.setdefault(one.comparison.column, []).append(one)
    if not by_column:
        raise UsageError("--plot: no difference of these runs has an interval")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        hint = "pip install 'bcd-bench[figures]'"
        raise MissingDependencyError("--plot needs the package 'matplotlib'", hint=hint) from None
    most = max(len(differences) for differences in by_column.values())
    down = -(-len(by_column) // ACROSS)
    across = min(ACROSS, len(by_column))
    figure = Figure(figsize=(1.5 + 2.6 * across, down * (0.8 + 0.22 * most)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    for index, (column, differences) in enumerate(by_column.items()):
        axes = figure.add_subplot(down, across, index + 1)
        _panel(axes, column, differences, named=index % across == 0)
    metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"CreationDate": None}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format=kind, metadata=metadata)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _panel(axes: Any, column: str, differences: list[Difference], *, named: bool) -> None:
    for row, one in enumerate(differences):
        compared = one.comparison
        if compared.difference is None or compared.ci_low is None or compared.ci_high is None:
            continue
        color = {"a": BETTER, "b": WORSE, None: NEITHER}[compared.better if one.significant else None]
        axes.plot([compared.ci_low, compared.ci_high], [row, row], color=color, linewidth=1.4)
        face = color if one.significant else "white"
        axes.plot([compared.difference], [row], "o", color=color, markerfacecolor=face, markersize=4.5)
    axes.axvline(0, color="0.3", linewidth=0.8, linestyle=":")
    axes.set_ylim(len(differences) - 0.4, -0.6)
    labels = [_literal(f"{one.a} − {one.b}") for one in differences]
    axes.set_yticks(range(len(differences)), labels if named else [""] * len(labels), fontsize=7)
    axes.tick_params(axis="x", labelsize=7)
    axes.locator_params(axis="x", nbins=5)
    unit = differences[0].comparison.unit
    axes.set_title(_literal(f"{column} ({unit})" if unit else column), fontsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _literal(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")
