"""The sound of a video file, decoded in pieces and aligned with its frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.io.decode import container_options, file_address

__all__ = ["AudioTrack", "audio_of"]

RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000)
"""Samples per second that are kept; others become 48,000, since not every player accepts them in AAC."""
GAP = 0.02
"""Seconds by which time stamps of successive pieces may disagree with their lengths before silence is inserted."""


@dataclass
class AudioTrack:
    """The sound of the video at `path` from `start`, a time stamp in seconds, at `rate` samples per second."""

    path: Path
    start: float
    rate: int
    channels: int
    """1, or 2 for everything else: more channels are mixed down to stereo."""
    problem: str = field(default="", init=False)
    """Why the sound ended early, after `blocks`; empty if it did not."""

    @property
    def layout(self) -> str:
        return "mono" if self.channels == 1 else "stereo"

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield float32 [channels, samples] in [-1, 1], gapless from `start`; silence fills what the file leaves out.

        If the sound cannot be decoded, it ends there and `problem` is set.
        """
        import av

        position = 0
        try:
            with av.open(file_address(self.path), options=container_options(), metadata_errors="replace") as container:
                resampler = av.AudioResampler(format="fltp", layout=self.layout, rate=self.rate)
                for piece in _pieces(container, resampler):
                    samples = np.asarray(piece.to_ndarray(), np.float32)
                    first = position if piece.time is None else round((piece.time - self.start) * self.rate)
                    if position and abs(first - position) < GAP * self.rate:
                        first = position  # rounded time stamps
                    if first > position:
                        yield np.zeros((self.channels, first - position), np.float32)
                        position = first
                    samples = samples[:, position - first :]
                    if samples.shape[1]:
                        position += samples.shape[1]
                        yield samples
        except av.error.FFmpegError as error:
            self.problem = f"the sound of {self.path.name} ends after {position / self.rate:.1f} s: {error.strerror}"


def _pieces(container: Any, resampler: Any) -> Iterator[Any]:
    for frame in container.decode(container.streams.best("audio")):
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def audio_of(path: Path, start: float) -> AudioTrack | None:
    """The sound of a video file from the time stamp `start` in seconds; None if it has none that can be decoded."""
    import av

    try:
        with av.open(file_address(path), options=container_options(), metadata_errors="replace") as container:
            stream: Any = container.streams.best("audio")
            codec = None if stream is None else stream.codec_context
            if codec is None or not codec.sample_rate or not codec.channels:
                return None
            rate = int(codec.sample_rate) if codec.sample_rate in RATES else 48000
            return AudioTrack(path, start, rate, 1 if codec.channels == 1 else 2)
    except av.error.FFmpegError:
        return None
