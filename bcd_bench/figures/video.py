"""Comparisons as videos: several pairs that play side by side, with labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bcd_bench.figures.canvas import CELL, GAP, LINE, Canvas, wrapped
from bcd_bench.figures.sources import Source, produced_by
from bcd_bench.io.rgb import resize_frame

if TYPE_CHECKING:
    from bcd_bench.types.pair import Pair

__all__ = ["comparison_video"]

Frames = npt.NDArray[np.uint8]
BLOCK = 14
"""Gap between columns of pairs."""
ASPECT = 16 / 9
"""Width to height that the page is near to."""


def comparison_video(sources: Sequence[Source], pairs: Sequence[Pair]) -> tuple[Iterator[Frames], float]:
    """The pairs in rows, as frames uint8 [H, W, 3], and their number per second.

    Every row has the content clip, the driving clip, the output of every run, and the target. Shorter clips stay on
    their last frame.
    """
    with_target = all(pair.target is not None for pair in pairs)
    names = ["content", "driving clip", *(source.label for source in sources), *(["ground truth"] * with_target)]
    rows = []
    for pair in pairs:
        clips = [pair.content.load(), pair.motion.load(), *(source.output(pair.id) for source in sources)]
        if pair.target is not None and with_target:
            clips.append(pair.target.load())
        rows.append([clip.frames for clip in clips])
    fps = pairs[0].motion.load().fps
    height, width = rows[0][1].shape[1:3]
    cell = round(CELL * width / height)
    across = len(names) * cell + BLOCK
    columns = max(1, min(len(rows), round(math.sqrt(len(rows) * ASPECT * (CELL + GAP) / across))))
    per_column = math.ceil(len(rows) / columns)
    canvas = Canvas()
    lines = max(len(wrapped(name, cell)) for name in names)
    top = lines * LINE + GAP
    for column in range(math.ceil(len(rows) / per_column)):
        for index, name in enumerate(names):
            parts = wrapped(name, cell, lines=lines)
            x = column * across + (index + 0.5) * cell
            canvas.label("\n".join(parts), x, (lines - len(parts)) * LINE, align="center", bold=True)
    places = []
    for number, row in enumerate(rows):
        column, line = divmod(number, per_column)
        y = top + line * (CELL + GAP)
        places.append([(column * across + index * cell, y) for index in range(len(row))])
        canvas.width, canvas.height = max(canvas.width, (column + 1) * across - BLOCK), max(canvas.height, y + CELL)
    canvas.caption(produced_by(sources, pairs, more="Pairs are listed column by column."))
    page = canvas.raster()

    def frames() -> Iterator[Frames]:
        for time in range(max(len(clip) for row in rows for clip in row)):
            shown = page.copy()
            for row, corners in zip(rows, places, strict=True):
                for clip, (x, y) in zip(row, corners, strict=True):
                    frame = resize_frame(clip[min(time, len(clip) - 1)], (CELL, cell))
                    shown[y + GAP : y + GAP + CELL, x + GAP : x + GAP + cell] = frame
            yield shown

    return frames(), fps
