"""The picture of an ablation: one panel per measure, with intervals, and the single seeds as small marks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.io.atomic import atomic_path
from bcd_bench_bcd.ablations.base import CONTENT, IDENTITY, MOTION, OVERALL, Study, Variant
from bcd_bench_bcd.ablations.runner import Request
from bcd_bench_bcd.ablations.values import SECONDS, Column, VariantValues

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw", "panels"]

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The palette of Okabe and Ito, which people with colour blindness can tell apart; lines also differ in their marks."""
SHAPES = ("o", "s", "^", "D", "v", "P")


def panels(variants: Sequence[VariantValues]) -> list[str]:
    """The columns to draw: motion, content, identity, overall, measured rate, and time, as far as they exist."""
    scored = {name for values in variants for name, column in values.columns.items() if column.value is not None}
    wanted = [next((name for name in names if name in scored), None) for names in (MOTION, CONTENT, IDENTITY, OVERALL)]
    chosen = [*wanted, "motion-bits", SECONDS]
    return list(dict.fromkeys(name for name in chosen if name in scored and name is not None))


def draw(request: Request, study: Study, variants: Sequence[VariantValues], target: Path, caption: str) -> None:
    """Write `target`.png and `target`.pdf; nothing if no variant has results. `caption` says what produced them."""
    names = panels(variants)
    if not names:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    numeric = [variant.x is not None for variant in study.variants]
    curve = sum(numeric) > 1
    height = 3.2 if curve else 1.2 + 0.28 * len(variants)
    figure, axes = plt.subplots(
        1, len(names), figsize=(max(6.4, 2.7 * len(names)), height), layout="constrained", squeeze=False
    )
    try:
        for index, (axis, name) in enumerate(zip(axes[0], names, strict=True)):
            if curve:
                _curve(axis, request, study, variants, name)
            else:
                _bars(axis, study, variants, name, labels=index == 0)
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=8)
        handles, labels = axes[0][0].get_legend_handles_labels()
        if handles:  # outside the panels, where it hides no value
            figure.legend(handles, labels, loc="outside upper right", ncols=len(labels), fontsize=8)
        figure.suptitle(f"{request.ablation.name}: {request.preset} on {request.suite}", fontsize=10, x=0.01, ha="left")
        several = any(len(column.by_seed) > 1 for values in variants for column in values.columns.values())
        explained = "Bars: 95 % intervals over pairs, clustered by subject." + several * " Crosses: single seeds."
        figure.supxlabel(_wrapped(f"{caption}. {explained}"), fontsize=6)
        for kind in ("png", "pdf"):
            # without dates and versions, so that equal results give equal files
            metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"CreationDate": None}
            with atomic_path(target.with_suffix(f".{kind}")) as temporary:
                figure.savefig(temporary, dpi=110, format=kind, metadata=metadata)
    finally:
        plt.close(figure)


def _curve(axis: Axes, request: Request, study: Study, variants: Sequence[VariantValues], name: str) -> None:
    """Values over `x`: one line, or for a timed ablation one line per solver."""
    lines: dict[str, list[tuple[float, Column]]] = {}
    for variant, values in zip(study.variants, variants, strict=True):
        if not _has(values, name):
            continue
        if variant.x is None:  # such as all content frames
            column = values.columns[name]
            axis.axhline(column.value or 0.0, color=COLORS[1], ls="--", lw=1, label=variant.name)
            if column.low is not None and column.high is not None:
                axis.axhspan(column.low, column.high, color=COLORS[1], alpha=0.15, lw=0)
            continue
        group = _group(variant) if request.ablation.timed else ""
        lines.setdefault(group, []).append((variant.x, values.columns[name]))
    if request.ablation.timed:
        axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:g}")
    for index, (group, points) in enumerate(lines.items()):
        points.sort(key=lambda point: point[0])
        color, shape = COLORS[index % len(COLORS)], SHAPES[index % len(SHAPES)]
        for x, column in points:
            _mark(axis, x, column, vertical=True, color=color, shape=shape)
        ys = [column.value or 0.0 for _, column in points]
        axis.plot(
            [x for x, _ in points], ys, "-", marker=shape, ms=4, color=color, lw=1, label=group or "_"
        )  # "_": not in the legend
    axis.set_title(_title(name, next((column for points in lines.values() for _, column in points), None)), fontsize=9)
    axis.set_xlabel(request.ablation.axis or "content frames", fontsize=8)


def _group(variant: Variant) -> str:
    """The solver and, if it is used, the guidance of a variant of the sampler."""
    guidance = variant.settings.get("guidance", 1.0)
    solver = str(variant.settings.get("solver", variant.name))
    return solver if guidance == 1.0 else f"{solver}, guidance {guidance:g}"


def _bars(axis: Axes, study: Study, variants: Sequence[VariantValues], name: str, *, labels: bool) -> None:
    shown: Column | None = None
    for row, values in enumerate(variants):
        if _has(values, name):
            shown = values.columns[name]
            _mark(axis, row, shown, vertical=False)
    axis.set_yticks(range(len(variants)), [variant.name for variant in study.variants] if labels else [])
    axis.set_ylim(len(variants) - 0.5, -0.5)
    axis.set_title(_title(name, shown), fontsize=9)


def _mark(
    axis: Axes, position: float, column: Column, *, vertical: bool, color: str = COLORS[0], shape: str = "o"
) -> None:
    """The value with its interval, and the seeds beside it."""
    value = column.value or 0.0
    low = value if column.low is None else column.low
    high = value if column.high is None else column.high
    errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
    style: dict[str, Any] = {"fmt": shape, "ms": 4, "capsize": 3, "color": color, "lw": 1}
    if vertical:
        axis.errorbar([position], [value], yerr=errors, **style)
    else:
        axis.errorbar([value], [position], xerr=errors, **style)
    if len(column.by_seed) > 1:
        others = [position] * len(column.by_seed)
        xs, ys = (others, column.by_seed) if vertical else (column.by_seed, others)
        axis.plot(xs, ys, "x", color="0.3", ms=4)


def _has(values: VariantValues, name: str) -> bool:
    return name in values.columns and values.columns[name].value is not None


def _title(name: str, column: Column | None) -> str:
    if column is None:
        return name
    arrow = {True: " ↑", False: " ↓", None: ""}[column.higher_is_better]
    return f"{name}{f' ({column.unit})' if column.unit else ''}{arrow}"


def _wrapped(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 180))
