"""Motion codes through constriction's range coder, with integer frequencies.

`constriction.stream.model.Categorical(perfect=False)` turns probabilities p_j into cumulative frequencies
floor(scale * (p_0 + ... + p_{j-1})) + j with scale = (2**24 - J) / (p_0 + ... + p_{J-1}). We pass the integers
p_j = f_j - 1, where the frequencies f_j sum to 2**24. Their sum is 2**24 - J, so the scale is exactly 1, and all
partial sums are integers below 2**24, which float32 represents exactly: the coder works with exactly the f_j, on every
machine that follows IEEE 754. A test compares its bytes with a range decoder in Python integers.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream.code_models import PRECISION, CodeModel, Integers
from bcd_bench_bcd.bitstream.container import BitstreamError

__all__ = ["decode_codes", "encode_codes", "ideal_bits"]

BLOCK = 256
"""Frames of a constant model that are coded in one call."""
TAIL_WORDS = 4
"""Zero words behind the coded ones. The decoder holds two words at a time, so it never reads beyond them."""


def encode_codes(model: CodeModel, codes: Integers, starts: Collection[int] = ()) -> bytes:
    """Codes int64 [T, N] as bytes: the shortest string that decodes to them. `model` is updated frame by frame.

    `starts` are the frames that start another clip, if there are several.

    Raises `UsageError` for codes outside of the model's range.
    """
    import constriction

    frames, groups = codes.shape
    entries = model.frequencies().shape[1]
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < entries:
        raise UsageError(f"motion codes must be in 0..{entries - 1}, found {int(codes.min())}..{int(codes.max())}")
    encoder, family = constriction.stream.queue.RangeEncoder(), _family()
    blocks = []
    for start in range(0, frames, BLOCK):
        block = codes[start : start + BLOCK]
        tables = _tables(model, block, {first - start for first in starts})
        symbols = block.reshape(-1).astype(np.int32)
        encoder.encode(symbols, family, tables)
        blocks.append((symbols, tables))
    data = _shortest(encoder)
    decoder = _decoder(data)
    # The shortest string is derived from the coder's state; a clip that does not decode must never be written.
    if not all(np.array_equal(decoder.decode(family, tables), symbols) for symbols, tables in blocks):
        raise RuntimeError(f"the range coder did not reproduce {frames}x{groups} motion codes")
    return data


def decode_codes(model: CodeModel, data: bytes, frames: int) -> Integers:
    """The codes int64 [T, N] of `frames` frames. `model` is updated frame by frame.

    Raises `BitstreamError` for data that no encoder writes; damaged data may also decode to other codes.
    """
    decoder, family = _decoder(data), _family()
    groups = len(model.frequencies())
    codes = np.empty((frames, groups), np.int64)
    try:
        if model.constant:
            for start in range(0, frames, BLOCK):
                count = min(BLOCK, frames - start)
                tables = np.tile(_probabilities(model.frequencies()), (count, 1))
                codes[start : start + count] = decoder.decode(family, tables).reshape(count, groups)
        else:
            for index in range(frames):
                codes[index] = decoder.decode(family, _probabilities(model.frequencies()))
                model.update(codes[index])
    except AssertionError:  # what constriction raises for impossible data
        raise BitstreamError("the motion section of the bitstream is damaged: its codes cannot be decoded") from None
    return codes


def ideal_bits(model: CodeModel, codes: Integers) -> float:
    """-log2 of the probability of codes int64 [T, N] under the model, which is updated: bits without any overhead."""
    total, rows = 0.0, np.arange(codes.shape[1])
    for frame in codes:
        total += float((PRECISION - np.log2(model.frequencies()[rows, frame])).sum())
        model.update(frame)
    return total


def _family() -> Any:
    import constriction

    return constriction.stream.model.Categorical(perfect=False)


def _probabilities(frequencies: Integers) -> npt.NDArray[np.float32]:
    return (frequencies - 1).astype(np.float32)


def _tables(model: CodeModel, codes: Integers, starts: Collection[int]) -> npt.NDArray[np.float32]:
    """The coder's probabilities float32 [T * N, J] of codes [T, N], which the model is updated with."""
    if model.constant:
        return np.tile(_probabilities(model.frequencies()), (len(codes), 1))
    tables = []
    for index, frame in enumerate(codes):
        if index in starts:
            model.start_clip()
        tables.append(_probabilities(model.frequencies()))
        model.update(frame)
    return np.concatenate(tables)


def _decoder(data: bytes) -> Any:
    import constriction

    padded = data + bytes(-len(data) % 4 + 4 * TAIL_WORDS)
    return constriction.stream.queue.RangeDecoder(np.frombuffer(padded, ">u4").astype(np.uint32))


def _shortest(encoder: Any) -> bytes:
    """The shortest byte string in the encoder's final interval, read as a fraction (most significant byte first).

    constriction closes a stream with one or two whole words of 32 bits, but any point of the interval decodes to the
    same codes, and the decoder reads zeros behind the end. Sprites' clips have about 6 bytes, so this matters.
    """
    position, (lower, width) = encoder.pos()
    closed: bytes = encoder.get_compressed().astype(">u4").tobytes()
    size = 4 * (int(position) + 2)  # bytes up to the end of the coder's 64-bit state
    point = int.from_bytes(closed, "big") << 8 * (size - len(closed))
    low = point - ((point - int(lower)) & ((1 << 64) - 1))  # the state has only the last 64 bits of the lower end
    for count in range(max(size - 16, 0), size + 1):
        unit = 8 * (size - count)
        rounded_up = -(-low >> unit) << unit
        if rounded_up < low + int(width):
            return (rounded_up >> unit).to_bytes(count, "big").rstrip(b"\0")
    return closed
