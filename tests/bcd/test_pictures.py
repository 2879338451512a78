"""Content as pictures: lossless or by AV1, and what is refused."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream import pictures
from bcd_bench_bcd.bitstream.codec import decode_clip, encode_clip
from bcd_bench_bcd.bitstream.container import BitstreamError, read_file
from bcd_bench_bcd.bitstream.content import CodedContent
from bcd_bench_bcd.bitstream.pictures import check_pictures, decode_pictures, encode_pictures
from bcd_bench_bcd.bitstream.streaming import StreamDecoder, StreamEncoder
from tests.bcd.bitstream_toy import driving, tiny_method
from tests.bcd.test_bitstream_fuzz import DAMAGES


def waves(count: int, height: int, width: int) -> np.ndarray:
    """Smooth coloured frames uint8 [count, height, width, 3]."""
    t, y, x = np.ogrid[:count, :height, :width]
    colours = [127 + 120 * np.sin(t / 5 + y / (9 + c) + x / (7 + 2 * c)) for c in range(3)]
    return np.stack([np.broadcast_to(colour, (count, height, width)) for colour in colours], -1).astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2)))


@pytest.mark.parametrize("shape", [(1, 64, 48), (5, 33, 47), (2, 8, 9)])
def test_lossless_pictures_come_back(shape: tuple[int, int, int]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    coded = encode_pictures(frames)
    assert coded.coding == "ffv1"
    assert encode_pictures(frames) == coded  # the same bytes every time
    np.testing.assert_array_equal(decode_pictures(coded), frames)


@pytest.mark.parametrize("shape", [(1, 64, 48), (6, 65, 47)])
def test_a_larger_crf_is_smaller_and_less_alike(shape: tuple[int, int, int]) -> None:
    frames = waves(*shape)
    coded = [encode_pictures(frames, crf) for crf in (10, 40, 63)]
    assert {one.coding for one in coded} == {"av1"}
    decoded = [decode_pictures(one) for one in coded]
    assert all(one.shape == frames.shape for one in decoded)
    sizes, alike = [len(one.payload) for one in coded], [psnr(one, frames) for one in decoded]
    assert sizes == sorted(sizes, reverse=True)
    assert alike == sorted(alike, reverse=True)
    assert alike[0] > 33  # 4:2:0 limits the colours


def test_damaged_pictures_give_one_error_or_frames_of_the_stated_size() -> None:
    rng, results, lines = np.random.default_rng(3), Counter[str](), 0
    whole = [encode_pictures(waves(3, 32, 40)), encode_pictures(waves(3, 32, 40), 40)]
    for index in range(600):
        one = whole[index % 2]
        broken = DAMAGES[rng.integers(len(DAMAGES))](one.payload, rng)
        try:
            frames = decode_pictures(CodedContent(one.coding, 0, broken))
        except BitstreamError as error:
            results[one.coding] += 1
            lines += str(error).count("\n")
        else:
            assert (*frames.shape[:3],) == struct.unpack_from("<HHH", broken)
            results["decoded"] += 1
    assert not lines
    assert min(results["ffv1"], results["av1"], results["decoded"]) > 30


def test_stated_sizes_are_checked_before_memory_is_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    coded = encode_pictures(waves(2, 32, 40))

    def stating(*size: int, coding: str = "ffv1") -> CodedContent:
        return CodedContent(coding, 0, struct.pack("<HHH", *size) + coded.payload[6:])

    for one, message in (
        (stating(65535, 65535, 65535), "65535 frames of 65535x65535"),
        (stating(0, 32, 40), "0 frames of 32x40"),
        (stating(3, 32, 40), "2 of 3 frames"),
        (stating(1, 32, 40), "2 of 1 frames"),
        (stating(2, 32, 42), "a frame has another size"),
        (stating(2, 32, 40, coding="av1"), "is damaged|is invalid"),
        (CodedContent("ffv1", 0, b"\x01"), "too short"),
    ):
        with pytest.raises(BitstreamError, match=message):
            decode_pictures(one)
    large = CodedContent("av1", 0, struct.pack("<HHH", 1, 32, 32) + encode_pictures(waves(1, 512, 512), 63).payload[6:])
    with pytest.raises(BitstreamError, match="content section of the bitstream is damaged"):
        decode_pictures(large)
    monkeypatch.setattr(pictures, "MAX_OUTPUT_BYTES", 2 * 32 * 40 * 3 - 1)
    with pytest.raises(UsageError, match="the content is too large for a bitstream: 2 frames of 32x40"):
        check_pictures(waves(2, 32, 40))
    monkeypatch.undo()
    monkeypatch.setattr(pictures, "MAX_SECTION", len(coded.payload))
    check_pictures(waves(2, 32, 40), coded)
    monkeypatch.setattr(pictures, "MAX_SECTION", len(coded.payload) - 1)
    with pytest.raises(UsageError, match="the content is too large for a bitstream: 2 frames of 32x40"):
        check_pictures(waves(2, 32, 40), coded)


def test_tokens_are_computed_from_the_pictures(tmp_path: Path) -> None:
    method = tiny_method(tmp_path, grid=False, window=8)
    content, motion = driving(3), driving(8)
    encoded = encode_clip(method, content, motion, 8.0, seed=3, content_crf=20)
    assert encoded.header.content_coding == "av1"
    shown = decode_pictures(CodedContent("av1", 0, read_file(encoded.data)[1]))
    assert (shown != content).any()
    expected = method.transfer_frames(shown, motion, seed=3)
    np.testing.assert_array_equal(decode_clip(method, encoded.data).frames, expected)
    encoder = StreamEncoder(method, content, fps=8.0, size=(32, 32), seed=3, content_crf=20)
    first, *packets = [packet for frame in motion for packet in encoder.push(frame)] + encoder.finish()
    decoder = StreamDecoder(method, first)
    np.testing.assert_array_equal(np.concatenate([decoder.push(packet) for packet in packets]), expected)


def test_an_encoder_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import av

    def opened(*arguments: Any, **options: Any) -> None:
        raise av.error.EncoderNotFoundError(1, "no such encoder")

    monkeypatch.setattr(av, "open", opened)
    with pytest.raises(UsageError, match=r"AV1 does not support \[1, 32, 32, 3\] with CRF 30"):
        encode_pictures(waves(1, 32, 32), 30)
