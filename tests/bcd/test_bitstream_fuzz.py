"""Ten thousand damaged bitstreams: one clear error or a valid result, never another exception, never much memory."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bcd_bench_bcd.bitstream import container
from bcd_bench_bcd.bitstream.codec import encode_clip, read_parts
from bcd_bench_bcd.bitstream.container import BitstreamError, pack_section, read_file, read_header
from bcd_bench_bcd.bitstream.streaming import StreamDecoder, StreamEncoder, read_packets
from bcd_bench_bcd.inference.method import BCDMethod
from tests.bcd.bitstream_toy import ToyMotionModel, driving, tiny_method

FILES, STREAMS = 8500, 1500
LARGEST = 64 << 20
"""Bytes that the decoder may allocate for a damaged bitstream of a tiny clip."""

Damage = Callable[[bytes, np.random.Generator], bytes]


def truncated(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(len(data))]


def flipped(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for position in rng.integers(len(data), size=rng.integers(1, 9)):
        changed[position] ^= 1 << rng.integers(8)
    return bytes(changed)


def overwritten(data: bytes, rng: np.random.Generator) -> bytes:
    """A field of one to eight bytes with extreme values."""
    position, size = int(rng.integers(len(data))), int(rng.choice([1, 2, 4, 8]))
    value = rng.choice([b"\0", b"\xff", b"\x7f", b"\x80", b"\x01"]) * size
    return data[:position] + bytes(value) + data[position + size :]


def spliced(data: bytes, rng: np.random.Generator) -> bytes:
    a, b, c = sorted(rng.integers(len(data), size=3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def noise(data: bytes, rng: np.random.Generator) -> bytes:
    return data[: rng.integers(0, 12)] + rng.bytes(int(rng.integers(1, 300)))


DAMAGES: tuple[Damage, ...] = (truncated, flipped, overwritten, spliced, noise)


def with_checksums(header: bytes, content: bytes, motion: bytes) -> bytes:
    """A file whose checksums are right, so that the damage reaches the decoders."""
    return header + struct.pack("<I", zlib.crc32(header)) + pack_section(content) + pack_section(motion)


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    damage = DAMAGES[rng.integers(len(DAMAGES))]
    if rng.random() < 0.4:
        return damage(data, rng)
    parts = [data[: read_header(data)[1] - 4], *read_file(data)[1:]]
    if rng.random() < 0.1:
        return with_checksums(parts[0], parts[2], parts[1])
    victim = rng.integers(3)
    parts[victim] = damage(parts[victim], rng) if parts[victim] else rng.bytes(5)
    return with_checksums(*parts)


@pytest.fixture
def methods(tmp_path: Path) -> list[BCDMethod]:
    return [tiny_method(tmp_path, grid=True, window=8), tiny_method(tmp_path, grid=False, content_bits=6, window=8)]


@pytest.mark.slow
def test_damaged_files(methods: list[BCDMethod]) -> None:
    cases = []
    for method in methods:
        motion_model = ToyMotionModel(method)
        for model in container.MODELS:
            encoded = encode_clip(method, driving(4), driving(8), 8.0, model=model, motion_model=motion_model)
            cases.append((method, motion_model, encoded.data))
    plain = tiny_method(Path(methods[1].loaded.path or "").parent, grid=False, window=8)
    for crf in (None, 40):
        encoded = encode_clip(plain, driving(4), driving(8), 8.0, content_crf=crf)
        cases.append((plain, ToyMotionModel(plain), encoded.data))
    rng = np.random.default_rng(20)
    results: Counter[str] = Counter()
    tracemalloc.start()
    try:
        for index in range(FILES):
            method, motion_model, data = cases[index % len(cases)]
            broken = damaged(data, rng)
            try:
                parts = read_parts(method, broken, motion_model=motion_model)
            except BitstreamError as error:
                results[str(error).split(":")[0]] += 1
            else:
                assert parts.codes.shape == (parts.header.frames, parts.header.groups)
                assert 0 <= parts.codes.min() <= parts.codes.max() < parts.header.entries
                assert bool(parts.content.tokens.isfinite().all())
                results["decoded"] += 1
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(results.values()) == FILES
    assert not any("\n" in message for message in results)
    assert len(results) > 10  # all kinds of damage are found by name
    assert 200 < results["decoded"] < FILES // 2
    assert peak < LARGEST


def test_damaged_streams(methods: list[BCDMethod], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        BCDMethod,
        "sample_noise",
        lambda self, content, motion, noise: np.zeros((1, len(noise[0]), 32, 32, 3), np.uint8),
    )
    method = methods[0]
    motion_model = ToyMotionModel(method)
    streams = []
    for model in container.MODELS:
        encoder = StreamEncoder(
            method, driving(4), fps=8.0, size=(32, 32), model=model, motion_model=motion_model, window=4
        )
        packets = [packet for frame in driving(14) for packet in encoder.push(frame)] + encoder.finish()
        streams.append(packets)
    rng = np.random.default_rng(21)
    results: Counter[str] = Counter()
    for index in range(STREAMS):
        packets = streams[index % 4]
        if rng.random() < 0.2:  # lost, repeated and exchanged packets
            packets = [packets[0], *(packets[i] for i in rng.integers(1, len(packets), size=len(packets) - 1))]
            broken = b"".join(packets)
        else:
            broken = DAMAGES[rng.integers(len(DAMAGES))](b"".join(packets), rng)
        try:
            packets = list(read_packets(io.BytesIO(broken)))
            decoder = StreamDecoder(method, packets[0], motion_model=motion_model)
            frames = [decoder.push(packet) for packet in packets[1:]]
        except BitstreamError as error:
            results[type(error).__name__] += 1
        else:
            assert sum(map(len, frames)) <= 14
            results["decoded"] += 1
    assert sum(results.values()) == STREAMS
    assert {*results} >= {"BitstreamError", "PacketLost"}
