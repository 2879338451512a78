"""Integer frequencies, and the range coder against one in Python integers."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream.autoregressive_model import Autoregressive, pack_frames, unpack_frames
from bcd_bench_bcd.bitstream.code_models import (
    PRECISION,
    Adaptive,
    Context,
    Static,
    code_model,
    exponentials,
    to_frequencies,
)
from bcd_bench_bcd.bitstream.coder import decode_codes, encode_codes, ideal_bits
from bcd_bench_bcd.bitstream.container import BitstreamError

WHOLE = 1 << PRECISION


def reference_decoder(data: bytes, tables: Sequence[np.ndarray]) -> list[int]:
    """A range decoder in Python integers: 64 bits of state, words of 32 bits, one table of frequencies per symbol."""
    words = [int.from_bytes(data[i : i + 4].ljust(4, b"\0"), "big") for i in range(0, len(data) + 16, 4)]
    mask = (1 << 64) - 1
    lower, width, point, position = 0, mask, words[0] << 32 | words[1], 2
    symbols = []
    for table in tables:
        scale = width >> PRECISION
        value = ((point - lower) & mask) // scale
        symbol, start = 0, 0
        while start + int(table[symbol]) <= value:
            start += int(table[symbol])
            symbol += 1
        symbols.append(symbol)
        lower, width = (lower + scale * start) & mask, scale * int(table[symbol])
        if width < 1 << 32:
            width <<= 32
            lower, point = lower << 32 & mask, (point << 32 | words[position]) & mask
            position += 1
    return symbols


def random_codes(seed: int, frames: int, groups: int, entries: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(entries, 0.3), groups)
    return np.stack([rng.choice(entries, frames, p=share) for share in shares], 1).astype(np.int64)


def counted(codes: np.ndarray, entries: int) -> np.ndarray:
    return np.stack([np.bincount(group, minlength=entries) for group in codes.T])


@pytest.mark.parametrize("name", ["static", "adaptive", "context"])
def test_bytes_are_those_of_exact_integer_frequencies(name: str) -> None:
    codes = random_codes(1, 60, 3, 7)
    tables, model = [], code_model(name, 3, 7, counted(codes, 7))
    for frame in codes:
        tables += list(model.frequencies())
        model.update(frame)
    data = encode_codes(code_model(name, 3, 7, counted(codes, 7)), codes)
    assert reference_decoder(data, tables) == codes.reshape(-1).tolist()


@given(
    seed=st.integers(0, 999),
    frames=st.integers(1, 40),
    groups=st.integers(1, 5),
    entries=st.integers(2, 20),
    name=st.sampled_from(["static", "adaptive", "context"]),
)
@settings(max_examples=60, deadline=None)
def test_codes_come_back_at_the_ideal_size(seed: int, frames: int, groups: int, entries: int, name: str) -> None:
    codes = random_codes(seed, frames, groups, entries)
    counts = counted(codes, entries)
    data = encode_codes(code_model(name, groups, entries, counts), codes)
    assert (decode_codes(code_model(name, groups, entries, counts), data, frames) == codes).all()
    ideal = ideal_bits(code_model(name, groups, entries, counts), codes)
    # The shortest string is n bits below the ideal in about one of 2^n examples: more than 8 bits in one of 2,000.
    assert ideal - 32 <= 8 * len(data) <= ideal + 8.01


@pytest.mark.parametrize("name", ["static", "adaptive", "context"])
def test_sizes_are_the_ideal_rounded_up_to_bytes(name: str) -> None:
    above = []
    for seed in range(40):
        codes = random_codes(seed, 20, 2, 9)
        counts = counted(codes, 9)
        size = 8 * len(encode_codes(code_model(name, 2, 9, counts), codes))
        above.append(size - ideal_bits(code_model(name, 2, 9, counts), codes))
    assert min(above) >= -8
    assert 0 < np.mean(above) < 4


@given(st.lists(st.integers(0, 1 << 38), min_size=2, max_size=30))
@settings(max_examples=60, deadline=None)
def test_frequencies_are_positive_and_sum_to_the_whole(weights: list[int]) -> None:
    frequencies = to_frequencies(np.array([weights], np.int64))[0]
    assert frequencies.min() > 0
    assert frequencies.sum() == WHOLE
    if sum(weights):
        share = np.array(weights) / sum(weights)
        np.testing.assert_allclose(frequencies / WHOLE, share, atol=2 * len(weights) / WHOLE)


def test_frequencies_by_hand() -> None:
    assert to_frequencies(np.array([[1, 3], [0, 0]])).tolist() == [
        [1 + (WHOLE - 2) // 4, WHOLE - 1 - (WHOLE - 2) // 4],
        [WHOLE - 1, 1],
    ]
    adaptive = Adaptive(1, 4)
    assert (adaptive.frequencies() == WHOLE // 4).all()
    adaptive.update(np.array([2]))
    np.testing.assert_allclose(adaptive.frequencies()[0] / WHOLE, np.array([1, 1, 13, 1]) / 16, atol=1e-6)


def test_exponentials_are_accurate_integers() -> None:
    steps = np.arange(3000)
    np.testing.assert_allclose(exponentials(steps) / 2**32, np.exp(-steps / 64), atol=2**-31)
    assert exponentials(np.array([0, 64, 640, 10**9])).tolist() == [4294967296, 1580030168, 194991, 0]


def test_context_learns_what_follows() -> None:
    codes = np.tile(np.array([[0], [1], [2]]), (100, 1))
    order0, context = (8 * len(encode_codes(model(1, 8), codes)) for model in (Adaptive, Context))
    assert order0 > 1.5 * 300
    assert context < 0.5 * 300


def test_a_new_clip_has_no_previous_frame() -> None:
    model = Context(1, 4)
    for clip in range(50):
        if clip:
            model.start_clip()
        for code in (3, 0, 1):
            model.update(np.array([code]))
    model.start_clip()
    assert int(model.frequencies().argmax()) == 3


def test_counts_are_halved_before_they_overflow() -> None:
    adaptive, context = Adaptive(1, 2), Context(1, 2)
    adaptive._weights[:] = 1 << 29
    adaptive._total = 1 << 30
    context._weights[:] = 1 << 25
    for model in (adaptive, context):
        model.update(np.array([1]))
        model.update(np.array([1]))
    assert adaptive._weights.max() < 1 << 29
    assert context._weights.max() < 1 << 25


def test_refusals() -> None:
    with pytest.raises(UsageError, match=r"motion codes must be in 0\.\.3, found 0\.\.4"):
        encode_codes(Adaptive(1, 4), np.array([[0], [4]]))
    with pytest.raises(UsageError, match="unknown probability model 'huffman'"):
        code_model("huffman", 1, 4)
    with pytest.raises(UsageError, match="needs the code counts"):
        code_model("static", 1, 4)
    with pytest.raises(UsageError, match=r"counts of \[2, 4\] codes, the weights have \[1, 4\]"):
        code_model("static", 1, 4, np.ones((2, 4), np.int64))
    with pytest.raises(UsageError, match="non-negative"):
        Static.from_counts(np.array([[1, -1]]))
    with pytest.raises(BitstreamError, match="cannot be decoded"):
        decode_codes(Static(np.array([[1, 1]])), b"\xff" * 40, 1000)


# ---- logits ----------------------------------------------------------------------------------------------------------
class Logits:
    """A model with fixed logits, shifted by rounding errors."""

    def __init__(self, values: np.ndarray, error: float) -> None:
        self.values, self.error = values, error

    def logits(self):  # type: ignore[no-untyped-def]
        import torch

        return torch.from_numpy(self.values + self.error)

    def push(self, codes: object) -> None:
        del codes


def logit_model(values: np.ndarray, error: float = 0.0) -> Autoregressive:
    return Autoregressive(lambda: Logits(values, error), np.ones(values.shape, np.int64))


def test_logits_become_probabilities() -> None:
    values = np.log(np.array([[0.5, 0.25, 0.2, 0.05]]))
    np.testing.assert_allclose(logit_model(values).frequencies()[0] / WHOLE, [0.5, 0.25, 0.2, 0.05], atol=0.01)


def test_rounding_errors_of_logits_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    escapes = 0
    for _ in range(200):
        values = rng.normal(size=(4, 16)) * 3
        values[0, 0] = (round(values[0, 0] * 64) + 0.5) / 64 + rng.choice([0, 1e-9, 1e-5])  # a boundary, or close to it
        encoder, decoder = logit_model(values), logit_model(values, 1e-10)
        table = encoder.frequencies()
        escaped = encoder.take_escaped()
        decoder.use_escaped(escaped)
        assert (decoder.frequencies() == table).all()
        escapes += len(escaped)
    assert 80 < escapes < 180  # two of three are within the guard


def test_escaped_frames_as_bytes() -> None:
    for frames in ((), (0,), (0, 1, 2), (5, 300, 70_000)):
        data = pack_frames(frames)
        assert unpack_frames(data + b"rest", 70_001) == (set(frames), len(data))
    assert pack_frames((5, 300)) == bytes([2, 5, 295 & 127 | 128, 295 >> 7])
    for damaged in (b"", b"\x80", b"\x02\x05", b"\x02\x05\x00", b"\x01\x0a", b"\xff\xff\xff\xff\xff\xff"):
        with pytest.raises(BitstreamError, match="motion section"):
            unpack_frames(damaged, 10)


def test_ideal_bits_by_hand() -> None:
    assert ideal_bits(Static(np.array([[1, 1, 1, 1]])), np.array([[0], [3], [2]])) == pytest.approx(6)
    assert ideal_bits(Adaptive(2, 4), np.array([[0, 1]])) == pytest.approx(4)
    first = ideal_bits(Adaptive(1, 4), np.array([[2], [2]]))
    assert first == pytest.approx(2 + math.log2(16 / 13), abs=1e-5)
