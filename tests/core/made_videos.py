"""Small videos for the tests of reading, made through PyAV alone."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def moving(count: int = 6, height: int = 48, width: int = 64) -> np.ndarray:
    """uint8[count, H, W, 3]: coloured gradients that move, another corner in every quarter turn and mirror image."""
    y, x = np.mgrid[:height, :width]
    frames = []
    for index in range(count):
        frame = np.stack([(4 * x + 9 * index) % 256, (5 * y + 3 * index) % 256, (2 * x + 3 * y) % 256], -1)
        frame[: height // 4, : width // 3] = (250, 20 + index, 30)
        frames.append(frame)
    return np.stack(frames).astype(np.uint8)


def write(
    path: Path,
    frames: np.ndarray,
    *,
    codec: str = "ffv1",
    pixels: str = "bgr0",
    rate: int = 25,
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    stamps: Sequence[int] | None = None,
    form: str | None = None,
    **stream_settings: Any,
) -> Path:
    """A video file of `frames`; `stamps` are time stamps in units of 1/1000 second, else they follow `rate`."""
    with av.open(str(path), "w", format=form, options=container or {}) as out:
        stream: Any = out.add_stream(codec, rate=rate)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pixels
        stream.codec_context.thread_count = 1
        stream.codec_context.options = options or {}
        for key, value in stream_settings.items():
            setattr(stream.codec_context, key, value)
        if stamps is not None:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            if pixels != "rgb24":
                frame = frame.reformat(format=pixels)
            frame.pts = index if stamps is None else stamps[index]
            frame.time_base = Fraction(1, rate) if stamps is None else Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def turn_header(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Write a display matrix into the track header of an .mp4: a point (x, y) is shown at (a x + c y, b x + d y)."""
    body = bytearray(path.read_bytes())
    at = body.index(b"tkhd") + 4 + 40
    numbers = (a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    body[at : at + 36] = b"".join(number.to_bytes(4, "big", signed=True) for number in numbers)
    path.write_bytes(body)


def planes(
    path: Path, levels: Sequence[int], pixels: str, colorspace: int, color_range: int, *, size: int = 16
) -> Path:
    """A lossless file of one frame whose planes each have one level, with its matrix and range stated."""
    with av.open(str(path), "w") as out:
        stream: Any = out.add_stream("ffv1", rate=25)
        stream.height = stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        frame = av.VideoFrame(size, size, pixels)
        frame.colorspace, frame.color_range = colorspace, color_range
        deep = any(text in pixels for text in ("10", "12", "16"))
        for plane, level in zip(frame.planes, levels, strict=True):
            filled = np.full(plane.buffer_size // (2 if deep else 1), level, "<u2" if deep else np.uint8)
            plane.update(filled.tobytes())
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path
