"""Clips as bitstreams and back: `encode_clip` and `decode_clip`.

`decode_clip(method, encode_clip(method, content, motion, fps, seed=s).data)` returns the frames that
`method.transfer_frames(content, motion, seed=s)` returns, byte for byte.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream.autoregressive_model import Autoregressive, MotionModel, pack_frames, unpack_frames
from bcd_bench_bcd.bitstream.code_models import CodeModel, Integers, code_model
from bcd_bench_bcd.bitstream.coder import decode_codes, encode_codes
from bcd_bench_bcd.bitstream.container import BitstreamError, Header, pack_file, pack_header, read_file
from bcd_bench_bcd.bitstream.content import CodedContent
from bcd_bench_bcd.inference.method import BCDMethod, Frames, fits
from bcd_bench_bcd.inference.pixels import carries_pixels, resized

__all__ = [
    "Encoded",
    "Parts",
    "check_coding",
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


def check_coding(method: BCDMethod) -> None:
    """Raise `UsageError` for weights whose pictures need more than content tokens and motion codes."""
    if method.model is not None and carries_pixels(method.model):
        raise UsageError(
            "weights with pixel_path show the content's own pixels, which a bitstream does not contain",
            hint="use weights without it, such as heads-small",
        )


def header_of(
    method: BCDMethod,
    content: Tensor,
    *,
    fps: float,
    frames: int,
    size: tuple[int, int],
    seed: int,
    model: str,
    motion_model: MotionModel | None,
) -> Header:
    """The header for content [1, K, C] and a clip of `frames` frames of `size` (height, width).

    Raises `UsageError` if the weights have a pixel path, or if the probability model needs a motion model that is
    missing or of other weights.
    """
    check_coding(method)
    needs_file = model in ("static", "autoregressive")
    if needs_file and motion_model is None:
        raise UsageError(
            f"the {model} model needs a motion-model file of these weights",
            hint="--motion-model FILE (bcd-bench train bcd-motion creates one), or --model adaptive",
        )
    if needs_file and motion_model is not None and motion_model.bcd_sha256 != method.loaded.sha256:
        raise UsageError(
            f"the motion model was trained on codes of the weights {motion_model.bcd_sha256[:12]}…, not of "
            f"{method.loaded.sha256[:12]}…"
        )
    quantizer = method.description.model.quantizer
    return Header(
        weights_sha256=method.loaded.sha256,
        fps=frame_rate(fps),
        frames=frames,
        height=size[0],
        width=size[1],
        groups=quantizer.groups,
        entries=quantizer.entries,
        tokens=content.shape[1],
        channels=content.shape[2],
        seed=seed,
        model=model,
        dtype=method.settings.dtype,
        motion_model_sha256=motion_model.sha256 if needs_file and motion_model is not None else "",
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
) -> Encoded:
    """Encode the content of one clip and the motion of another, uint8 [T, H, W, 3] each.

    `seed` is that of the noise (0..2**63 - 1). Sampler, precision, `content_frames` and `content_bits` are those of the
    method. Raises `UsageError` for sizes that the weights do not accept, and for clips that are too long for a file.
    """
    for clip in (content, motion):
        if not fits(clip, method.description):
            size = method.description.model.frame_size
            raise UsageError(f"the clip has {clip.shape[1:3]} pixels, the weights require {size}")
    height, width = motion.shape[1:3]
    tokens = method.encode_content([content[: method.settings.content_frames]])
    coded = method.content_coder.encode(tokens, method.settings.content_bits)
    header = header_of(
        method,
        tokens,
        fps=fps,
        frames=len(motion),
        size=(height, width),
        seed=seed,
        model=model,
        motion_model=motion_model,
    )
    header = replace(header, content_coding=coded.coding, content_bits=coded.bits)
    pack_header(header)  # refuses clips that are too long, before the work
    codes = method.encode_motion([motion]).codes[0].cpu().numpy()
    tokens = method.content_coder.decode(coded, header.tokens, header.channels)  # what the decoder will have
    payload = encode_motion(code_model_of(header, motion_model, tokens), codes)
    return Encoded(pack_file(header, coded.payload, payload), header, len(coded.payload), len(payload))


def decode_clip(method: BCDMethod, data: bytes, *, motion_model: MotionModel | None = None) -> Clip:
    """Decode a file that is not a stream. The method provides weights and device; all settings are in the file.

    Raises `BitstreamError` for data that is damaged, of a newer version, or of other weights.
    """
    parts = read_parts(method, data, motion_model=motion_model)
    header, content = parts.header, parts.content.to(method.device)
    vectors = motion_vectors(method, parts.codes)
    frames = sampling_method(method, header).sample(content, vectors, [header.seed])[0]
    return Clip(resized(frames, (header.height, header.width)), float(header.fps))


@dataclass(frozen=True)
class Parts:
    """What a bitstream contains, before sampling."""

    header: Header
    content: Tensor
    """Content float32 [1, K, C], on the CPU."""
    codes: Integers
    """Motion codes int64 [T, N]."""


def read_parts(method: BCDMethod, data: bytes, *, motion_model: MotionModel | None = None) -> Parts:
    """Everything of `decode_clip` but the sampling."""
    header, content_payload, motion_payload = read_file(data)
    check_weights(header, method)
    coded = CodedContent(header.content_coding, header.content_bits, content_payload)
    content = method.content_coder.decode(coded, header.tokens, header.channels)
    codes = decode_motion(code_model_of(header, motion_model, content), motion_payload, header.frames)
    return Parts(header, content, codes)


def check_weights(header: Header, method: BCDMethod) -> None:
    """Raise `BitstreamError` if a bitstream was not made with the weights of `method`."""
    actual = method.loaded.sha256
    if header.weights_sha256 != actual:
        raise BitstreamError(
            f"the bitstream was encoded with the weights {header.weights_sha256[:12]}…, not with {actual[:12]}…",
            hint="--weights FILE",
        )
    quantizer = method.description.model.quantizer
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
    if header.motion_model_sha256 and (motion_model is None or motion_model.sha256 != header.motion_model_sha256):
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
