"""The one encoder of videos: lossless FFV1 in Matroska, H.264 in MP4 that every player and browser shows, bare AV1."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.rgb import ENCODING
from bcd_bench.util.scheduling import policy_kept

if TYPE_CHECKING:
    import av

    from bcd_bench.io.audio import AudioTrack

__all__ = ["encode", "encode_av1", "frame_rate"]

PIXELS = "bgr0"
"""8-bit RGB layout of FFV1: blue, green, red and an unused byte. No colour conversion, hence lossless."""
SMALL = 128 * 128
"""Area in pixels up to which a frame is one slice (smallest file); larger frames have four slices, one per thread."""
BT709, LIMITED, FULL = 1, 1, 2
"""Numbers of ITU-T H.273: primaries, transfer and matrix of BT.709, and the two ranges. Players guess the matrix of a
file that states none by its size, so it is stated."""
AV1_PRESET = "2"
"""Speed of SVT-AV1 against rate, -1 to 13."""
AUDIO_BITS = 96_000
"""Bits per second and channel of AAC."""


def frame_rate(fps: float) -> Fraction:
    """A frame rate as a fraction that a container can store: 29.97 becomes 30000/1001. Raises `ValueError`."""
    for denominator in (1, 1001):
        rate = Fraction(round(fps * denominator), denominator)
        if abs(float(rate) - fps) < 1e-6 * fps:
            return rate
    rate = Fraction(fps).limit_denominator(100_000)
    if rate <= 0:
        raise ValueError(f"a video file cannot store {fps} frames per second")
    return rate


def encode(
    target: Any,
    frames: Iterable[npt.NDArray[np.uint8]],
    fps: float,
    *,
    lossless: bool,
    tags: Mapping[str, str] | None = None,
    audio: AudioTrack | None = None,
    options: Mapping[str, str] | None = None,
) -> int:
    """Encode frames uint8 [H, W, 3] of one size into `target`, a path or a binary file. Returns their number.

    H.264 repeats the last row and column if a side is odd (4:2:0), and states BT.709 in limited range. An MP4 that is
    written to a path has its index first ("faststart"), so that it plays while it downloads. `tags` become metadata of
    the container. `audio` becomes AAC as long as the frames, at most; if it is damaged, it ends there and
    `audio.problem` says so. `options` are those of libx264.
    """
    import av

    form, settings = ("matroska", {"fflags": "+bitexact"}) if lossless else ("mp4", {})
    if not lossless:
        flags = (["faststart"] if isinstance(target, str) else []) + (["use_metadata_tags"] if tags else [])
        settings = {"movflags": "+" + "+".join(flags)} if flags else {}
    count = 0
    with av.open(target, "w", format=form, options=settings) as container:
        container.metadata.update(tags or {})
        stream: Any = container.add_stream("ffv1" if lossless else "libx264", rate=frame_rate(fps))
        stream.pix_fmt = PIXELS if lossless else "yuv420p"
        if options and not lossless:
            stream.codec_context.options = dict(options)
        sound = None if audio is None else _Sound(container, audio)
        convert = _to_bgr0 if lossless else _ToYuv()
        for rgb in frames:
            if not lossless:
                rgb = np.pad(rgb, ((0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)), mode="edge")
            if count == 0:
                _open_stream(stream, *rgb.shape[:2], lossless=lossless)
            frame = convert(rgb)
            frame.pts = count
            count += 1
            container.mux(stream.encode(frame))
            if sound is not None:
                sound.write_until(count / fps)
        if count:
            container.mux(stream.encode(None))
            if sound is not None:
                sound.close()
    return count


def encode_av1(frames: npt.NDArray[np.uint8], crf: int) -> bytes:
    """Encode uint8 [T, H, W, 3] as an AV1 elementary stream with one key frame, without container.

    `crf` is SVT-AV1's constant rate factor (0..63): the larger, the smaller the stream. If a side is odd, the last row
    or column is repeated. Raises `ValueError` if the encoder is missing or refuses.
    """
    import av

    os.environ.setdefault("SVT_LOG", "1")  # errors only
    rgb = np.pad(frames, ((0, 0), (0, frames.shape[1] % 2), (0, frames.shape[2] % 2), (0, 0)), mode="edge")
    convert, buffer = _ToYuv(), io.BytesIO()
    try:
        with policy_kept(), av.open(buffer, "w", format="obu") as container:
            stream: Any = container.add_stream("libsvtav1", rate=25)  # not stored
            stream.pix_fmt = "yuv420p"
            stream.codec_context.options = {"crf": str(crf), "preset": AV1_PRESET, "g": "65535"}
            _open_stream(stream, *rgb.shape[1:3], lossless=False)
            for index, one in enumerate(rgb):
                frame = convert(one)
                frame.pts = index
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"AV1 does not support {list(frames.shape)} with CRF {crf}: {error}") from error
    return buffer.getvalue()


def _open_stream(stream: Any, height: int, width: int, *, lossless: bool) -> None:
    import av

    stream.height, stream.width = height, width
    codec = stream.codec_context
    if lossless:
        codec.flags |= int(av.codec.context.Flags.bitexact)
        codec.thread_count = 1
        codec.options = {"level": "3", "slicecrc": "1", "slices": "1" if height * width <= SMALL else "4"}
    else:
        codec.color_primaries = codec.color_trc = codec.colorspace = BT709
        codec.color_range = LIMITED


def _to_bgr0(rgb: npt.NDArray[np.uint8]) -> av.VideoFrame:
    import av

    height, width = rgb.shape[:2]
    frame = av.VideoFrame(width, height, PIXELS)
    plane = frame.planes[0]
    rows = np.zeros((height, plane.line_size // 4, 4), np.uint8)
    rows[:, :width, :3] = rgb[..., ::-1]
    plane.update(rows.tobytes())
    return frame


class _ToYuv:
    """Converts RGB to 4:2:0 in BT.709 and limited range, as stated in the stream."""

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()

    def __call__(self, rgb: npt.NDArray[np.uint8]) -> av.VideoFrame:
        import av

        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), "rgb24")
        return self._reformatter.reformat(
            frame,
            format="yuv420p",
            dst_colorspace=BT709,
            src_color_range=FULL,
            dst_color_range=LIMITED,
            interpolation=ENCODING,
        )


class _Sound:
    """Encodes a track as AAC beside the frames, so that both are interleaved in the file."""

    def __init__(self, container: Any, track: AudioTrack) -> None:
        self._container, self._track = container, track
        self._stream: Any = container.add_stream("aac", rate=track.rate)
        self._stream.layout = track.layout
        self._stream.bit_rate = AUDIO_BITS * track.channels
        self._blocks: Iterator[npt.NDArray[np.float32]] = track.blocks()
        self._waiting = np.zeros((track.channels, 0), np.float32)
        self._written = 0

    def write_until(self, seconds: float) -> None:
        import av

        wanted = round(seconds * self._track.rate) - self._written
        while self._waiting.shape[1] < wanted:
            block = next(self._blocks, None)
            if block is None:
                break
            self._waiting = np.concatenate([self._waiting, block], axis=1)
        samples, self._waiting = np.split(self._waiting, [wanted], axis=1)
        if samples.shape[1]:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), "fltp", self._track.layout)
            frame.sample_rate, frame.pts = self._track.rate, self._written
            frame.time_base = Fraction(1, self._track.rate)
            self._written += samples.shape[1]
            self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._written:
            self._container.mux(self._stream.encode(None))
