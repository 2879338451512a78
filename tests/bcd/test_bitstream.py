"""Files: what comes back, what is refused, and that decoding gives the frames of `transfer`."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream import container
from bcd_bench_bcd.bitstream.codec import decode_clip, encode_clip, frame_rate
from bcd_bench_bcd.bitstream.container import BitstreamError, Header, pack_file, pack_header, read_file, read_header
from bcd_bench_bcd.bitstream.content import CodedContent, ContentCoder, quantized
from bcd_bench_bcd.inference.bcd import BCD
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.paper.config import SamplerConfig
from tests.bcd.bitstream_toy import ToyMotionModel, driving, tiny_method
from tests.bcd.test_method import pair

HEADER = Header(
    weights_sha256="12" * 8,
    fps=Fraction(30000, 1001),
    frames=70,
    height=64,
    width=48,
    groups=3,
    entries=16,
    tokens=5,
    channels=7,
    seed=(1 << 63) + 5,
    model="context",
    content_coding="uniform",
    content_bits=9,
    dtype="bfloat16",
)
SAMPLER = SamplerConfig(name="dpmpp-2m", steps=12, guidance=1.25, sigma_min=0.01, sigma_max=50.0, rho=6.5)


# ---- container -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"sampler": SAMPLER},
        {"motion_model_sha256": "cd" * 8, "model": "static"},
        {"sampler": SAMPLER, "motion_model_sha256": "cd" * 8, "stream": True, "frames": 0, "window": 8},
        {"content_coding": "ffv1", "content_bits": 0},
        {"content_coding": "av1", "content_bits": 0},
    ],
)
def test_headers_come_back(changes: dict[str, object]) -> None:
    header = replace(HEADER, **changes)  # type: ignore[arg-type]
    data = pack_header(header)
    assert read_header(data) == (header, len(data))
    assert read_header(data + b"more") == (header, len(data))


def sections() -> bytes:
    return b"".join(struct.pack("<II", len(part), zlib.crc32(part)) + part for part in (b"content", b"motion"))


FIELDS = "<4sBBBBBBHHHIIIIHHHQ"


def test_the_layout_of_version_2() -> None:
    """Files of this version have to stay readable: change the version with the layout."""
    header = replace(HEADER, fps=Fraction(25), motion_model_sha256="34" * 8, model="static")
    data = pack_file(header, b"content", b"motion")
    assert struct.unpack_from(FIELDS, data) == (
        *(b"BCDM", 2, 4, 0, 2, 9, 1, 64, 48, 3, 16, 70, 25, 1, 5, 7, 0, (1 << 63) + 5),
    )
    size = struct.calcsize(FIELDS) + 16
    assert data[size - 16 : size] == b"\x12" * 8 + b"\x34" * 8
    assert struct.unpack_from("<I", data, size)[0] == zlib.crc32(data[:size])
    assert data[size + 4 :] == sections()
    with pytest.raises(UsageError, match="hashes of"):
        pack_header(replace(HEADER, weights_sha256="12" * 32))


@pytest.mark.parametrize("motion_model", [b"", b"\x34" * 32])
def test_files_of_version_1_are_read(motion_model: bytes) -> None:
    values = (b"BCDM", 1, 4 * bool(motion_model), 0, 2, 9, 1, 64, 48, 3, 16, 70, 25, 1, 5, 7, 0, (1 << 63) + 5)
    data = struct.pack(FIELDS, *values) + b"\x12" * 32 + motion_model
    data += struct.pack("<I", zlib.crc32(data)) + sections()
    header, content, motion = read_file(data)
    named = {"weights_sha256": "12" * 32, "motion_model_sha256": motion_model.hex()}
    assert header == replace(HEADER, fps=Fraction(25), model="static", **named)
    assert (content, motion) == (b"content", b"motion")
    pictures = resealed(data[: len(data) - len(sections())], 7, b"\x03")
    with pytest.raises(BitstreamError, match="unknown model, coding or flag"):
        read_header(pictures)


def resealed(data: bytes, offset: int, value: bytes) -> bytes:
    """A header with other bytes at `offset` and a valid checksum: what only a hostile encoder writes."""
    changed = data[:offset] + value + data[offset + len(value) : -4]
    return changed + struct.pack("<I", zlib.crc32(changed))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: b"", "cut short"),
        (lambda d: b"RIFF" + d[4:], "not a BCD bitstream"),
        (lambda d: d[:-1], "cut short"),
        (lambda d: d[:40], "cut short"),
        (lambda d: d[:20] + bytes([d[20] ^ 4]) + d[21:], "damaged: its checksum"),
        (lambda d: resealed(d, 4, b"\x03"), "format version 3, this installation reads versions up to 2"),
        (lambda d: resealed(d, 7, b"\x05"), "unknown model, coding or flag"),
        (lambda d: resealed(d, 7, b"\x04"), "9 bits per value of av1 content"),
        (lambda d: resealed(d, 4, b"\x00"), "unknown model, coding or flag"),
        (lambda d: resealed(d, 6, b"\x09"), "unknown model, coding or flag"),
        (lambda d: resealed(d, 5, b"\x40"), "unknown model, coding or flag"),
        (lambda d: resealed(d, 20, struct.pack("<I", 0)), "0 frames"),
        (lambda d: resealed(d, 20, struct.pack("<I", 2**32 - 1)), "exceed 128 MiB"),
        (lambda d: resealed(d, 10, struct.pack("<HH", 65535, 65535)), "exceed 128 MiB"),
        (lambda d: resealed(d, 10, struct.pack("<HH", 0, 64)), "frames of 0x64 pixels"),
        (lambda d: resealed(d, 14, struct.pack("<H", 0)), "0x16 codes"),
        (lambda d: resealed(d, 16, struct.pack("<I", 2**31)), "3x2147483648 codes"),
        (lambda d: resealed(d, 16, struct.pack("<I", 1)), "3x1 codes"),
        (lambda d: resealed(d, 24, struct.pack("<II", 0, 1)), "frame rate 0/1"),
        (lambda d: resealed(d, 24, struct.pack("<II", 1, 0)), "frame rate 1/0"),
        (lambda d: resealed(d, 32, struct.pack("<HH", 65535, 65535)), "content of 65535x65535 values"),
        (lambda d: resealed(d, 8, b"\x11"), "17 bits per value of uniform content"),
        (lambda d: resealed(d, 7, b"\x00"), "9 bits per value of float32 content"),
        (lambda d: resealed(d, 36, struct.pack("<H", 8)), "a window of 8 frames"),
    ],
)
def test_damaged_headers(change: Callable[[bytes], bytes], message: str) -> None:
    with pytest.raises(BitstreamError, match=message):
        read_header(change(pack_header(HEADER)))


def test_hostile_samplers() -> None:
    data = pack_header(replace(HEADER, sampler=SAMPLER))
    start = container.FIXED.size + container.HASH
    for offset, value in ((0, b"\x07"), (1, struct.pack("<I", 10**6)), (5, struct.pack("<d", float("nan")))):
        with pytest.raises(BitstreamError, match="sampler settings are out of range"):
            read_header(resealed(data, start + offset, value))


def test_damaged_sections() -> None:
    data = pack_file(HEADER, b"content", b"motion")
    assert read_file(data) == (HEADER, b"content", b"motion")
    for change, message in (
        (data[:-1], "its motion section has 6 bytes, found 5"),
        (data[: -6 - 8], "its motion section is missing"),
        (data[:-2] + b"xx", "motion section of the bitstream is damaged"),
        (data.replace(b"content", b"Content"), "content section of the bitstream is damaged"),
        (data + b"!", "1 unexpected bytes"),
        (pack_header(replace(HEADER, stream=True, frames=0, window=8)), "a stream of packets"),
    ):
        with pytest.raises(BitstreamError, match=message):
            read_file(change)


def test_clips_that_are_too_long_are_refused_before_work() -> None:
    with pytest.raises(UsageError, match="exceed 128 MiB") as error:
        pack_header(replace(HEADER, frames=40_000))
    assert error.value.hint == "encode --stream for long clips"


def test_frame_rates() -> None:
    assert frame_rate(25.0) == 25
    assert frame_rate(30000 / 1001) == Fraction(30000, 1001)
    assert float(frame_rate(23.976023976023978)) == 23.976023976023978
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="frames per second"):
            frame_rate(fps)


# ---- content ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bits", [1, 3, 8, 9, 16])
def test_quantised_content_comes_back(tmp_path: Path, bits: int) -> None:
    content = torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(bits))
    content[:, :, 2] = 0.25  # a channel without spread
    result = quantized(content, bits)
    spread = content.amax(1, keepdim=True) - content.amin(1, keepdim=True)
    assert ((result - content).abs() <= spread / (2**bits - 1) / 2 + 1e-6).all()
    assert len(result[0, :, 0].unique()) <= 2**bits
    coder = ContentCoder(tiny_method(tmp_path).loaded.model)
    for one, expected in zip(content, result, strict=True):
        coded = coder.encode(one[None], bits)
        assert coded.coding == "uniform"
        assert torch.equal(coder.decode(coded, 6, 5)[0], expected)


def test_content_on_a_grid_is_coded_as_integers(tmp_path: Path) -> None:
    method = tiny_method(tmp_path)
    bottleneck = method.loaded.model.bottleneck
    levels = torch.arange(bottleneck.center.numel()).view_as(bottleneck.center) % 5 - 2
    levels[0, :2] = torch.tensor([40, -3000])  # beyond the table: escaped
    content = (bottleneck.center + bottleneck.step * levels)[None].detach()
    coded = method.content_coder.encode(content)
    assert coded.coding == "grid"
    assert len(coded.payload) < levels.numel()
    assert torch.equal(method.content_coder.decode(coded, *levels.shape), content)
    beside = method.content_coder.encode(content + 1e-3)
    assert beside.coding == "float32"
    assert torch.equal(method.content_coder.decode(beside, *levels.shape), content + 1e-3)


def test_damaged_content(tmp_path: Path) -> None:
    grid, plain = (tiny_method(tmp_path, grid=grid).content_coder for grid in (True, False))
    zeros = zlib.compress(bytes(120))
    for coder, coded, message in (
        (plain, CodedContent("float32", 0, b"xx"), "cannot be inflated"),
        (plain, CodedContent("float32", 0, zlib.compress(bytes(10**7))), "expected 120 bytes"),
        (plain, CodedContent("float32", 0, zlib.compress(bytes(8))), "expected 120 bytes"),
        (plain, CodedContent("float32", 0, zlib.compress(b"\xff" * 120)), "not finite"),
        (plain, CodedContent("uniform", 3, bytes(40) + zlib.compress(b"\x08" * 30)), "a level exceeds 3 bits"),
        (plain, CodedContent("uniform", 3, b""), "cannot be inflated|expected"),
        (plain, CodedContent("grid", 0, zeros), "no such grid"),
        (grid, CodedContent("grid", 0, zeros), "no such grid"),
    ):
        with pytest.raises(BitstreamError, match=message):
            coder.decode(coded, 6, 5)
    tokens, channels = tiny_method(tmp_path).content_shape
    for payload, message in ((b"\x09", "too short"), (b"\x01\x00\x00", "number of escapes")):
        with pytest.raises(BitstreamError, match=message):
            grid.decode(CodedContent("grid", 0, payload), tokens, channels)


# ---- clips -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("grid", "settings", "coding"),
    [
        (True, {}, "grid"),
        (False, {}, "float32"),
        (False, {"content_bits": 5}, "uniform"),
        (True, {"content_bits": 2, "content_frames": 3}, "uniform"),
        (False, {"steps": 3, "guidance": 1.5, "solver": "heun"}, "float32"),
        (True, {"dtype": "bfloat16"}, "grid"),
    ],
)
def test_decoding_gives_the_frames_of_transfer(
    tmp_path: Path, grid: bool, settings: dict[str, object], coding: str
) -> None:
    method = tiny_method(tmp_path, grid=grid, window=8, **settings)
    decoder = tiny_method(tmp_path, grid=grid, window=8)  # the file has the settings
    for case, model in ((pair(5, 40), "adaptive"), (pair(9, 3, 4), "context")):
        [expected] = method.transfer([case], seed=1)
        content, motion = case.content.load(), case.motion.load()
        encoded = encode_clip(
            method, content.frames, motion.frames, motion.fps, seed=pair_seed(1, case.id), model=model
        )
        assert encoded.header.content_coding == coding
        assert encoded.content_bytes * 8 == expected.info["content_bits"]
        decoded = decode_clip(decoder, encoded.data)
        assert decoded.fps == motion.fps
        np.testing.assert_array_equal(decoded.frames, expected.frames)
        frames = content.frames[: method.settings.content_frames]
        np.testing.assert_array_equal(
            decoded.frames, method.transfer_frames(frames, motion.frames, seed=pair_seed(1, case.id))
        )


@pytest.mark.parametrize("model", ["static", "autoregressive"])
@pytest.mark.parametrize("disturbance", [0.0, 0.5 / 64])
def test_models_with_a_file(tmp_path: Path, model: str, disturbance: float) -> None:
    method = tiny_method(tmp_path)
    content, motion = driving(3), driving(20)
    motion_model = ToyMotionModel(method, disturbance)  # 0.5 / 64: every logit is on a rounding boundary
    encoded = encode_clip(method, content, motion, 8.0, model=model, motion_model=motion_model)
    if model == "autoregressive":
        section = encoded.data[-encoded.motion_bytes :]
        assert section[0] == (20 if disturbance else 0)  # escaped frames
    other = ToyMotionModel(method, disturbance + 1e-9)  # another machine
    decoded = decode_clip(method, encoded.data, motion_model=other)
    np.testing.assert_array_equal(decoded.frames, method.transfer_frames(content, motion))
    with pytest.raises(BitstreamError, match="needs the motion model abababababab"):
        decode_clip(method, encoded.data)
    with pytest.raises(UsageError, match=f"the {model} model needs a motion-model file"):
        encode_clip(method, content, motion, 8.0, model=model)
    motion_model.bcd_sha256 = "ef" * 32
    with pytest.raises(UsageError, match="was trained on codes of the weights efefefefefef"):
        encode_clip(method, content, motion, 8.0, model=model, motion_model=motion_model)


def test_the_autoregressive_model_is_smaller_than_the_static_one(tmp_path: Path) -> None:
    method = tiny_method(tmp_path)
    motion = np.repeat(driving(8), 8, axis=0)
    sizes = {
        name: encode_clip(method, motion, motion, 8.0, model=name, motion_model=ToyMotionModel(method)).motion_bytes
        for name in ("static", "autoregressive")
    }
    assert sizes["autoregressive"] < sizes["static"]


def test_other_weights_and_other_shapes(tmp_path: Path) -> None:
    method, other = tiny_method(tmp_path), tiny_method(tmp_path, grid=False)
    data = encode_clip(method, driving(2), driving(4), 8.0).data
    with pytest.raises(BitstreamError, match="was encoded with the weights") as error:
        decode_clip(other, data)
    assert error.value.hint == "--weights FILE"
    header, content, motion = read_file(data)
    for changes, message in (
        ({"entries": 4}, "motion codes, the weights do not"),
        ({"height": 16}, "16x32 pixels, the weights do not"),
        ({"tokens": 2}, "content of 2x"),
    ):
        with pytest.raises(BitstreamError, match=message):
            decode_clip(method, pack_file(replace(header, **changes), content, motion))
    with pytest.raises(UsageError, match=r"the clip has .* pixels, the weights require"):
        encode_clip(method, driving(2)[:, :16], driving(4), 8.0)


def test_python_class(tmp_path: Path) -> None:
    method = tiny_method(tmp_path)
    bcd = BCD.from_pretrained(method.loaded.path or "")
    data = bcd.encode(driving(2), driving(6), fps=12.5, seed=3)
    np.testing.assert_array_equal(bcd.decode(data), bcd(driving(2), driving(6), seed=3)[0])
    assert read_file(data)[0].fps == Fraction(25, 2)


def test_transfer_reports_what_the_metric_needs(tmp_path: Path) -> None:
    method, case = tiny_method(tmp_path), pair(5, 40)
    motion = case.motion.load().frames

    class Halves:
        """Every code has a probability of one half."""

        model = property(lambda self: self)

        def code_bits(self, content: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
            assert content.shape == (1, *method.content_shape)
            return torch.ones(codes.shape)

    assert method.motion_model is None  # these weights are not shipped
    [plain] = method.transfer([case], seed=1)
    method.motion_model = Halves()
    [clip] = method.transfer([case], seed=1)
    assert clip.info["motion_bits_autoregressive"] == len(motion) * method.description.model.quantizer.groups
    assert dict(plain.info) == {key: clip.info[key] for key in plain.info}
    assert clip.info["motion_codes"] == method.motion_codes(motion).tolist()
    values = method.values(motion)
    expected = method.loaded.model.quantizer.histogram(method.pipeline.motion_latents(values))
    np.testing.assert_allclose(clip.info["motion_probabilities"], expected.detach().numpy(), atol=1e-6)


def test_content_bits_do_not_change_the_default(tmp_path: Path) -> None:
    plain, coarse = tiny_method(tmp_path, grid=False), tiny_method(tmp_path, grid=False, content_bits=1)
    assert BCDMethod({}).settings.content_bits is None
    a, b = (method.transfer_frames(driving(4), driving(4)) for method in (plain, coarse))
    assert (a != b).any()
    with pytest.raises(UsageError, match="--set content_bits"):
        BCDMethod({"content_bits": 17})
