"""Content as pictures instead of tokens: lossless (FFV1), or small (AV1).

Weights with `pixel_path` show the content's own pixels, so their bitstreams contain the content's frames. For other
weights, pictures are smaller than exact tokens. In both cases the decoder computes the tokens from the pictures.
"""

from __future__ import annotations

import io
import itertools
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.encode import encode_av1
from bcd_bench.io.rgb import Converter
from bcd_bench.io.video import encode_lossless
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UnreadableVideoError, UsageError
from bcd_bench_bcd.bitstream.container import MAX_OUTPUT_BYTES, MAX_SECTION, PICTURES, BitstreamError
from bcd_bench_bcd.bitstream.content import CodedContent

__all__ = ["check_pictures", "decode_pictures", "encode_pictures"]

Frames = npt.NDArray[np.uint8]
SIZE = struct.Struct("<HHH")
"""Frames, height and width, before the coded frames."""
FORMS = {"ffv1": ("matroska", "ffv1"), "av1": ("obu", "libdav1d")}
"""FFmpeg's demuxer and decoder of every coding."""


def check_pictures(frames: Frames, coded: CodedContent | None = None) -> None:
    """Raise `UsageError` if content frames uint8 [T, H, W, 3], or their code, are too large for a bitstream."""
    large = frames.size > MAX_OUTPUT_BYTES or max(frames.shape[:3]) >= 1 << 16
    if large or (coded is not None and len(coded.payload) > MAX_SECTION):
        raise UsageError(
            f"the content is too large for a bitstream: {len(frames)} frames of {frames.shape[1]}x{frames.shape[2]}",
            hint="--set content_frames=N encodes only the first N frames",
        )


def encode_pictures(frames: Frames, crf: int | None = None) -> CodedContent:
    """Encode uint8 [T, H, W, 3]: lossless without `crf`, else as AV1 with this constant rate factor (0..63).

    Raises `UsageError` for frames that the coding does not support.
    """
    head = SIZE.pack(*frames.shape[:3])
    try:
        if crf is None:
            return CodedContent("ffv1", 0, head + encode_lossless(Clip(frames, 25.0, "content")))
        return CodedContent("av1", 0, head + encode_av1(frames, crf))
    except ValueError as error:
        raise UsageError(str(error)) from None


def decode_pictures(coded: CodedContent) -> Frames:
    """The frames uint8 [T, H, W, 3] of coded pictures. Raises `BitstreamError` for damaged data."""
    import av

    if coded.coding not in PICTURES or len(coded.payload) <= SIZE.size:
        raise BitstreamError("the content section of the bitstream is damaged: it is too short")
    count, height, width = SIZE.unpack_from(coded.payload)
    if not 0 < count * height * width * 3 <= MAX_OUTPUT_BYTES:
        raise BitstreamError(f"the content section of the bitstream is invalid: {count} frames of {height}x{width}")
    form, decoder = FORMS[coded.coding]
    even = (height + height % 2, width + width % 2) if coded.coding == "av1" else (height, width)
    found: list[Frames] = []
    container: Any
    try:
        with av.open(
            io.BytesIO(coded.payload[SIZE.size :]), format=form, options={"format_whitelist": form}
        ) as container:
            [stream] = container.streams.video
            if stream.codec_context.codec.name != decoder:
                raise BitstreamError(f"the content section of the bitstream is invalid: {stream.codec_context.name}")
            stream.codec_context.options = {"max_pixels": str((even[0] + 64) * (even[1] + 64))}
            converter = Converter(Fraction(1), threads=1)
            for frame in itertools.islice(container.decode(stream), count + 1):
                if (frame.height, frame.width) != even or frame.is_corrupt:
                    raise BitstreamError("the content section of the bitstream is damaged: a frame has another size")
                found.append(converter.rgb(frame)[:height, :width])
    except (av.error.FFmpegError, UnreadableVideoError, ValueError) as error:
        raise BitstreamError(f"the content section of the bitstream is damaged: {error}") from None
    if len(found) != count:
        raise BitstreamError(f"the content section of the bitstream is damaged: {len(found)} of {count} frames")
    return np.ascontiguousarray(np.stack(found))
