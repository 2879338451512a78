"""Frame orientation: display matrices of videos, EXIF orientation of images."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from bcd_bench.types.errors import UnreadableVideoError

__all__ = ["UPRIGHT", "Turn", "exif_turn", "matrix_turn", "turned"]

HEAD = 1 << 20
"""Number of leading bytes of an image that are searched for EXIF data."""


class Turn(NamedTuple):
    """Operations that make a frame upright, in this order."""

    transpose: bool
    """Swap rows and columns."""
    flip_x: bool
    """Then flip horizontally."""
    flip_y: bool
    """Then flip vertically."""


UPRIGHT = Turn(False, False, False)
BY_EXIF = {
    1: UPRIGHT,
    2: Turn(False, True, False),
    3: Turn(False, True, True),
    4: Turn(False, False, True),
    5: Turn(True, False, False),
    6: Turn(True, True, False),
    7: Turn(True, True, True),
    8: Turn(True, False, True),
}
"""Turn by the value of the EXIF tag Orientation."""


def turned(rgb: npt.NDArray[np.uint8], turn: Turn) -> npt.NDArray[np.uint8]:
    """Upright view of a frame [H, W, 3], without copying."""
    if turn.transpose:
        rgb = rgb.transpose(1, 0, 2)
    if turn.flip_x:
        rgb = rgb[:, ::-1]
    return rgb[::-1] if turn.flip_y else rgb


def matrix_turn(frame: Any) -> Turn:
    """Turn of a decoded frame from its display matrix. Raises `UnreadableVideoError` unless it is a multiple of 90°."""
    matrix = _display_matrix(frame)
    if matrix is None:
        return UPRIGHT
    # A point (x, y) of the frame is shown at (a x + c y, b x + d y); translation and scale are irrelevant.
    a, b, c, d = (int(matrix[index]) for index in (0, 1, 3, 4))
    straight, quarter = abs(a) + abs(d), abs(b) + abs(c)
    if min(straight, quarter) > 0.02 * max(straight, quarter) or a * d == b * c:
        upright = "rotate it with ffmpeg -i IN OUT"
        raise UnreadableVideoError("rotated by an angle that is not a multiple of 90 degrees", hint=upright)
    return Turn(True, c < 0, b < 0) if quarter > straight else Turn(False, a < 0, d < 0)


def _display_matrix(frame: Any) -> npt.NDArray[np.int32] | None:
    """The nine numbers of a frame's display matrix; None if it has none."""
    from av.sidedata.sidedata import Type

    try:
        matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV cannot list unknown kinds of side data, but still provides the angle
        if not frame.rotation:
            return None
        angle = np.deg2rad(frame.rotation)
        cosine, sine = np.cos(angle) * 65536, np.sin(angle) * 65536
        return np.rint([cosine, -sine, 0, sine, cosine, 0, 0, 0, 0]).astype(np.int32)
    return None if matrix is None else np.frombuffer(bytes(matrix), np.int32)


def exif_turn(path: Path) -> Turn:
    """Turn of a JPEG, PNG or WebP image from its EXIF data; `UPRIGHT` if there is none. Raises `OSError` if
    unreadable."""
    with path.open("rb") as file:
        head = file.read(HEAD)
        if head.startswith(b"RIFF"):  # WebP stores EXIF after the pixels
            head += file.read()
    exif = _exif(head)
    return BY_EXIF.get(_orientation(exif), UPRIGHT)


def _exif(data: bytes) -> bytes:
    """The TIFF structure with the EXIF data of an image; empty if there is none."""
    if data.startswith(b"\xff\xd8"):
        return _exif_of_jpeg(data)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        start, order, tag, size_first, extra = 8, ">", b"eXIf", True, 12
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        start, order, tag, size_first, extra = 12, "<", b"EXIF", False, 8
    else:
        return b""
    while start + 8 <= len(data):
        first, second = data[start : start + 4], data[start + 4 : start + 8]
        size = struct.unpack(f"{order}I", first if size_first else second)[0]
        if (second if size_first else first) == tag:
            payload = data[start + 8 : start + 8 + size]
            return payload.removeprefix(b"Exif\0\0")
        start += extra + size + (0 if size_first else size % 2)
    return b""


def _exif_of_jpeg(data: bytes) -> bytes:
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xFF:  # padding
            at += 1
            continue
        if marker == 0xDA:  # start of the pixel data
            break
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            return data[at + 10 : at + 2 + size]
        at += 2 + size
    return b""


def _orientation(tiff: bytes) -> int:
    """Value of the tag Orientation in the first directory; 1 if it is missing or damaged."""
    orders = {b"II*\0": "<", b"MM\0*": ">"}
    order = orders.get(tiff[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, at)
        for index in range(count):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at + 2 + 12 * index)
            if tag == 0x0112 and kind == 3:
                return int(value)
    except struct.error:
        return 1
    return 1
