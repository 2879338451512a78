"""A page of pictures and labels, laid out in pixels, and saved as PNG or PDF."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from bcd_bench.io.atomic import atomic_path
from bcd_bench.types.errors import MissingDependencyError, UsageError

__all__ = ["CELL", "GAP", "LABEL", "LINE", "Canvas", "text_width", "wrapped"]

Frame = npt.NDArray[np.uint8]
CELL = 128
"""Side of a frame on the page."""
GAP = 6
LABEL = 10
"""Font size in points."""
LINE = 16
"""Height of a line of text."""
DPI = 96
POINTS = 72
WIDTH_OF_LETTER = 0.62
"""Average width of a letter in DejaVu Sans, relative to the font size; rounded up, so that labels never overlap."""


@dataclass
class Canvas:
    """Collects pictures and labels; the origin is the upper left corner, and the page grows to contain them."""

    pictures: list[tuple[Frame, float, float, float, float]] = field(default_factory=list)
    labels: list[tuple[str, float, float, dict[str, Any]]] = field(default_factory=list)
    frames: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    width: float = 0.0
    height: float = 0.0

    def picture(self, frame: Frame, x: float, y: float, width: float, height: float, *, outline: str = "") -> None:
        """Draw uint8 [H, W, 3] with its corner at (x, y). `outline` is the color of a border."""
        self.pictures.append((frame, x, y, width, height))
        if outline:
            self.frames.append((x, y, width, height, outline))
        self.width, self.height = max(self.width, x + width), max(self.height, y + height)

    def label(
        self,
        text: str,
        x: float,
        y: float,
        *,
        align: Literal["left", "center", "right"] = "left",
        bold: bool = False,
        size: float = LABEL,
        color: str = "black",
    ) -> None:
        """Write lines of text whose upper edge is at y; `align` says which part of a line is at x."""
        style = {"ha": align, "fontsize": size, "color": color, "weight": "bold" if bold else "normal"}
        self.labels.append((text, x, y, style))
        lines = text.splitlines() or [""]
        width = max(text_width(line, size) for line in lines)
        right = {"left": width, "center": width / 2, "right": 0.0}[align]
        self.width = max(self.width, x + right)
        self.height = max(self.height, y + len(lines) * LINE * size / LABEL)

    def caption(self, text: str) -> None:
        """Write small text below everything, wrapped to the width of the page."""
        size = 7
        lines = wrapped(text, max(self.width, 300), size)
        self.label("\n".join(lines), 0, self.height + GAP, size=size, color="0.3")

    def save(self, path: Path) -> None:
        """Write .png or .pdf, by the ending of `path`; equal pages give equal files.

        Raises `UsageError` for another ending or a file that cannot be written, and `MissingDependencyError` without
        matplotlib.
        """
        kind = path.suffix.lower().removeprefix(".")
        if kind not in ("png", "pdf"):
            raise UsageError(f"{path}: figures are written as .png or .pdf")
        figure = self._figure()
        metadata: dict[str, Any] = {"Software": None} if kind == "png" else {"CreationDate": None}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=2 * DPI if kind == "png" else DPI, metadata=metadata)
        except OSError as error:
            raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None

    def raster(self) -> Frame:
        """The page as uint8 [H, W, 3], with `GAP` pixels around it. Raises `MissingDependencyError` without
        matplotlib."""
        figure = self._figure()
        figure.canvas.draw()
        return np.ascontiguousarray(np.asarray(figure.canvas.buffer_rgba())[..., :3])

    def _figure(self) -> Any:
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg
            from matplotlib.figure import Figure
            from matplotlib.patches import Rectangle
        except ImportError:
            hint = "pip install 'bcd-bench[figures]'"
            raise MissingDependencyError("figures need the package 'matplotlib'", hint=hint) from None
        margin = GAP
        width, height = self.width + 2 * margin, self.height + 2 * margin
        figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.axis("off")
        for frame, x, y, across, down in self.pictures:
            smooth = frame.shape[1] > across  # enlarged pixels stay sharp
            extent = (x, x + across, y + down, y)
            axes.imshow(frame, extent=extent, interpolation="antialiased" if smooth else "nearest", aspect="auto")
        for x, y, across, down, color in self.frames:
            axes.add_patch(Rectangle((x, y), across, down, fill=False, edgecolor=color, linewidth=2))
        for text, x, y, style in self.labels:
            axes.text(x, y, _literal(text), va="top", linespacing=1.25, **style)
        axes.set_xlim(-margin, self.width + margin)
        axes.set_ylim(self.height + margin, -margin)
        return figure


def text_width(text: str, size: float = LABEL) -> float:
    """The width of a line of text on the page, or a little more."""
    return len(text) * size * WIDTH_OF_LETTER * DPI / POINTS


def wrapped(text: str, width: float, size: float = LABEL, lines: int | None = None) -> list[str]:
    """`text` in lines of at most `width`; with `lines`, the last one is shortened."""
    columns = max(4, int(width / text_width("x", size)))
    return textwrap.wrap(text, columns, break_on_hyphens=True, max_lines=lines, placeholder="…") or [""]


def _literal(text: str) -> str:
    """Text without TeX: a dollar sign would start a formula."""
    return text.replace("$", r"\$")
