"""Clips as elementary streams of video codecs, without container and metadata, and back."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.types.errors import UsageError
from bcd_bench.util.scheduling import policy_kept

__all__ = ["CODECS", "Codec", "without_messages"]

Frames = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Codec:
    """An encoder of FFmpeg, and the stream that it writes."""

    encoder: str
    form: str
    """Elementary stream: "h264", "hevc" or "obu"."""
    most: int
    """Largest CRF, which gives the lowest rate."""
    silent: tuple[tuple[str, str], ...] = ()
    """Options that keep the encoder from writing to the terminal or into the stream."""

    def encode(self, frames: Frames, fps: float, crf: int, preset: str) -> bytes:
        """Encode uint8 [T, H, W, 3] with one key frame. Raises `UsageError` if the encoder is missing or refuses."""
        import av

        if not 0 <= crf <= self.most:
            raise UsageError(f"{self.encoder}: --set crf={crf}: must be 0 to {self.most}")
        buffer = io.BytesIO()
        try:
            with policy_kept(), av.open(buffer, "w", format=self.form) as container:
                stream: Any = container.add_stream(self.encoder, rate=Fraction(fps).limit_denominator(1001))
                stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
                context = stream.codec_context
                context.gop_size = len(frames)
                context.thread_count = 1
                context.options = {"crf": str(crf), "preset": preset, **dict(self.silent)}
                for index, rgb in enumerate(frames):
                    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
                    frame.pts = index
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        except (av.error.FFmpegError, ValueError) as error:
            raise UsageError(
                f"{self.encoder} cannot encode {list(frames.shape)} with preset {preset}: {error}"
            ) from None
        data = buffer.getvalue()
        return without_messages(data) if self.form == "h264" else data

    def decode(self, data: bytes) -> Frames:
        """The frames uint8 [T, H, W, 3] of a stream that `encode` wrote."""
        import av

        container: Any
        with av.open(io.BytesIO(data), format=self.form) as container:
            frames: Frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
        return frames


def without_messages(data: bytes) -> bytes:
    """An H.264 stream without its SEI units, in which x264 writes its version and settings (600 bytes)."""
    starts = [i for i in range(len(data) - 3) if data[i : i + 3] == b"\0\0\1"]
    units = [data[start:end].rstrip(b"\0") for start, end in zip(starts, [*starts[1:], len(data)], strict=True)]
    return b"".join(b"\0" + unit for unit in units if unit[3] & 31 != 6)


os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 reports errors only
CODECS = {
    "x264": Codec("libx264", "h264", 51),
    "x265": Codec("libx265", "hevc", 51, (("x265-params", "log-level=error:info=0"),)),
    "svt-av1": Codec("libsvtav1", "obu", 63),
}
