"""Frequencies of motion codes from the logits of an autoregressive model, reproducible on other machines.

The network runs in float64 on the CPU. Two machines may add the same numbers in another order, so that their logits
differ in about the 12th digit. The coder therefore never sees a logit: it is rounded to a multiple of 1/64 nat, and
the frequencies follow from these integers by integer arithmetic. Two machines round to different integers only if a
logit is as close to a rounding boundary as their difference. The encoder lists the frames that have a logit within
`GUARD` of a boundary, which is far more than the difference, and both sides code them with the static table instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Protocol

import numpy as np
from torch import Tensor

from bcd_bench_bcd.bitstream.code_models import Integers, Static, exponentials, to_frequencies
from bcd_bench_bcd.bitstream.container import BitstreamError

__all__ = ["Autoregressive", "LogitModel", "MotionModel", "pack_frames", "unpack_frames"]

STEPS = 64
"""Steps of the grid per nat. Rounding costs less than 1e-4 bits per code."""
GUARD = 1e-7
"""Distance from a rounding boundary, in nats, within which a frame is coded with the static table."""
CLAMP = 1e6
"""Largest magnitude of a logit that is used."""


class LogitModel(Protocol):
    """The state of an autoregressive model after some frames."""

    def logits(self) -> Tensor:
        """Logits float64 [N, J] of the codes of the next frame, on the CPU."""
        ...

    def push(self, codes: Tensor) -> None:
        """Continue with the codes int64 [N] of that frame."""
        ...


class MotionModel(Protocol):
    """A motion-model file: statistics and a network for the codes of one set of BCD weights."""

    @property
    def counts(self) -> Tensor:
        """How often each code occurs in the training clips, int64 [N, J]."""
        ...

    @property
    def sha256(self) -> str:
        """Hash of the file."""
        ...

    @property
    def bcd_sha256(self) -> str:
        """Hash of the BCD weights whose codes are modelled."""
        ...

    def coder(self, content: Tensor) -> LogitModel:
        """A model of a clip's codes for content float [K, C], before the first frame."""
        ...


class Autoregressive:
    """A `CodeModel` from logits. `start` returns the model before a clip's first frame.

    The encoder collects the frames that are coded with the static table in the attribute `escaped`; the decoder sets
    them by `use_escaped`. They are counted from the last `take_escaped` or `use_escaped`.
    """

    constant = False

    def __init__(self, start: Callable[[], LogitModel], counts: Integers) -> None:
        self._start, self._static = start, Static.from_counts(counts)
        self._collect = True
        self.escaped: set[int] = set()
        self._frame = 0
        self._coder = start()
        self._table: Integers | None = None

    def take_escaped(self) -> set[int]:
        """The escaped frames of a section that has been encoded; the next section starts."""
        escaped, self.escaped, self._frame = self.escaped, set(), 0
        return escaped

    def use_escaped(self, escaped: Collection[int]) -> None:
        """Decode a section whose escaped frames are these."""
        self.escaped, self._collect, self._frame = set(escaped), False, 0

    def frequencies(self) -> Integers:
        if self._table is None:
            self._table = self._frequencies()
        return self._table

    def _frequencies(self) -> Integers:
        if not self._collect and self._frame in self.escaped:
            return self._static.frequencies()
        scaled = self._coder.logits().double().cpu().numpy()
        scaled = np.clip(np.nan_to_num(scaled, nan=-CLAMP), -CLAMP, CLAMP) * STEPS
        distance = np.abs(scaled - np.floor(scaled) - 0.5)
        # Entries far below the largest have the smallest frequency on either side of a boundary.
        relevant = scaled > scaled.max(1, keepdims=True) - STEPS * 24
        if self._collect and bool((distance[relevant] < GUARD * STEPS).any()):
            self.escaped.add(self._frame)
            return self._static.frequencies()
        levels = np.floor(scaled + 0.5).astype(np.int64)
        return to_frequencies(exponentials(levels.max(1, keepdims=True) - levels))

    def update(self, codes: Integers) -> None:
        import torch

        self._coder.push(torch.from_numpy(codes))
        self._frame += 1
        self._table = None

    def start_clip(self) -> None:
        self._coder, self._table = self._start(), None


def pack_frames(frames: Collection[int]) -> bytes:
    """Frame indices as their number and their differences, 7 bits per byte, least significant first."""
    ordered = sorted(frames)
    numbers = [len(ordered), *np.diff(ordered, prepend=0).tolist()]
    data = bytearray()
    for number in numbers:
        while number >= 128:
            data.append(number & 127 | 128)
            number >>= 7
        data.append(number)
    return bytes(data)


def unpack_frames(data: bytes, frames: int) -> tuple[set[int], int]:
    """The inverse of `pack_frames` for a clip of `frames` frames, and the number of bytes read.

    Raises `BitstreamError` for anything else.
    """
    offset = 0

    def number() -> int:
        nonlocal offset
        value, shift = 0, 0
        while shift < 35 and offset < len(data):
            byte = data[offset]
            offset += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
        raise BitstreamError("the motion section of the bitstream is damaged: its list of frames is not readable")

    count = number()
    if count > frames:
        raise BitstreamError(f"the motion section of the bitstream is damaged: {count} listed frames of {frames}")
    found: set[int] = set()
    index = 0
    for _ in range(count):
        index += number()
        found.add(index)
    if len(found) != count or index >= frames:
        raise BitstreamError("the motion section of the bitstream is damaged: its list of frames is not increasing")
    return found, offset
