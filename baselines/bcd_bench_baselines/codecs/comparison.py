"""`bcd-bench compare-codecs`: BCD's bitstream against video codecs, rate against distortion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.results.schema import RunRecord

__all__ = ["command", "draw", "markdown"]

RATE = "coded-kbps"
POINTS: Mapping[str, tuple[int, ...]] = {
    "x264": (51, 45, 39, 33),
    "x265": (51, 45, 39, 33),
    "svt-av1": (63, 57, 51, 45),
}
"""CRF of the points of every codec; the first one is the encoder's lowest rate."""
CONTENT_BITS = (3, 4, 6, 8)
"""Points of BCD, besides the exact content, for weights whose bitstreams have tokens."""
CONTENT_CRF = (55, 45, 35, 25)
"""Points of BCD with the first content frame as a picture."""
STYLE: Mapping[str, tuple[str, str]] = {
    "bcd-bitstream": ("#0072B2", "o"),
    "x264": ("#D55E00", "s"),
    "x265": ("#009E73", "^"),
    "svt-av1": ("#CC79A7", "D"),
}
"""Colour (Okabe and Ito's palette) and marker of a method."""

MOST_ACROSS = 4
"""Panels of the picture side by side."""
FAR = 5
"""Rates beyond this multiple of the codecs' largest are not drawn."""

Row = dict[str, Any]


def command(
    suite: Annotated[str, typer.Option(metavar="NAME", help="A suite of self-reenactment, such as heads-self-128.")],
    data: Annotated[list[str] | None, typer.Option(metavar="NAME=PATH", help="Your own data.")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="BCD weights (default: the suite's).")
    ] = None,
    metric: Annotated[
        list[str] | None, typer.Option(metavar="NAME[,NAME…]", help="Metrics (default: those of the suite).")
    ] = None,
    model: Annotated[str, typer.Option(help="Probability model of the motion codes of BCD.")] = "context",
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pairs.")] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the runs.")] = Path("runs"),
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="Table and picture: FILE.md, FILE.json and FILE.png.")
    ] = Path("codecs"),
) -> None:
    """Compare BCD's bitstream with x264, x265 and SVT-AV1 on a suite: rate, distortion and BD-rates."""
    from bcd_bench import api
    from bcd_bench.cli.common import parse_data, split_names
    from bcd_bench.io.atomic import write_json_atomic, write_text_atomic

    if not output.parent.is_dir():
        raise UsageError(f"--output {output}: the folder {output.parent} does not exist")
    metrics = [*split_names(metric, "--metric"), "coded-size"] if metric else None
    rows: list[Row] = []

    def add(method: str, point: str, settings: Mapping[str, Any], chosen: str | None = None) -> RunRecord:
        results = api.evaluate(
            method, suite, metrics=metrics, settings=settings, weights=chosen, data=parse_data(data or []), limit=limit,
            out=out,
        )  # fmt: skip
        [record] = results.records
        rows.append(row_of(record, method, point))
        return record

    exact = add("bcd-bitstream", "exact content", {"model": model}, weights)
    series = [[(f"first frame, crf {crf}", {"content_frames": 1, "content_crf": crf}) for crf in CONTENT_CRF]]
    if exact.method.recipe is None or "pixel_path" not in exact.method.recipe.parts:  # else there are no tokens
        series.insert(0, [(f"{bits}-bit content", {"content_bits": bits}) for bits in CONTENT_BITS])
    for points in series:
        for name, settings in points:
            add("bcd-bitstream", name, {"model": model, **settings}, weights)
            # exact content is smaller, also than the rest of the series
            if rows[-1]["values"][RATE][0] >= rows[0]["values"][RATE][0]:
                rows.pop()
                break
    for codec, crfs in POINTS.items():
        for crf in crfs:
            add(codec, f"crf {crf}", {"crf": crf})
    write_json_atomic(output.with_suffix(".json"), {"suite": suite, "rows": rows})
    write_text_atomic(output.with_suffix(".md"), markdown(suite, rows))
    draw(suite, rows, output.with_suffix(".png"))
    print(markdown(suite, rows))


def row_of(record: RunRecord, method: str, point: str) -> Row:
    """One point of a curve: [value, ends of the interval or None] of every column that has a value, and the number of
    clips of those columns that lack some clips."""
    values = {
        name: [value.value, value.ci_low, value.ci_high]
        for name, value in record.values.items()
        if value is not None and value.value is not None
    }
    pairs = record.values["coded-bytes"].n
    fewer = {name: record.values[name].n for name in values if record.values[name].n < pairs}
    return {"method": method, "point": point, "pairs": pairs, "values": values, "scored": fewer}


def qualities(rows: Sequence[Row]) -> list[str]:
    """The columns that are compared: those that any row has, without sizes and columns that only describe a fit."""
    names = set().union(*(row["values"] for row in rows))
    known = ("target-psnr", "target-ssim", "csim", "csim-sface", "motion-error", "cross-error", "shape-error")
    return [name for name in known if name in names]


def markdown(suite: str, rows: Sequence[Row]) -> str:
    """The table of all points, and the BD-rates of every method against x264."""
    from bcd_bench_baselines.codecs.bd_rate import bd_rate

    columns = qualities(rows)
    lines = [
        f"Self-reenactment on `{suite}`, {rows[0]['pairs']} clips. Bytes of the whole file: content, headers, motion.",
        *_notes(rows, columns),
        "",
        f"| method | point | bytes | kbit/s | {' | '.join(columns)} |",
        f"| --- | --- | ---: | ---: |{' ---: |' * len(columns)}",
    ]
    for row in rows:
        values = row["values"]
        cells = [_cell(row, name) for name in columns]
        size, rate = values["coded-bytes"][0], values[RATE][0]
        lines.append(f"| {row['method']} | {row['point']} | {size:.0f} | {rate:.2f} | {' | '.join(cells)} |")
    lines += ["", f"| BD-rate against x264 | {' | '.join(columns)} |", f"| --- |{' ---: |' * len(columns)}"]
    for method in dict.fromkeys(row["method"] for row in rows):
        if method == "x264":
            continue
        cells = []
        for name in columns:
            sign = -1 if name.endswith("-error") else 1
            curves = [
                [
                    (r["values"][RATE][0], sign * r["values"][name][0])
                    for r in rows
                    if r["method"] == m and _whole(r, name)
                ]
                for m in ("x264", method)
            ]
            difference = bd_rate(*curves)
            if difference is not None:
                cells.append(f"{difference:+.0f} %")
            else:
                cells.append("no overlap" if all(len(curve) > 1 for curve in curves) else "too few points")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _notes(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """What brackets and dashes mean, if there are any."""
    found = [row["values"].get(name) for row in rows for name in columns]
    notes = []
    if any(one is not None and one[1] is not None for one in found):
        notes.append("Brackets: 95 % intervals over clips.")
    if any(one is None for one in found):
        notes.append("–: no clip could be scored.")
    return notes


def _whole(row: Row, name: str) -> bool:
    """Whether a column has the value of every clip; means over other clips cannot be compared."""
    return name in row["values"] and name not in row.get("scored", {})


def _cell(row: Row, name: str) -> str:
    if name not in row["values"]:
        return "–"
    value, low, high = row["values"][name]
    text = _number(value) if low is None else f"{_number(value)} [{_number(low)}, {_number(high)}]"
    return text if _whole(row, name) else f"{text} (n = {row['scored'][name]})"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def draw(suite: str, rows: Sequence[Row], path: Path) -> None:
    """Rate-distortion curves with intervals, one panel per column, without points that some clips lack.

    Points far beyond the rates of the codecs are named instead of drawn.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    columns = qualities(rows)
    down = -(-len(columns) // MOST_ACROSS)
    across = -(-len(columns) // down)
    figure = Figure(figsize=(4.2 * across, 3.6 * down), layout="constrained", dpi=130)
    grid = figure.subplots(down, across, squeeze=False).flatten()
    panels = grid[: len(columns)]
    for unused in grid[len(columns) :]:
        unused.remove()
    largest = FAR * max((r["values"][RATE][0] for r in rows if r["method"] in POINTS), default=math.inf)
    far = [row for row in rows if row["values"][RATE][0] > largest]
    for panel, name in zip(panels, columns, strict=True):
        drawn = [row for row in rows if row not in far and _whole(row, name)]
        for method in dict.fromkeys(row["method"] for row in drawn):
            points = sorted((r["values"][RATE][0], *r["values"][name]) for r in drawn if r["method"] == method)
            rates, values = [p[0] for p in points], [p[1] for p in points]
            spread = None
            if all(p[2] is not None for p in points):
                spread = [[p[1] - p[2] for p in points], [p[3] - p[1] for p in points]]
            colour, marker = STYLE[method]
            panel.errorbar(
                rates, values, yerr=spread, color=colour, marker=marker, capsize=2, label=method, lw=1.3, ms=5
            )
        panel.set_xscale("log")
        if name.endswith("-error"):
            panel.set_yscale("log")
        for axis in (panel.xaxis, panel.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axis.set_major_formatter("{x:g}")
                axis.set_minor_formatter(NullFormatter())
        panel.set_xlabel("kbit/s, whole file")
        panel.set_title(f"{name} {'↓' if name.endswith('-error') else '↑'}", fontsize=10)
        panel.grid(alpha=0.3, which="both")
    panels[0].legend(fontsize=8, frameon=False)
    beyond = [f"{row['method']}, {row['point']}: {row['values'][RATE][0]:.0f} kbit/s" for row in far]
    note = f"; beyond the axis: {'; '.join(beyond)}" if beyond else ""
    figure.suptitle(f"{suite}: {rows[0]['pairs']} clips{note}", fontsize=10)
    figure.savefig(path)
