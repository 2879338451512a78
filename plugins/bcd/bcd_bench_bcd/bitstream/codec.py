"""Clips as bitstreams and back: `encode_clip` and `decode_clip`.

`decode_clip(method, encode_clip(method, content, motion, fps, seed=s).data)` returns the frames that
`method.transfer_frames(content, motion, seed=s)` returns, byte for byte.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream.autoregressive_model import Autoregressive, MotionModel, pack_frames, unpack_frames
from bcd_bench_bcd.bitstream.code_models import CodeModel, Integers, code_model
from bcd_bench_bcd.bitstream.coder import decode_codes, encode_codes
from bcd_bench_bcd.bitstream.container import HASH, PICTURES, BitstreamError, Header, pack_file, pack_header, read_file
from bcd_bench_bcd.bitstream.content import CodedContent
from bcd_bench_bcd.bitstream.content_section import SentContent, read_content, send_content
from bcd_bench_bcd.inference.method import BCDMethod, Frames

__all__ = [
    "Encoded",
    "Parts",
    "check_weights",
    "code_model_of",
    "decode_clip",
    "decode_motion",
    "encode_clip",
    "encode_motion",
    "frame_rate",
    "header_of",
    "motion_vectors",
    "read_parts",
]


@dataclass(frozen=True)
class Encoded:
    """A bitstream and the bytes of its parts. Lengths and checksums are counted as header."""

    data: bytes
    header: Header
    content_bytes: int
    motion_bytes: int

    @property
    def header_bytes(self) -> int:
        """Bytes that are neither content nor motion."""
        return len(self.data) - self.content_bytes - self.motion_bytes


def frame_rate(fps: float) -> Fraction:
    """Frames per second as a fraction, such as 25 or 30000/1001. Raises `UsageError` if it is not positive."""
    if not 0 < fps < 1e6:
        raise UsageError(f"a bitstream cannot have {fps} frames per second")
    return Fraction(fps).limit_denominator(100_000)


def header_of(
    method: BCDMethod,
    coded: CodedContent,
    content: SentContent,
    *,
    fps: float,
    frames: int,
    size: tuple[int, int],
    seed: int,
    model: str,
    motion_model: MotionModel | None,
) -> Header:
    """The header for content and a clip of `frames` frames of `size` (height, width).

    Raises `UsageError` if the probability model needs a motion model that is missing or of other weights, or does not
    work with content that is sent as pictures.
    """
    if model == "autoregressive" and coded.coding in PICTURES:
        raise UsageError(
            "the autoregressive model predicts from content tokens, and this bitstream has pictures instead, from "
            "which other machines compute slightly different tokens",
            hint="--model context, adaptive or static",
        )
    needs_file = model in ("static", "autoregressive")
    if needs_file and motion_model is None:
        raise UsageError(
            f"the {model} model needs a motion-model file of these weights",
            hint="--motion-model FILE (bcd-bench train bcd-motion creates one), or --model adaptive",
        )
    if needs_file and motion_model is not None and motion_model.bcd_sha256 != method.loaded.codes_sha256:
        raise UsageError(
            f"the motion model was trained on codes of the weights {motion_model.bcd_sha256[:12]}…, not of "
            f"{method.loaded.codes_sha256[:12]}…"
        )
    quantizer = method.loaded.model.quantizer.config
    return Header(
        weights_sha256=method.loaded.sha256[: 2 * HASH],
        fps=frame_rate(fps),
        frames=frames,
        height=size[0],
        width=size[1],
        groups=quantizer.groups,
        entries=quantizer.entries,
        tokens=content.tokens.shape[1],
        channels=content.tokens.shape[2],
        seed=seed,
        model=model,
        content_coding=coded.coding,
        content_bits=coded.bits,
        dtype=method.settings.dtype,
        motion_model_sha256=motion_model.sha256[: 2 * HASH] if needs_file and motion_model is not None else "",
        sampler=None if method.sampler == method.description.sampler else method.sampler,
    )


def encode_clip(
    method: BCDMethod,
    content: Frames,
    motion: Frames,
    fps: float,
    *,
    seed: int = 0,
    model: str = "adaptive",
    motion_model: MotionModel | None = None,
    content_crf: int | None = None,
) -> Encoded:
    """Encode the content of one clip and the motion of another, uint8 [T, H, W, 3] each.

    `seed` is that of the noise (0..2**63 - 1). Sampler, precision, `content_frames` and `content_bits` are those of the
    method. With `content_crf` (0..63), content is sent as pictures coded by AV1 with this CRF, and the decoded clip is
    that of the decoded pictures. Raises `UsageError` for sizes that the weights do not accept, for clips that are too
    long for a file, and for clips without a face if the weights need one.
    """
    for clip in (content, motion):
        method.check_size(clip, UsageError)
    height, width = motion.shape[1:3]
    coded, sent = send_content(method, content, content_crf)
    header = header_of(
        method,
        coded,
        sent,
        fps=fps,
        frames=len(motion),
        size=(height, width),
        seed=seed,
        model=model,
        motion_model=motion_model,
    )
    pack_header(header)  # refuses clips that are too long, before the work
    if sent.frames is not None:
        method.check_faces(sent.frames, motion)
    codes = method.encode_motion([motion]).codes[0].cpu().numpy()
    payload = encode_motion(code_model_of(header, motion_model, sent.tokens), codes)
    return Encoded(pack_file(header, coded.payload, payload), header, len(coded.payload), len(payload))


def decode_clip(method: BCDMethod, data: bytes, *, motion_model: MotionModel | None = None) -> Clip:
    """Decode a file that is not a stream. The method provides weights and device; all settings are in the file.

    Raises `BitstreamError` for data that is damaged, of a newer version, or of other weights.
    """
    parts = read_parts(method, data, motion_model=motion_model)
    header, tokens = parts.header, parts.content.tokens.to(method.device)
    vectors, sampling = motion_vectors(method, parts.codes), sampling_method(method, header)
    drawn = sampling.sample(tokens, vectors, [header.seed])[0]
    frames = sampling.render(drawn, (header.height, header.width), parts.content.frames, tokens[0], vectors[0])
    return Clip(frames, float(header.fps))


@dataclass(frozen=True)
class Parts:
    """What a bitstream contains, before sampling."""

    header: Header
    content: SentContent
    codes: Integers
    """Motion codes int64 [T, N]."""


def read_parts(method: BCDMethod, data: bytes, *, motion_model: MotionModel | None = None) -> Parts:
    """Everything of `decode_clip` but the sampling."""
    header, content_payload, motion_payload = read_file(data)
    check_weights(header, method)
    content = read_content(sampling_method(method, header), header, content_payload)
    codes = decode_motion(code_model_of(header, motion_model, content.tokens), motion_payload, header.frames)
    return Parts(header, content, codes)


def check_weights(header: Header, method: BCDMethod) -> None:
    """Raise `BitstreamError` if a bitstream was not made with the weights of `method`."""
    actual = method.loaded.sha256
    if not actual.startswith(header.weights_sha256):
        raise BitstreamError(
            f"the bitstream was encoded with the weights {header.weights_sha256[:12]}…, not with {actual[:12]}…",
            hint="--weights FILE",
        )
    quantizer = method.loaded.model.quantizer.config
    height, width = method.description.model.frame_size
    same_shape = header.height * width == header.width * height
    if (header.groups, header.entries) != (quantizer.groups, quantizer.entries):
        raise BitstreamError(f"the bitstream has {header.groups}x{header.entries} motion codes, the weights do not")
    if (header.height, header.width) != (height, width) and not (method.description.inference.resize and same_shape):
        raise BitstreamError(f"the bitstream has {header.height}x{header.width} pixels, the weights do not")
    if method.content_shape != (header.tokens, header.channels):
        raise BitstreamError(f"the bitstream has content of {header.tokens}x{header.channels}, the weights do not")


def sampling_method(method: BCDMethod, header: Header) -> BCDMethod:
    """A method with the weights of `method` and the sampler and precision of a bitstream."""
    other = BCDMethod({"dtype": header.dtype})
    other.attach(method.loaded)
    other.sampler = header.sampler or method.description.sampler
    return other


def motion_vectors(method: BCDMethod, codes: Integers) -> Tensor:
    """The quantised motion float32 [1, T, C_m] that codes int64 [T, N] stand for, on the method's device."""
    return method.pipeline.motion_of(torch.from_numpy(codes)[None])


def code_model_of(header: Header, motion_model: MotionModel | None, content: Tensor) -> CodeModel:
    """The probability model that a header names, for content [1, K, C]. Raises `BitstreamError` without its file."""
    if header.motion_model_sha256 and (
        motion_model is None or not motion_model.sha256.startswith(header.motion_model_sha256)
    ):
        raise BitstreamError(
            f"the bitstream needs the motion model {header.motion_model_sha256[:12]}…", hint="--motion-model FILE"
        )
    counts = None if motion_model is None else motion_model.counts.cpu().numpy()
    if header.model == "autoregressive":
        assert motion_model is not None
        assert counts is not None
        given = motion_model
        return Autoregressive(lambda: given.coder(content[0].float().cpu()), counts)
    return code_model(header.model, header.groups, header.entries, counts)


def encode_motion(model: CodeModel, codes: Integers, starts: Collection[int] = ()) -> bytes:
    """Codes int64 [T, N] as a motion section; for the autoregressive model, the list of escaped frames precedes.

    `starts` as in `encode_codes`.
    """
    data = encode_codes(model, codes, starts)
    return pack_frames(model.take_escaped()) + data if isinstance(model, Autoregressive) else data


def decode_motion(model: CodeModel, payload: bytes, frames: int) -> Integers:
    """The codes int64 [T, N] of a motion section. Raises `BitstreamError` for damaged data."""
    if isinstance(model, Autoregressive):
        escaped, size = unpack_frames(payload, frames)
        model.use_escaped(escaped)
        payload = payload[size:]
    return decode_codes(model, payload, frames)
