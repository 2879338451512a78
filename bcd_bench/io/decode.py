"""Decoding of video files: accepted formats, stream selection, frame order, and detection of damage."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

from bcd_bench.io.integrity import Checksums, SliceChecksums, is_animated_webp, missing_end
from bcd_bench.io.orientation import Turn, exif_turn, matrix_turn
from bcd_bench.io.rgb import Converter, Shown
from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError, UsageError, printable

__all__ = ["OpenVideo", "container_options", "file_address", "open_video", "supported_av"]

OLDEST_AV, NEWEST_AV = (17, 1), (19, 0)
"""The oldest PyAV version that passes all reading tests, and the first untested one. Versions before 17 convert every
video as limited-range BT.601; 17.0 crashes on MPEG program streams."""
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,apng,asf,flv,mpeg,mpegts,mpegvideo,m4v,h264,hevc,ivf,obu,nut,mxf,dv,"
    "mjpeg,yuv4mpegpipe,webp,webp_anim,image2,png_pipe,jpeg_pipe,bmp_pipe,webp_pipe,tiff_pipe,gif_pipe,pgm_pipe,ppm_pipe,"
    "pam_pipe,pbm_pipe,qoi_pipe,jpegls_pipe,j2k_pipe,exr_pipe,dpx_pipe"
)
"""FFmpeg demuxers of single files. Demuxers of playlists and lists of files (hls, dash, concat, sdp, …) are
excluded."""
PICTURES = ("_pipe", "image2")
"""Name patterns of the demuxers of still images."""
STRICT = {"err_detect": "crccheck+bitstream+buffer+explode"}
"""Decoder options for `STRICT_CODECS`: an error discards the frame, which would otherwise be partly decoded
silently."""
STRICT_CODECS = ("hevc", "mjpeg", "png", "apng")
"""Other decoders either mark damaged frames anyway (H.264, MPEG-4) or reject valid files (TIFF)."""
ONE_BY_ONE = ("h264", "hevc")
"""Codecs in which every packet is one displayed frame and whose decoders skip undecodable frames."""
SMALL = 512 * 512
"""Frame area in pixels up to which starting threads costs more than it saves."""
LARGEST_RATE = 1000.0
"""Frames per second. A higher stated rate is the timestamp clock (90000, …), not a frame rate."""


def supported_av() -> None:
    """Raise `UsageError` if the installed PyAV is not a version whose colour conversion has been tested."""
    import av

    installed = tuple(int(part) for part in re.findall(r"[0-9]+", av.__version__)[:2])
    if not OLDEST_AV <= installed < NEWEST_AV:
        raise UsageError(
            f"PyAV {av.__version__} is installed; reading videos requires {OLDEST_AV[0]}.{OLDEST_AV[1]} or newer, "
            f"below {NEWEST_AV[0]}",
            hint=f'pip install "av>={OLDEST_AV[0]}.{OLDEST_AV[1]},<{NEWEST_AV[0]}"',
        )


@contextmanager
def open_video(path: Path | str) -> Iterator[OpenVideo]:
    """Open the video in a file for reading once.

    Raises `OSError` if the file cannot be opened or read, `UnsupportedVideoError` if this installation lacks the
    decoder, and `UnreadableVideoError` if the content is invalid, also within the context. The messages do not include
    the file name.
    """
    import av

    supported_av()
    path = Path(path)
    _plain_file(path)
    missing = missing_end(path)
    if missing:
        raise UnreadableVideoError(f"damaged: {missing}")
    if is_animated_webp(path):
        raise UnsupportedVideoError("an animated WebP, which FFmpeg does not decode")
    opened = False
    try:
        with av.open(file_address(path), options=container_options(), metadata_errors="replace") as container:
            opened = True
            yield OpenVideo(path, container)
    except av.error.FFmpegError as error:
        raise _told(error, opened=opened) from None


def file_address(path: Path) -> str:
    """The URL of a file, so that FFmpeg never interprets part of its name as a protocol or a pattern."""
    return "file:" + os.path.abspath(path)  # noqa: PTH100 - keeps links


def container_options() -> dict[str, str]:
    """Options for opening a file: only formats of single files, and nothing but the file itself is read."""
    return {"protocol_whitelist": "file", "format_whitelist": FORMATS, "pattern_type": "none"}


def _plain_file(path: Path) -> None:
    """Raise `OSError` if a file cannot be opened or is not a regular file: reading from a pipe could block forever."""
    try:
        mode = path.stat().st_mode
    except ValueError as error:  # a null byte in the name
        raise UsageError(printable(f"{path} is not a valid file name: {error}")) from None
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "Is a directory", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(22, "not a regular file", str(path))
    with path.open("rb"):
        pass


def _told(error: Exception, *, opened: bool) -> Exception:
    """Translate an FFmpeg error into a bcd-bench error: invalid content, missing decoder, or a system error."""
    import av

    reason = getattr(error, "strerror", None) or str(error)
    lacking = ("DecoderNotFoundError", "DemuxerNotFoundError", "ProtocolNotFoundError", "PatchWelcomeError")
    if isinstance(error, tuple(getattr(av.error, name) for name in lacking)):
        return UnsupportedVideoError(f"the installed PyAV cannot read it: {reason}")
    if not opened and isinstance(error, av.error.ArgumentError):  # raised for formats that are not on the list
        return UnreadableVideoError("cannot be decoded: unsupported format")
    if isinstance(error, OSError):
        return OSError(error.errno, reason)
    return UnreadableVideoError(f"cannot be decoded: {reason}")


class OpenVideo:
    """One video stream of an open file: its metadata and its frames."""

    def __init__(self, path: Path, container: Any) -> None:
        self._path, self._container = path, container
        self._stream = _best_stream(container)
        codec = self._stream.codec_context
        if codec is None:
            raise UnsupportedVideoError("the installed PyAV has no decoder for it")
        self.format: str = container.format.name
        self.is_picture = self.format.endswith(PICTURES)
        self.width, self.height = int(codec.width), int(codec.height)
        """Pixels as stored, before rotation and scaling; 0 if the file does not state them."""
        self.fps = _rate(self._stream)
        """Frames per second; 25 if the file states no valid rate."""
        aspect = self._stream.sample_aspect_ratio
        self._aspect = Fraction(aspect) if aspect else Fraction(1)
        self._last: float | None = None
        """Timestamp of the last frame in seconds, for messages."""
        # FFmpeg's handling of EXIF differs between versions and formats, so it is read here.
        self._picture_turn = exif_turn(path) if self.is_picture else None

    def frames(self) -> Iterator[Shown]:
        """Yield every frame in display order, converted lazily. Nothing is decoded ahead.

        Raises `UnreadableVideoError` at the first damage, for interlaced frames, and if the frame size changes.
        """
        codec, large = self._stream.codec_context, self.width * self.height > SMALL
        # Not frame threading, which reports errors with later frames, some of which PyAV drops.
        self._stream.thread_type = "SLICE"
        codec.thread_count = 0 if large else 1
        if codec.name in STRICT_CODECS:
            codec.options = dict(STRICT)
        converter = Converter(self._aspect, threads=0 if large else 1)
        slices = SliceChecksums() if codec.name == "ffv1" else None
        usual, size = 1 / self.fps, None
        due, n_frames, first = list[int | None](), 0, None
        for packet in self._packets():
            last = self._last
            if packet.size > 0 and not packet.is_discard:
                due.append(packet.pts)
            if slices is not None and packet.size > 0 and not slices.hold(bytes(packet)):
                raise _damaged(last)
            for frame in self._decoded(packet):
                seconds = frame.time
                if seconds is None or (last is not None and seconds <= last):
                    seconds = 0.0 if last is None else last + usual
                if frame.is_corrupt:
                    raise _damaged(seconds)
                if frame.interlaced_frame:
                    raise UnreadableVideoError(
                        "interlaced: every frame combines two points in time",
                        hint="deinterlace it with ffmpeg -i IN -vf bwdif OUT",
                    )
                if size is not None and size != (frame.width, frame.height):
                    raise UnreadableVideoError("the frame size changes within the video")
                if not n_frames:
                    first = frame.pts
                self._last = last = seconds
                size, n_frames = (frame.width, frame.height), n_frames + 1
                yield Shown(frame, seconds, converter, self._turn(frame))
        if codec.name in ONE_BY_ONE and first is not None and None not in due:
            # Frames before the first displayed one may refer to removed frames; no player shows them.
            expected = sum(pts >= first for pts in due if pts is not None)
            if n_frames < expected:
                raise UnreadableVideoError(f"damaged: {n_frames} of {expected} frames can be decoded")

    def coded_frames(self) -> int:
        """Number of stored and displayed frames, counted without decoding. Raises `UnreadableVideoError`."""
        return sum(packet.size > 0 and not packet.is_discard for packet in self._packets())

    def _packets(self) -> Iterator[Any]:
        """Yield the packets of the stream, verified as far as the container allows."""
        n_packets, ended = 0, 0
        with Checksums(self._path, self.format) as checksums:
            for packet in self._container.demux(self._stream):
                if packet.size > 0:
                    n_packets += 1
                    ended = (packet.pos or 0) + packet.size
                    if packet.is_corrupt or not checksums.hold_up_to(ended):
                        raise _damaged(self._last)
                yield packet
        # Only MP4 states the number of coded frames.
        if n_packets < self._stream.frames and "mp4" in self.format:
            raise UnreadableVideoError(f"damaged: {n_packets} of {self._stream.frames} frames are present")
        if self.format == "yuv4mpegpipe" and ended != self._path.stat().st_size:
            raise UnreadableVideoError("damaged: the last frame is truncated")

    def _decoded(self, packet: Any) -> list[Any]:
        import av

        try:
            return list(packet.decode())
        except av.error.InvalidDataError:
            raise _damaged(self._last) from None

    def _turn(self, frame: Any) -> Turn:
        return self._picture_turn if self._picture_turn is not None else matrix_turn(frame)


def _damaged(seconds: float | None) -> UnreadableVideoError:
    return UnreadableVideoError(f"damaged {seconds or 0.0:.2f} seconds in")


def _best_stream(container: Any) -> Any:
    """The stream that a player would show: FFmpeg's choice, but never cover art."""
    from av.stream import Disposition

    moving = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not moving:
        raise UnreadableVideoError("no video stream")
    best = container.streams.best("video")
    if any(best is stream for stream in moving):
        return best
    return max(moving, key=lambda stream: bool(stream.disposition & Disposition.default))


def _rate(stream: Any) -> float:
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 0 < rate <= LARGEST_RATE:
            return float(rate)
    return 25.0
