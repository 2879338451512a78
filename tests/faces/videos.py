"""Small videos and a landmarker for the tests: a red square is a face, and so is a blue one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.landmarks.mediapipe import Face

Frames = npt.NDArray[np.uint8]
RED, BLUE = (220, 20, 20), (20, 20, 220)


def scene(
    count: int,
    size: tuple[int, int] = (96, 160),
    red: tuple[int, int, int] | None = (60, 20, 40),
    blue: tuple[int, int, int] | None = None,
    step: int = 0,
) -> Frames:
    """uint8[count, H, W, 3]: squares (left, top, side) on noise whose grey level tells the frame; red moves `step`."""
    height, width = size
    noise = np.random.default_rng(height * width).integers(0, 30, (height, width, 1), dtype=np.uint8)
    frames = np.repeat(np.repeat(noise[None], count, axis=0), 3, axis=3)
    frames += (60 + np.arange(count) % 128).astype(np.uint8)[:, None, None, None]
    for index in range(count):
        for square, colour, moved in ((red, RED, step * index), (blue, BLUE, 0)):
            if square is not None:
                left, top, side = square
                frames[index, top : top + side, left + moved : left + moved + side] = colour
    return frames


def write(
    path: Path,
    frames: Frames,
    *,
    fps: int = 25,
    codec: str = "ffv1",
    milliseconds: Sequence[int] | None = None,
    aspect: int = 1,
) -> Path:
    """A video file; `milliseconds` are the time stamps of a variable frame rate. The ending decides the container.
    `aspect` is the width of a pixel over its height (mpeg4 only)."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    formats = {".mkv": "matroska", ".mp4": "mp4", ".avi": "avi", ".mov": "mov", ".webm": "webm"}
    options = {"movflags": "faststart"} if path.suffix.lower() == ".mp4" else {}  # the index first, as LRS3 has it
    with av.open(str(path), "w", format=formats.get(path.suffix.lower(), "matroska"), options=options) as container:
        stream: Any = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        stream.thread_count = 1
        stream.bit_rate = 4_000_000
        if milliseconds is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts = index if milliseconds is None else milliseconds[index]
            frame.time_base = Fraction(1, fps) if milliseconds is None else Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class SquareLandmarker:
    """Stands in for the face landmarker, with its interface; `detector` counts how often it is asked."""

    def __init__(self, model: Path | None = None) -> None:
        del model
        self.asked = 0

    def detect(self, frame: Frames) -> list[Face]:
        self.asked += 1
        red, green, blue = (frame[..., channel].astype(np.int16) for channel in range(3))
        masks = ((red > 170) & (green < 90) & (blue < 90), (blue > 170) & (green < 90) & (red < 90))
        faces = []
        for mask in masks:
            rows, columns = np.nonzero(mask)
            if len(rows) > 16:
                low, high = (columns.min(), rows.min(), 0), (columns.max() + 1, rows.max() + 1, 0)
                corners = np.array([low, high], np.float32)
                faces.append(Face(corners, np.zeros(52, np.float32), np.eye(3, dtype=np.float32)))
        return sorted(faces, key=lambda face: -float(np.ptp(face.points[:, :2], axis=0).prod()))
