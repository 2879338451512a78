"""The figures themselves: comparison of methods, motion grid, strips of rates, generated clips, and CSIM examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bcd_bench.figures.canvas import CELL, GAP, LINE, Canvas, text_width, wrapped
from bcd_bench.figures.sources import Source, frames_of

if TYPE_CHECKING:
    from bcd_bench.types.pair import Pair

__all__ = ["comparison", "examples", "generation", "motion_grid", "strips"]

Frames = npt.NDArray[np.uint8]
BLOCK = 14
"""Gap between blocks of frames."""


def _cell(frames: Frames) -> tuple[float, float]:
    """Width and height of a frame on the page: the height of a cell, and the frame's aspect ratio."""
    return CELL * frames.shape[2] / frames.shape[1], float(CELL)


def _strip(canvas: Canvas, frames: Frames, x: float, y: float) -> float:
    """Draw frames side by side; returns the x at their right end."""
    width, height = _cell(frames)
    for index, frame in enumerate(frames):
        canvas.picture(frame, x + index * width, y, width, height)
    return x + len(frames) * width


def _heading(canvas: Canvas, text: str, left: float, right: float, *, lines: int) -> None:
    """A label centred over a block, at the bottom of `lines` lines."""
    parts = wrapped(text, max(right - left, CELL), lines=lines)
    canvas.label("\n".join(parts), (left + right) / 2, (lines - len(parts)) * LINE, align="center", bold=True)


def comparison(sources: Sequence[Source], pairs: Sequence[Pair], *, frames: int) -> Canvas:
    """One row per pair: the content, then the same frames of the driving clip, of every method, and of the target."""
    canvas = Canvas()
    with_target = all(pair.target is not None for pair in pairs)
    names = ["driving clip", *(source.label for source in sources), *(["ground truth"] if with_target else [])]
    first = pairs[0].motion.load().frames
    block = _cell(first)[0] * min(frames, len(first))
    header = max(len(wrapped(name, max(block, CELL))) for name in ["content", *names])
    top = header * LINE + GAP
    spans: dict[str, tuple[float, float]] = {}
    for row, pair in enumerate(pairs):
        y = top + row * (CELL + GAP)
        content = pair.content.load().frames
        clips = [pair.motion.load().frames, *(source.output(pair.id).frames for source in sources)]
        if pair.target is not None and with_target:
            clips.append(pair.target.load().frames)
        right = _strip(canvas, content[:1], 0, y)
        spans["content"] = (0, right)
        for name, clip in zip(names, clips, strict=True):
            left = right + BLOCK
            right = left + max(block, CELL)
            _strip(canvas, frames_of(clip, frames), left, y)
            spans[name] = (left, right)
    for name, (left, right) in spans.items():
        _heading(canvas, name, left, right, lines=header)
    return canvas


def _lines(label: str) -> list[str]:
    """The lines of a label to the left of a row, each wrapped."""
    return [part for line in label.splitlines() for part in wrapped(line, 1.6 * CELL)]


def motion_grid(contents: Sequence[Frames], motions: Sequence[Frames], outputs: Sequence[Sequence[Frames]]) -> Canvas:
    """Contents down the side, driving clips along the top, and in each cell the content with that motion.

    `contents` are single frames [1, H, W, 3], `motions` and `outputs[row][column]` the frames to show, of any number.
    """
    canvas = Canvas()
    width = _cell(motions[0])[0] * len(motions[0])
    left = _cell(contents[0])[0] + BLOCK
    top = LINE + GAP + CELL + BLOCK
    canvas.label("content", 0, top - LINE - GAP, bold=True)
    for column, motion in enumerate(motions):
        x = left + column * (width + BLOCK)
        canvas.label(f"driving clip {column + 1}", x + width / 2, 0, align="center", bold=True)
        _strip(canvas, motion, x, LINE + GAP)
    for row, content in enumerate(contents):
        y = top + row * (CELL + GAP)
        _strip(canvas, content, 0, y)
        for column in range(len(motions)):
            _strip(canvas, outputs[row][column], left + column * (width + BLOCK), y)
    return canvas


def strips(rows: Sequence[tuple[str, Sequence[Frames]]], contents: Sequence[Frames] = ()) -> Canvas:
    """One labelled row per entry, one block of frames per pair: `rows` are (label, [frames of pair 1, pair 2, ...]).

    `contents` are the content frames [1, H, W, 3] of the pairs, drawn to the left of the first row, whose label is
    then above its frames.
    """
    canvas = Canvas()
    margin = max(text_width(line) for label, _ in rows for line in _lines(label)) + GAP
    blocks = rows[0][1]
    side = _cell(contents[0])[0] + BLOCK if contents else 0.0
    spans = []
    x = margin
    for block in blocks:
        width = _cell(block)[0] * len(block)
        spans.append((x, x + side))
        x += side + width + 2 * BLOCK
    top = LINE + GAP if contents else 0.0
    for (left, right), content in zip(spans, contents, strict=False):
        canvas.label("content", left, 0, bold=True)
        canvas.label(rows[0][0], right, 0, bold=True)
        _strip(canvas, content, left, top)
    for row, (label, clips) in enumerate(rows):
        y = top + row * (CELL + GAP)
        if row or not contents:
            lines = _lines(label)
            canvas.label("\n".join(lines), margin - GAP, y + (CELL - len(lines) * LINE) / 2, align="right", bold=True)
        for (_, left), clip in zip(spans, clips, strict=True):
            _strip(canvas, clip, left, y)
    return canvas


def generation(clips: Sequence[tuple[str, Frames, Frames]]) -> Canvas:
    """One row per clip (label, prompt frames, generated frames): the prompt has an orange border."""
    canvas = Canvas()
    margin = max(text_width(line) for label, *_ in clips for line in _lines(label)) + GAP
    prompt_width = max(_cell(prompt)[0] * len(prompt) for _, prompt, _ in clips)
    top = LINE + GAP
    canvas.label("prompt", margin + prompt_width / 2, 0, align="center", bold=True)
    canvas.label("generated frames", margin + max(prompt_width, text_width("prompt")) + BLOCK, 0, bold=True)
    for row, (label, prompt, frames) in enumerate(clips):
        y = top + row * (CELL + GAP)
        lines = _lines(label)
        canvas.label("\n".join(lines), margin - GAP, y + (CELL - len(lines) * LINE) / 2, align="right")
        width, height = _cell(prompt)
        for index, frame in enumerate(prompt):
            canvas.picture(frame, margin + index * width, y, width, height, outline="#D55E00")
        _strip(canvas, frames, margin + max(prompt_width, text_width("prompt")) + BLOCK, y)
    return canvas


def examples(title: str, rows: Sequence[tuple[Frames, Frames, Frames, str]], canvas: Canvas) -> None:
    """Add a row of examples (content, driving frame, output frame, text below) to a canvas, below what it has."""
    y = canvas.height + (BLOCK if canvas.pictures else 0)
    canvas.label(title, 0, y, bold=True)
    y += LINE + GAP
    x = 0.0
    for content, driving, output, text in rows:
        left = x
        for name, frame in (("content", content), ("driving", driving), ("output", output)):
            canvas.label(name, x + CELL / 2, y, align="center", size=8)
            x = _strip(canvas, frame, x, y + LINE)
        for index, line in enumerate(text.splitlines()):
            canvas.label(line, (left + x) / 2, y + LINE + CELL + GAP + index * LINE, align="center")
        x += 2 * BLOCK
