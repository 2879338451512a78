"""Content tokens as bytes: the levels of a bottleneck's grid, uniformly quantised values, or float32.

- "grid": models with a content bottleneck round their content to a grid at inference; the integer levels are coded.
- "uniform": every channel has its own range over the tokens, divided into 2**B - 1 steps.
- "float32": the values themselves, lossless.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream.code_models import Integers, Static, exponentials
from bcd_bench_bcd.bitstream.coder import decode_codes, encode_codes
from bcd_bench_bcd.bitstream.container import BitstreamError
from bcd_bench_bcd.extensions.content_bottleneck import Bottleneck
from bcd_bench_bcd.paper.model import BCD

__all__ = ["CodedContent", "ContentCoder", "quantized"]

Floats = npt.NDArray[np.float32]

LEVELS = 65
"""Levels of the grid that have a code of their own, centred on 0."""
MAX_LEVEL = (1 << 15) - 1
"""Largest magnitude of a level that is coded; content beyond it is coded as float32."""
MAX_ESCAPES = 255
"""Largest number of levels without a code; content with more is coded as float32."""
MIN_LOG_VARIANCE, MAX_LOG_VARIANCE = -6, 12
"""Range of the base-2 logarithm of the variance of levels that frequencies are computed for."""


@dataclass(frozen=True)
class CodedContent:
    """Content as bytes, and how it was coded (see `container.CONTENT_CODINGS`)."""

    coding: str
    bits: int
    payload: bytes


def quantized(content: Tensor, bits: int) -> Tensor:
    """Content float [B, K, C] rounded to 2**bits levels per channel of every clip, as decoded from a bitstream."""
    clips = [_dequantize(*_quantize(clip.float().cpu().numpy(), bits)) for clip in content]
    return torch.from_numpy(np.stack(clips)).to(content)


class ContentCoder:
    """Encodes and decodes the content of one model."""

    def __init__(self, model: BCD) -> None:
        self._grid = _grid(model)
        self._tables: Static | None = None

    def encode(self, content: Tensor, bits: int | None = None) -> CodedContent:
        """Encode the content float32 [1, K, C] that the model's decoder gets.

        `bits` (1..16) codes the values of `quantized(content, bits)`; None keeps them exactly. Raises `UsageError` for
        content that is not finite.
        """
        values = content[0].float().cpu().numpy()
        if not np.isfinite(values).all():
            raise UsageError("the content is not finite: the weights do not work on this clip")
        if bits is not None:
            low, step, levels = _quantize(values, bits)
            return CodedContent("uniform", bits, low.tobytes() + step.tobytes() + _pack_levels(levels, bits))
        if self._grid is not None:
            on_grid = _levels(self._grid, values)
            payload = None if on_grid is None else _encode_levels(on_grid, self._levels_model())
            if payload is not None:
                return CodedContent("grid", 0, payload)
        return CodedContent("float32", 0, _shuffled(values.astype("<f4").view(np.uint8).reshape(-1, 4)))

    def decode(self, coded: CodedContent, tokens: int, channels: int) -> Tensor:
        """The content float32 [1, K, C] on the CPU. Raises `BitstreamError` for damaged data."""
        if coded.coding == "uniform":
            head = 8 * channels
            scales = np.frombuffer(coded.payload[:head].ljust(head, b"\0"), "<f4").reshape(2, channels)
            levels = _unpack_levels(coded.payload[head:], coded.bits, (tokens, channels))
            values = _dequantize(scales[0], scales[1], levels)
        elif coded.coding == "grid":
            if self._grid is None or self._grid[0].shape != (tokens, channels):
                raise BitstreamError("the content section does not fit the weights: they have no such grid")
            values = _on_grid(self._grid, _decode_levels(coded.payload, self._levels_model()).reshape(tokens, channels))
        else:
            values = _unshuffled(coded.payload, tokens * channels, 4).view("<f4").reshape(tokens, channels)
        if not np.isfinite(values).all():
            raise BitstreamError("the content section of the bitstream is damaged: it has values that are not finite")
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))[None]

    def _levels_model(self) -> Static:
        if self._tables is None:
            assert self._grid is not None
            self._tables = Static(_weights(self._grid))
        return self._tables


# ---- uniform -------------------------------------------------------------------------------------------------------
def _quantize(values: Floats, bits: int) -> tuple[Floats, Floats, Integers]:
    """Lowest value and step float32 [C], and levels [K, C] in 0..2**bits - 1, of values float32 [K, C]."""
    largest = (1 << bits) - 1
    low = values.min(0)
    step = ((values.max(0) - low) / np.float32(largest)).astype(np.float32)
    levels = np.rint((values - low) / np.where(step > 0, step, np.float32(1))).astype(np.int64)
    return low, step, np.clip(levels, 0, largest)


def _dequantize(low: Floats, step: Floats, levels: Integers) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):  # damaged data; the caller checks that the result is finite
        values: Floats = low + step * levels.astype(np.float32)
    return values


def _pack_levels(levels: Integers, bits: int) -> bytes:
    return _shuffled(levels.astype("<u2").view(np.uint8).reshape(-1, 2)[:, : 1 if bits <= 8 else 2])


def _unpack_levels(payload: bytes, bits: int, shape: tuple[int, int]) -> Integers:
    width = 1 if bits <= 8 else 2
    raw = _unshuffled(payload, shape[0] * shape[1], width)
    levels = raw.astype(np.int64) if width == 1 else raw.view("<u2").astype(np.int64)
    if levels.max() >> bits:
        raise BitstreamError(f"the content section of the bitstream is damaged: a level exceeds {bits} bits")
    return levels.reshape(shape)


def _shuffled(table: npt.NDArray[np.uint8]) -> bytes:
    """Bytes [values, width] with all first bytes first, deflated: bytes of equal significance resemble each other."""
    return zlib.compress(np.ascontiguousarray(table.T).tobytes(), 9)


def _unshuffled(payload: bytes, count: int, width: int) -> npt.NDArray[np.uint8]:
    """The inverse of `_shuffled`, uint8 [count * width]. Never inflates more than that."""
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(payload, count * width + 1)
    except zlib.error:
        raise BitstreamError("the content section of the bitstream is damaged: it cannot be inflated") from None
    if len(raw) != count * width:
        raise BitstreamError(f"the content section of the bitstream is damaged: expected {count * width} bytes")
    return np.ascontiguousarray(np.frombuffer(raw, np.uint8).reshape(width, count).T).reshape(-1)


# ---- grid ----------------------------------------------------------------------------------------------------------
def _grid(model: BCD) -> tuple[Tensor, Tensor] | None:
    """Centre and step float32 [K, C] of the grid that the model rounds content to, on the CPU; None without one."""
    bottleneck: Bottleneck | None = getattr(model, "bottleneck", None)
    if bottleneck is None or not bool((bottleneck.step > 0).all()):
        return None
    return bottleneck.center.detach().float().cpu(), bottleneck.step.detach().float().cpu()


def _on_grid(grid: tuple[Tensor, Tensor], levels: Integers) -> Floats:
    """Values float32 [K, C] of levels, computed as `Bottleneck.rounded` does."""
    center, step = grid
    values: Floats = (center + step * torch.from_numpy(levels).float()).numpy()
    return values


def _levels(grid: tuple[Tensor, Tensor], values: Floats) -> Integers | None:
    """The levels int64 [K, C] of values on the grid; None if they would not reproduce the values exactly."""
    center, step = (part.numpy() for part in grid)
    levels: Integers = np.rint((values - center) / step).astype(np.int64)
    if np.abs(levels).max() > MAX_LEVEL or not np.array_equal(_on_grid(grid, levels), values):
        return None
    return levels


def _weights(grid: tuple[Tensor, Tensor]) -> Integers:
    """Weights int64 [K * C, LEVELS + 1] of the levels of every value and of the escape.

    Content is trained to be unit normal with the noise included, and the step is the noise's standard deviation: levels
    have a variance of about 1 / step**2 - 1. It is rounded to a power of two, by comparisons that give the same result
    on every machine; the rest is integers.
    """
    steps = grid[1].numpy().astype(np.float64).reshape(-1)
    bounds = np.array([1 / math.sqrt(1 + math.sqrt(2.0) * 2.0**k) for k in range(MIN_LOG_VARIANCE, MAX_LOG_VARIANCE)])
    log_variance = MIN_LOG_VARIANCE + (steps[:, None] < bounds).sum(1)
    squares = (np.arange(LEVELS) - LEVELS // 2) ** 2  # the exponent is -square / (2 variance), in units of 1/64
    gaussian = exponentials((squares << 5 << -MIN_LOG_VARIANCE)[None] >> (log_variance - MIN_LOG_VARIANCE)[:, None])
    return np.pad(gaussian, ((0, 0), (0, 1)))


def _encode_levels(levels: Integers, model: Static) -> bytes | None:
    """Number of escaped levels, their values, and the coded levels; None if there are too many escapes."""
    codes = levels.reshape(-1) + LEVELS // 2
    escaped = (codes < 0) | (codes >= LEVELS)
    if escaped.sum() > MAX_ESCAPES:
        return None
    values = levels.reshape(-1)[escaped].astype("<i2").tobytes()
    coded = encode_codes(model, np.where(escaped, LEVELS, codes)[None])
    return bytes([int(escaped.sum())]) + values + coded


def _decode_levels(payload: bytes, model: Static) -> Integers:
    """The inverse of `_encode_levels`, int64 [K * C]."""
    count = payload[0] if payload else 0
    start = 1 + 2 * count
    if len(payload) < start:
        raise BitstreamError("the content section of the bitstream is damaged: it is too short")
    codes = decode_codes(model, payload[start:], 1)[0]
    escaped = codes == LEVELS
    if escaped.sum() != count:
        raise BitstreamError("the content section of the bitstream is damaged: its number of escapes does not match")
    levels: Integers = codes - LEVELS // 2
    levels[escaped] = np.frombuffer(payload[1:start], "<i2")
    return levels
