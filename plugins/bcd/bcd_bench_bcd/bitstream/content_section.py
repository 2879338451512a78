"""The content section of a bitstream: tokens, or pictures from which the decoder computes them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream.container import PICTURES, BitstreamError, Header
from bcd_bench_bcd.bitstream.content import CodedContent
from bcd_bench_bcd.bitstream.pictures import check_pictures, decode_pictures, encode_pictures
from bcd_bench_bcd.inference.landmarks import NoFaceError
from bcd_bench_bcd.inference.method import BCDMethod, Frames
from bcd_bench_bcd.inference.pixels import carries_pixels

__all__ = ["SentContent", "read_content", "send_content"]


@dataclass(frozen=True)
class SentContent:
    """The content of one clip as the decoder has it."""

    tokens: Tensor
    """float32 [1, K, C]."""
    frames: Frames | None
    """uint8 [S, H, W, 3], if the section has pictures."""


def send_content(method: BCDMethod, clip: Frames, crf: int | None = None) -> tuple[CodedContent, SentContent]:
    """Encode the content of a clip uint8 [T, H, W, 3]: pictures if the weights show them or there is a `crf`, else
    tokens. `content_frames` and `content_bits` are those of the method.

    Raises `UsageError` for content that is too large, and for `content_bits` with pictures.
    """
    frames, bits = clip[: method.settings.content_frames], method.settings.content_bits
    if crf is None and not carries_pixels(method.loaded.model):
        tokens = method.encode_content([frames])
        coded = method.content_coder.encode(tokens, bits)
        return coded, SentContent(method.content_coder.decode(coded, *tokens.shape[1:]), None)
    if bits is not None:
        raise UsageError(
            "content_bits quantises content tokens, and this bitstream has pictures instead",
            hint="use --content-crf, and not --content-bits",
        )
    check_pictures(frames)
    coded = encode_pictures(frames, crf)
    check_pictures(frames, coded)
    shown = frames if crf is None else decode_pictures(coded)
    return coded, SentContent(method.encode_content([shown]).cpu(), shown)


def read_content(method: BCDMethod, header: Header, payload: bytes) -> SentContent:
    """Decode the content section of a bitstream of the weights of `method`, which has the bitstream's settings.

    Raises `BitstreamError` for damaged data, and for pictures that the weights do not accept.
    """
    coded = CodedContent(header.content_coding, header.content_bits, payload)
    pictures = coded.coding in PICTURES
    if carries_pixels(method.loaded.model) and not pictures:
        raise BitstreamError("the content section does not fit the weights: they need pictures")
    if not pictures:
        return SentContent(method.content_coder.decode(coded, header.tokens, header.channels), None)
    frames = decode_pictures(coded)
    method.check_size(frames, BitstreamError)
    try:
        method.check_faces(frames)
    except NoFaceError as error:
        raise BitstreamError(f"the content section does not fit the weights: {error}") from None
    return SentContent(method.encode_content([frames]).cpu(), frames)
