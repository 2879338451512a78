"""Integrity checks: lengths stated in file headers, and checksums that FFmpeg ignores or does not report."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

__all__ = ["Checksums", "SliceChecksums", "is_animated_webp", "missing_end"]

EBML, SEGMENT, CLUSTER, CRC32 = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xBF
"""Ids of Matroska elements."""
BOXES = (
    b"ftyp",
    b"moov",
    b"mdat",
    b"free",
    b"skip",
    b"wide",
    b"moof",
    b"mfra",
    b"styp",
    b"sidx",
    b"pnot",
    b"uuid",
    b"meta",
)
"""Top-level boxes of MP4 and QuickTime files."""
TOLERATED = 8
"""Bytes; some AVI writers count their header or padding incorrectly."""
CHUNK = 1 << 20
REVERSED = bytes(int(f"{value:08b}"[::-1], 2) for value in range(256))
"""Every byte with its bits reversed."""


def missing_end(path: Path) -> str:
    """Reason why the file must be truncated, based on the length stated by its format; empty if none is stated.

    Reads only headers, and images completely. Raises `OSError` if the file cannot be read.
    """
    length = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(64)
        stated = length
        if head.startswith(b"\x1a\x45\xdf\xa3"):
            stated = _matroska_length(file, length)
        elif head.startswith(b"RIFF"):
            stated = int.from_bytes(head[4:8], "little") + 8 - TOLERATED
        elif head[4:8] in BOXES:
            stated = _boxes_length(file, length)
        elif head.startswith((b"GIF87a", b"GIF89a")):
            file.seek(max(0, length - 1024))
            if not file.read().rstrip(b"\0").endswith(b";"):
                return "its end is missing"
        elif head.startswith(b"\xff\xd8\xff"):
            file.seek(0)
            if not _jpeg_ends(file.read()):
                return "its end is missing"
    return f"{length} of {stated} bytes are present" if stated > length else ""


def _vint(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """Read a Matroska variable-length integer; None at the end of the file and for "unknown"."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    raw = first + file.read(more)
    value = int.from_bytes(raw, "big")
    if keep_marker:
        return value
    value &= (1 << (7 * (more + 1))) - 1
    return None if len(raw) <= more or value == (1 << (7 * (more + 1))) - 1 else value


def _element(file: BinaryIO) -> tuple[int, int] | None:
    """Id and size of the element that starts here; the file is then positioned at its content."""
    kind = _vint(file, keep_marker=True)
    size = None if kind is None else _vint(file, keep_marker=False)
    return None if kind is None or size is None else (kind, size)


def _matroska_length(file: BinaryIO, length: int) -> int:
    file.seek(0)
    header = _element(file)
    if header is None or header[0] != EBML:
        return length
    file.seek(header[1], 1)
    segment = _element(file)
    return length if segment is None or segment[0] != SEGMENT else file.tell() + segment[1]


def _boxes_length(file: BinaryIO, length: int) -> int:
    at = 0
    while at + 8 <= length:
        file.seek(at)
        head = file.read(16)
        size = int.from_bytes(head[:4], "big")
        if size == 1:
            size = int.from_bytes(head[8:16], "big")
        if (
            size < 8 or head[4:8] not in BOXES
        ):  # 0: extends to the end; otherwise the remaining data has a different format
            return length
        at += size
    return at


def _jpeg_ends(data: bytes) -> bool:
    """Whether an end marker follows the start of the pixel data; previews in the header have their own end marker."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0


class Checksums:
    """Verifies the checksums of a Matroska file's clusters as the file is read. Other formats always pass."""

    def __init__(self, path: Path, format_name: str) -> None:
        self._path, self._known = path, "matroska" in format_name
        self._file: BinaryIO | None = None
        self._checked = 0
        self._results: Iterator[tuple[int, bool]] = iter(())

    def __enter__(self) -> Checksums:
        if self._known:
            self._file = self._path.open("rb")
            self._results = _clusters(self._file)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def hold_up_to(self, position: int) -> bool:
        """Whether all clusters that begin before byte `position` match their checksums."""
        while self._checked < position:
            end, holds = next(self._results, (1 << 63, True))
            self._checked = end
            if not holds:
                return False
        return True


def _clusters(file: BinaryIO) -> Iterator[tuple[int, bool]]:
    """Yield (end, checksum valid) for each element in the segment; stops at elements of unknown size."""
    header = _element(file)
    if header is None or header[0] != EBML:
        return
    file.seek(header[1], 1)
    if _element(file) is None:
        return
    while (element := _element(file)) is not None:
        start, (kind, size) = file.tell(), element
        holds = True
        if kind == CLUSTER and size > 6 and file.read(2) == bytes((CRC32, 0x84)):
            stated = int.from_bytes(file.read(4), "little")
            remaining, checksum = size - 6, 0
            while remaining > 0 and (part := file.read(min(remaining, CHUNK))):
                checksum = zlib.crc32(part, checksum)
                remaining -= len(part)
            holds = remaining == 0 and checksum == stated
        yield start + size, holds
        file.seek(start + size)


class SliceChecksums:
    """Verifies the checksums of FFV1 slices; FFmpeg silently fills damaged slices from the previous frame.

    Whether a stream has checksums is stated only in its compressed header, so it is inferred: the stream is damaged if
    some frames match and others do not.
    """

    def __init__(self) -> None:
        self._held = self._failed = False

    def hold(self, packet: bytes) -> bool:
        """Whether this frame and the previous ones may be undamaged."""
        holds = _slices_hold(packet)
        self._held |= holds
        self._failed |= not holds
        return not (self._held and self._failed)


def _slices_hold(packet: bytes) -> bool:
    """Each slice ends with its size (3 bytes), a status (1) and a CRC-32 (4) over the whole slice, MSB first."""
    end = len(packet)
    while end > 0:
        size = int.from_bytes(packet[max(0, end - 8) : max(0, end - 5)], "big") + 8
        if size > end:
            return False
        # zlib's CRC processes the LSB first and inverts its initial and final values; FFV1's does not.
        if zlib.crc32(packet[end - size : end].translate(REVERSED), 0xFFFFFFFF) != 0xFFFFFFFF:
            return False
        end -= size
    return True


def is_animated_webp(path: Path) -> bool:
    """Whether the file is an animated WebP. Raises `OSError` if it cannot be read."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[:4] == b"RIFF" and head[8:16] == b"WEBPVP8X" and len(head) == 21 and bool(head[20] & 2)
