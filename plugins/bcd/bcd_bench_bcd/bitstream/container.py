"""The file format `.bcdm`: a header, a content section and a motion section, or a stream of packets.

All integers are little-endian. Every part has a CRC-32, and every size is checked against a limit before memory is
allocated for it. Damaged data raises `BitstreamError` and nothing else. docs/bitstream.md has the table of fields.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.paper.config import SamplerConfig

__all__ = [
    "CONTENT_CODINGS",
    "MAX_OUTPUT_BYTES",
    "MODELS",
    "PICTURES",
    "VERSION",
    "BitstreamError",
    "Header",
    "Packet",
    "first_packet_size",
    "header_size",
    "pack_file",
    "pack_header",
    "pack_packet",
    "pack_section",
    "packet_size",
    "read_file",
    "read_header",
    "read_packet",
    "read_section",
]

MAGIC = b"BCDM"
PACKET_MAGIC = b"BCDP"
VERSION = 2
"""Bump when an older decoder cannot read what is written. Version 2 added content as pictures, and has shorter hashes;
version 1 is read too."""
MODELS = ("static", "adaptive", "context", "autoregressive")
"""Probability models of motion codes; the position is the number in the header."""
CONTENT_CODINGS = ("float32", "grid", "uniform", "ffv1", "av1")
"""How content is coded; the position is the number in the header."""
PICTURES = ("ffv1", "av1")
"""Codings whose content section has pictures, from which the decoder computes the content tokens."""
DTYPES = ("float32", "bfloat16")
SOLVERS = ("heun", "euler", "dpmpp-2m")

MAX_OUTPUT_BYTES = 1 << 27
"""Largest clip in bytes that a file may describe: 109 seconds of 128x128 at 25 fps. Longer clips are streamed."""
MAX_FRAMES = 1 << 16
MAX_CODES = 1 << 24
"""Largest number of motion codes in a file."""
MAX_CONTENT_VALUES = 1 << 22
"""Largest number of content values: 16 MiB as float32."""
MAX_TABLE = 1 << 20
"""Largest number of codebook entries, over all groups."""
MAX_SECTION = 1 << 26
"""Largest section or packet in bytes."""
MAX_STEPS = 10_000

FIXED = struct.Struct("<4sBBBBBBHHHIIIIHHHQ")
SAMPLER = struct.Struct("<BIdddd")
HASH = 8
"""Bytes of a hash: the first ones of a SHA-256."""
HASH_1 = 32
"""In version 1: all of them."""
SECTION = struct.Struct("<II")
PACKET = struct.Struct("<4sIHBI")
"""Magic, sequence number, frames, flags (1: last packet), bytes of the payload; a CRC-32 follows the payload."""
CRC = struct.Struct("<I")
STREAM, HAS_SAMPLER, HAS_MOTION_MODEL = 1, 2, 4


class BitstreamError(UsageError):
    """A file or packet that cannot be decoded: damaged, cut short, of a newer version, or of other weights."""


@dataclass(frozen=True)
class Header:
    """What a decoder has to know besides the weights."""

    weights_sha256: str
    """Hash of the weights in hexadecimal: the first `2 * HASH` digits, all 64 in version 1."""
    fps: Fraction
    """Frames per second."""
    frames: int
    """Number of frames; 0 for a stream, whose length is not known in advance."""
    height: int
    width: int
    groups: int
    """N, the number of code groups."""
    entries: int
    """J, the number of entries per group."""
    tokens: int
    """K, the number of content tokens."""
    channels: int
    """C, the number of channels per content token."""
    seed: int
    """Seed of the sampler's noise, 64 bits."""
    model: str = "adaptive"
    """Name of the probability model of motion codes."""
    content_coding: str = "float32"
    content_bits: int = 0
    """Bits per content value if `content_coding` is "uniform", else 0."""
    dtype: str = "float32"
    """Precision of matrix products."""
    motion_model_sha256: str = ""
    """Hash of the motion-model file, for models that need one; as many digits."""
    sampler: SamplerConfig | None = None
    """None: the sampler of the weights."""
    stream: bool = False
    window: int = 0
    """Frames of a window if `stream`, else 0."""


@dataclass(frozen=True)
class Packet:
    """Some frames of a stream."""

    sequence: int
    frames: int
    last: bool
    payload: bytes


def pack_header(header: Header) -> bytes:
    """The header's bytes with their CRC. Raises `UsageError` if the clip exceeds the limits of the format."""
    _check(header, UsageError)
    flags = STREAM * header.stream + HAS_SAMPLER * (header.sampler is not None)
    flags += HAS_MOTION_MODEL * bool(header.motion_model_sha256)
    data = FIXED.pack(
        MAGIC,
        VERSION,
        flags,
        MODELS.index(header.model),
        CONTENT_CODINGS.index(header.content_coding),
        header.content_bits,
        DTYPES.index(header.dtype),
        header.height,
        header.width,
        header.groups,
        header.entries,
        header.frames,
        header.fps.numerator,
        header.fps.denominator,
        header.tokens,
        header.channels,
        header.window,
        header.seed,
    )
    data += bytes.fromhex(header.weights_sha256 + header.motion_model_sha256)
    if header.sampler is not None:
        s = header.sampler
        data += SAMPLER.pack(SOLVERS.index(s.name), s.steps, s.guidance, s.sigma_min, s.sigma_max, s.rho)
    return data + CRC.pack(zlib.crc32(data))


def read_header(data: bytes) -> tuple[Header, int]:
    """The header at the start of `data` and its size in bytes. Raises `BitstreamError`."""
    size = header_size(data)
    if len(data) > 4 and data[4] > VERSION:
        raise BitstreamError(
            f"the bitstream has format version {data[4]}, this installation reads versions up to {VERSION}",
            hint="update bcd-bench-bcd",
        )
    if size is None or len(data) < size:
        raise BitstreamError(f"the bitstream is cut short: its header is incomplete ({len(data)} bytes)")
    fields = FIXED.unpack_from(data)[1:]
    version, flags, model, coding, bits, dtype, height, width, groups, entries, frames, rate, per = fields[:13]
    tokens, channels, window, seed = fields[13:]
    width_of_hash = HASH_1 if version == 1 else HASH
    hashes = [FIXED.size, FIXED.size + width_of_hash, FIXED.size + width_of_hash * (1 + bool(flags & HAS_MOTION_MODEL))]
    end = size - CRC.size
    if CRC.unpack_from(data, end)[0] != zlib.crc32(data[:end]):
        raise BitstreamError("the header of the bitstream is damaged: its checksum does not match")
    known = CONTENT_CODINGS[: -len(PICTURES)] if version == 1 else CONTENT_CODINGS
    if version == 0 or flags & ~7 or model >= len(MODELS) or coding >= len(known) or dtype >= len(DTYPES):
        raise BitstreamError("the header of the bitstream is invalid: it names an unknown model, coding or flag")
    if rate == 0 or per == 0:
        raise BitstreamError(f"the header of the bitstream is invalid: frame rate {rate}/{per}")
    header = Header(
        weights_sha256=data[hashes[0] : hashes[1]].hex(),
        fps=Fraction(rate, per),
        frames=frames,
        height=height,
        width=width,
        groups=groups,
        entries=entries,
        tokens=tokens,
        channels=channels,
        seed=seed,
        model=MODELS[model],
        content_coding=CONTENT_CODINGS[coding],
        content_bits=bits,
        dtype=DTYPES[dtype],
        motion_model_sha256=data[hashes[1] : hashes[2]].hex(),
        sampler=_read_sampler(data, hashes[2]) if flags & HAS_SAMPLER else None,
        stream=bool(flags & STREAM),
        window=window,
    )
    _check(header, BitstreamError)
    return header, end + CRC.size


def _read_sampler(data: bytes, offset: int) -> SamplerConfig:
    solver, steps, *numbers = SAMPLER.unpack_from(data, offset)
    guidance, low, high, rho = numbers
    valid = solver < len(SOLVERS) and 1 <= steps <= MAX_STEPS and all(math.isfinite(x) for x in numbers)
    if not valid or guidance < 0 or not 0 < low < high or rho <= 0:
        raise BitstreamError("the header of the bitstream is invalid: its sampler settings are out of range")
    return SamplerConfig.model_validate(
        {
            "name": SOLVERS[solver],
            "steps": steps,
            "guidance": guidance,
            "sigma_min": low,
            "sigma_max": high,
            "rho": rho,
        }
    )


def _check(header: Header, error: type[UsageError]) -> None:
    """Refuse values that no clip has and sizes that would need too much memory."""

    def require(valid: bool, what: str, hint: str | None = None) -> None:
        if not valid:
            raise error(f"the bitstream is invalid: {what}", hint=hint)

    h, size = header, header.height * header.width * 3
    require(0 < h.height < 1 << 16 and 0 < h.width < 1 << 16, f"frames of {h.height}x{h.width} pixels")
    require(h.stream or h.frames > 0, "0 frames")
    require(not (h.stream and h.frames), "a stream with a fixed number of frames")
    longest = max(h.frames, h.window)
    require(
        longest * size <= MAX_OUTPUT_BYTES,
        f"{longest} frames of {h.height}x{h.width} pixels exceed {MAX_OUTPUT_BYTES >> 20} MiB",
        "encode --stream for long clips",
    )
    require(longest <= MAX_FRAMES, f"more than {MAX_FRAMES} frames", "encode --stream for long clips")
    require(h.stream == bool(h.window) and h.window < 1 << 16, f"a window of {h.window} frames")
    require(h.groups > 0 and h.entries >= 2 and h.groups * h.entries <= MAX_TABLE, f"{h.groups}x{h.entries} codes")
    require(longest * h.groups <= MAX_CODES, f"more than {MAX_CODES} motion codes", "encode --stream for long clips")
    require(0 < h.tokens * h.channels <= MAX_CONTENT_VALUES, f"content of {h.tokens}x{h.channels} values")
    require(h.tokens < 1 << 16 and h.channels < 1 << 16, f"content of {h.tokens}x{h.channels} values")
    allowed = range(1, 17) if h.content_coding == "uniform" else range(1)
    require(h.content_bits in allowed, f"{h.content_bits} bits per value of {h.content_coding} content")
    require(0 < h.fps.numerator < 1 << 32 and h.fps.denominator < 1 << 32, f"frame rate {h.fps}")
    require(0 <= h.seed < 1 << 64, f"seed {h.seed}")
    if error is UsageError:  # what is written
        digits = {len(h.weights_sha256), len(h.motion_model_sha256)}
        require(digits <= {0, 2 * HASH}, f"hashes of {sorted(digits)} digits")


def pack_section(payload: bytes) -> bytes:
    """Length, CRC and bytes of a section. Raises `UsageError` if it is too large."""
    if len(payload) > MAX_SECTION:
        raise UsageError(f"a section of {len(payload)} bytes exceeds {MAX_SECTION >> 20} MiB", hint="encode --stream")
    return SECTION.pack(len(payload), zlib.crc32(payload)) + payload


def read_section(data: bytes, offset: int, what: str) -> tuple[bytes, int]:
    """The section at `offset` and the offset behind it; `what` names it in messages. Raises `BitstreamError`."""
    if len(data) < offset + SECTION.size:
        raise BitstreamError(f"the bitstream is cut short: its {what} section is missing")
    length, checksum = SECTION.unpack_from(data, offset)
    start = offset + SECTION.size
    if length > len(data) - start:
        raise BitstreamError(
            f"the bitstream is cut short: its {what} section has {length} bytes, found {len(data) - start}"
        )
    payload = data[start : start + length]
    if zlib.crc32(payload) != checksum:
        raise BitstreamError(f"the {what} section of the bitstream is damaged: its checksum does not match")
    return payload, start + length


def pack_file(header: Header, content: bytes, motion: bytes) -> bytes:
    """A whole file. Raises `UsageError` as `pack_header`."""
    return pack_header(header) + pack_section(content) + pack_section(motion)


def read_file(data: bytes) -> tuple[Header, bytes, bytes]:
    """Header, content and motion of a file that is not a stream. Raises `BitstreamError`."""
    header, offset = read_header(data)
    if header.stream:
        raise BitstreamError("the bitstream is a stream of packets, not a single clip", hint="decode it as a stream")
    content, offset = read_section(data, offset, "content")
    motion, offset = read_section(data, offset, "motion")
    if offset != len(data):
        raise BitstreamError(f"the bitstream has {len(data) - offset} unexpected bytes behind its motion section")
    return header, content, motion


def pack_packet(packet: Packet) -> bytes:
    """A packet's bytes with their CRC."""
    head = PACKET.pack(PACKET_MAGIC, packet.sequence, packet.frames, packet.last, len(packet.payload))
    data = head + packet.payload
    return data + CRC.pack(zlib.crc32(data))


def read_packet(data: bytes, offset: int = 0) -> tuple[Packet, int]:
    """The packet at `offset` and the offset behind it. Raises `BitstreamError`."""
    if len(data) < offset + PACKET.size:
        raise BitstreamError("the stream is cut short inside a packet")
    magic, sequence, frames, flags, length = PACKET.unpack_from(data, offset)
    if magic != PACKET_MAGIC:
        raise BitstreamError("the stream is damaged: a packet does not start with 'BCDP'")
    start, end = offset + PACKET.size, offset + PACKET.size + length
    if length > MAX_SECTION or len(data) < end + CRC.size:
        raise BitstreamError(f"the stream is cut short: packet {sequence} has {length} bytes")
    if CRC.unpack_from(data, end)[0] != zlib.crc32(data[offset:end]) or flags > 1:
        raise BitstreamError(f"packet {sequence} of the stream is damaged: its checksum does not match")
    return Packet(sequence, frames, bool(flags), data[start:end]), end + CRC.size


def header_size(data: bytes) -> int | None:
    """Size in bytes of the header that `data` starts with; None if more bytes are needed to know.

    Raises `BitstreamError` if this is not the start of a bitstream.
    """
    if data[:4] != MAGIC[: len(data)]:
        raise BitstreamError("not a BCD bitstream: it does not start with 'BCDM'")
    if len(data) < 6:
        return None
    version, flags = data[4:6]
    hashes = (HASH_1 if version == 1 else HASH) * (1 + bool(flags & HAS_MOTION_MODEL))
    return FIXED.size + hashes + SAMPLER.size * bool(flags & HAS_SAMPLER) + CRC.size


def first_packet_size(data: bytes) -> int | None:
    """Size in bytes of a stream's first packet, which starts with `data`; None if more bytes are needed to know.

    Raises `BitstreamError` if this is not the start of a bitstream, or its size exceeds the limits.
    """
    start = header_size(data)
    if start is None or len(data) < start + SECTION.size:
        return None
    length = int(SECTION.unpack_from(data, start)[0])
    if length > MAX_SECTION:
        raise BitstreamError(f"the stream is damaged: its first packet has {length} bytes")
    return start + SECTION.size + length


def packet_size(data: bytes) -> int | None:
    """As `first_packet_size` for all other packets."""
    if data[:4] != PACKET_MAGIC[: len(data)]:
        raise BitstreamError("the stream is damaged: a packet does not start with 'BCDP'")
    if len(data) < PACKET.size:
        return None
    length = int(PACKET.unpack_from(data)[4])
    if length > MAX_SECTION:
        raise BitstreamError(f"the stream is damaged: a packet has {length} bytes")
    return PACKET.size + length + CRC.size
