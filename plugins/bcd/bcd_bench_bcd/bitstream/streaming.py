"""Streams: frames in, packets out, and packets in, frames out, with a bounded delay.

The first packet has the header and the content. Every later packet has the motion codes of some frames, a sequence
number and a CRC, and can be decoded once its predecessors have arrived. Encoder and decoder work in windows of
`Header.window` frames that overlap by half:

- The encoder averages the motion latents of overlapping windows, as `transfer` does for clips longer than the weights'
  window: the codes are those of the whole clip. A frame's codes are sent at most 1.5 windows after the frame.
- The decoder samples one window after the other. Overlapping windows share their noise, and their frames are blended
  linearly. It returns frames once their window is complete.

A clip that fits into one window has the very frames of `transfer`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream.autoregressive_model import MotionModel
from bcd_bench_bcd.bitstream.code_models import Integers
from bcd_bench_bcd.bitstream.codec import (
    check_weights,
    code_model_of,
    decode_motion,
    encode_motion,
    header_of,
    motion_vectors,
    sampling_method,
)
from bcd_bench_bcd.bitstream.container import (
    BitstreamError,
    Packet,
    first_packet_size,
    pack_header,
    pack_packet,
    pack_section,
    packet_size,
    read_header,
    read_packet,
    read_section,
)
from bcd_bench_bcd.bitstream.content_section import read_content, send_content
from bcd_bench_bcd.extensions.model import landmarks_of
from bcd_bench_bcd.inference.landmarks import NoFaceError
from bcd_bench_bcd.inference.method import BCDMethod, Frames
from bcd_bench_bcd.inference.sliding_window import triangular_window

__all__ = ["DEFAULT_WINDOW", "PacketLost", "StreamDecoder", "StreamEncoder", "read_packets"]

DEFAULT_WINDOW = 16
"""Frames of a window for weights that have none."""
CHUNK = 16
"""Bytes that are read at a time until the size of a packet is known."""


class PacketLost(BitstreamError):
    """A packet is missing, or came twice or too late. The decoder skips it and may continue, see `StreamDecoder`."""


class StreamEncoder:
    """Encode a driving clip while it arrives.

    >>> encoder = StreamEncoder(method, photo, fps=25, size=(128, 128))
    >>> for frame in camera:
    ...     for packet in encoder.push(frame):
    ...         send(packet)
    >>> for packet in encoder.finish():
    ...     send(packet)
    """

    def __init__(
        self,
        method: BCDMethod,
        content: Frames,
        *,
        fps: float,
        size: tuple[int, int],
        seed: int = 0,
        model: str = "adaptive",
        motion_model: MotionModel | None = None,
        window: int | None = None,
        content_crf: int | None = None,
    ) -> None:
        """`content` is uint8 [T, H, W, 3], `size` (height, width) that of the frames to come. `window` is a number of
        frames (at least 2), by default that of the weights. `content_crf` is as in `encode_clip`.

        Raises `UsageError` for sizes that the weights do not accept, or a motion model that is missing.
        """
        method.check_size(content)
        self._method = method
        self.window = window or method.description.inference.window or DEFAULT_WINDOW
        if self.window < 2:
            raise UsageError(f"a window has at least 2 frames, not {self.window}")
        self._hop = self.window // 2
        coded, sent = send_content(method, content, content_crf)
        if sent.frames is not None:
            method.check_faces(sent.frames)
        header = header_of(
            method, coded, sent, fps=fps, frames=0, size=size, seed=seed, model=model, motion_model=motion_model
        )
        self.header = replace(header, stream=True, window=self.window)
        self._first = pack_header(self.header) + pack_section(coded.payload)
        self.content_bytes, self.motion_bytes = len(coded.payload), 0
        self._model = code_model_of(self.header, motion_model, sent.tokens)
        self._weight = triangular_window(self.window)
        self._recent: list[Frames] = []
        """Frames from half a window before `_start` on: the clip's last window may begin there."""
        self._base = 0
        """Index of the first of `_frames`."""
        self._start = 0
        """First frame of the next window."""
        self.frames = 0
        """Number of frames so far."""
        self._sent = 0
        self._sums: Tensor | None = None
        """Weighted sums of latents [1, n, C] and weights [n] from frame `_sent` on."""
        self._weights = torch.zeros(0)
        self._sequence = 0
        self._finished = False
        self._last_landmarks: Tensor | None = None
        """Of the last frame of the last window, for weights that read landmarks."""
        self._turns: Tensor | None = None
        """The correction of the pose by the first window, for weights with `pose_correction`."""

    def push(self, frame: Frames) -> list[bytes]:
        """Add a frame uint8 [H, W, 3]; returns the packets that are ready, often none.

        Raises `UsageError` for a frame of another size.
        """
        if self._finished:
            raise UsageError("the stream is finished")
        if frame.dtype != np.uint8 or frame.shape != (self.header.height, self.header.width, 3):
            expected = [self.header.height, self.header.width, 3]
            raise UsageError(f"a frame must be uint8 {expected}, not {frame.dtype} {list(frame.shape)}")
        packets = [] if self.frames else [self._first]
        if self.frames == self._start + self.window:  # now it is not the last window of the clip
            self._add_window(self._start)
            del self._recent[: self._start - self._base]
            self._base, self._start = self._start, self._start + self._hop
        self._recent.append(frame)
        self.frames += 1
        # Every frame that is a window or more behind the newest one is in no further window, not even in the last.
        ready = self.frames - self.window - self._sent
        if ready >= self._hop:
            packets.append(self._send(self._averages(ready), last=False))
        return packets

    def finish(self) -> list[bytes]:
        """The remaining packets. Raises `UsageError` if there was no frame."""
        if self._finished or not self.frames:
            raise UsageError("the stream is finished" if self._finished else "the stream has 0 frames")
        self._finished = True
        if self.frames <= self.window:
            return [self._send(self._latents(self._recent), last=True)]
        self._add_window(self.frames - self.window)
        return [self._send(self._averages(self.frames - self._sent), last=True)]

    @torch.inference_mode()
    def _latents(self, frames: list[Frames]) -> Tensor:
        method = self._method
        values = method.values(np.stack(frames))
        with method.autocast():
            network = landmarks_of(method.loaded.model)
            if network is None:
                return method.loaded.model.latents_of_motion(values)
            landmarks = self._landmarks(values)
            if self._turns is None:
                self._turns = method.pipeline.turns(values)
            return network.encode(landmarks, self._turns)[0]

    def _landmarks(self, values: Tensor) -> Tensor:
        """Landmarks [1, T, N, 2] of a window; without a face in it, the last ones before. Raises `NoFaceError` if there
        were none."""
        try:
            landmarks = self._method.pipeline.landmarks(values)
        except NoFaceError:
            if self._last_landmarks is None:
                raise
            landmarks = self._last_landmarks[:, None].expand(-1, values.shape[1], -1, -1)
        self._last_landmarks = landmarks[:, -1]
        return landmarks

    def _add_window(self, start: int) -> None:
        first = start - self._base
        latents = self._latents(self._recent[first : first + self.window]).float()
        offset = start - self._sent
        missing = offset + self.window - len(self._weights)
        if self._sums is None:
            self._sums = latents.new_zeros((1, 0, latents.shape[2]))
        if missing > 0:
            self._sums = torch.cat([self._sums, latents.new_zeros((1, missing, latents.shape[2]))], 1)
            self._weights = torch.cat([self._weights, torch.zeros(missing)])
        self._sums[:, offset : offset + self.window] += latents * self._weight.to(latents).view(1, -1, 1)
        self._weights[offset : offset + self.window] += self._weight

    def _averages(self, count: int) -> Tensor:
        assert self._sums is not None
        averages = self._sums[:, :count] / self._weights[:count].to(self._sums).view(1, -1, 1)
        self._sums, self._weights = self._sums[:, count:], self._weights[count:]
        return averages

    @torch.inference_mode()
    def _send(self, latents: Tensor, *, last: bool) -> bytes:
        with self._method.autocast():
            codes = self._method.loaded.model.quantizer(latents).codes[0].cpu().numpy()
        self._sent += len(codes)
        payload = encode_motion(self._model, codes)
        self.motion_bytes += len(payload)
        packet = pack_packet(Packet(self._sequence, len(codes), last, payload))
        self._sequence += 1
        return packet


class StreamDecoder:
    """Decode packets while they arrive.

    Every error is a `BitstreamError`, and the packet is ignored. If a packet is missing or damaged, `push` raises
    `PacketLost` for its successors until `skip()` is called, which repeats the codes of the last frame for the frames
    of the missing packets. Only the static model can continue then: the others predict from all earlier codes.
    """

    def __init__(self, method: BCDMethod, first: bytes, *, motion_model: MotionModel | None = None) -> None:
        """`first` is the first packet. Raises `BitstreamError` if it is damaged or of other weights."""
        self.header, offset = read_header(first)
        if not self.header.stream:
            raise BitstreamError("the bitstream is not a stream")
        payload, offset = read_section(first, offset, "content")
        if offset != len(first):
            raise BitstreamError(f"the first packet has {len(first) - offset} unexpected bytes")
        check_weights(self.header, method)
        self._method = sampling_method(method, self.header)
        content = read_content(self._method, self.header, payload)
        self._model = code_model_of(self.header, motion_model, content.tokens)
        self._content, self._pictures = content.tokens.to(method.device), content.frames
        self.next_sequence = 0
        self.finished = False
        self._codes: list[Integers] = []
        """Codes int64 [N] of the frames from half a window before `_start` on."""
        self._base = 0
        """Index of the first of `_codes`."""
        self._start = 0
        """First frame of the next window."""
        self._total = 0
        self._returned = 0
        self._tail: Frames | None = None
        """Frames of the previous window from `_returned` on."""
        self._noise: Tensor | None = None
        self._noise_start = 0
        self._generator = torch.Generator().manual_seed(self.header.seed)

    def push(self, data: bytes) -> Frames:
        """Decode a packet; returns the frames that are ready, uint8 [T, H, W, 3] with T >= 0.

        Raises `BitstreamError` for a damaged packet and `PacketLost` for one out of order.
        """
        packet, end = read_packet(data)
        if end != len(data):
            raise BitstreamError(f"packet {packet.sequence} has {len(data) - end} unexpected bytes")
        if self.finished:
            raise PacketLost(f"packet {packet.sequence} came after the last one")
        if packet.sequence != self.next_sequence:
            raise PacketLost(f"packet {self.next_sequence} is missing, got packet {packet.sequence}")
        if not 0 < packet.frames <= 2 * self.header.window:
            raise BitstreamError(f"packet {packet.sequence} has {packet.frames} frames")
        codes = decode_motion(self._model, packet.payload, packet.frames)
        self.next_sequence += 1
        return self._extend(list(codes), last=packet.last)

    def skip(self, packets: int = 1) -> Frames:
        """Give up the next `packets` packets; returns the frames that are ready.

        Each is taken to have as many frames as the encoder sends at a time, with the codes of the last frame (those of
        index 0 if there is none). Raises `PacketLost` if the model cannot continue after a loss.
        """
        if not self._model.constant:
            raise PacketLost(
                f"packet {self.next_sequence} is missing, and the {self.header.model} model cannot continue without it",
                hint="encode --model static for channels that lose packets",
            )
        count = packets * (self.header.window // 2)
        if packets < 1 or count > 1 << 12:
            raise PacketLost(f"{packets} lost packets are too many to conceal")
        previous = self._codes[-1] if self._codes else np.zeros(self.header.groups, np.int64)
        self.next_sequence += packets
        return self._extend([previous] * count, last=False)

    def finish(self) -> Frames:
        """The remaining frames of a stream that ended without its last packet."""
        return self._extend([], last=True)

    def _extend(self, codes: list[Integers], *, last: bool) -> Frames:
        window = self.header.window
        self._codes += codes
        self._total += len(codes)
        parts = []
        while self._total > self._start + window:
            parts.append(self._window(self._start, window, keep=self._start + window // 2))
            del self._codes[: self._start - self._base]
            self._base, self._start = self._start, self._start + window // 2
        if last and not self.finished:
            self.finished = True
            if self._total > self._returned:
                start = max(self._total - window, 0)
                parts.append(self._window(start, self._total - start, keep=self._total))
        return np.concatenate([np.empty((0, self.header.height, self.header.width, 3), np.uint8), *parts])

    def _window(self, start: int, size: int, *, keep: int) -> Frames:
        """Sample `size` frames from `start` on; return the finished ones, those before `keep`."""
        codes = np.stack(self._codes[start - self._base :][:size])
        noise = self._noise_of(start, size)
        vectors = motion_vectors(self._method, codes)
        drawn = self._method.sample_noise(self._content, vectors, noise[None])[0]
        full = self.header.height, self.header.width
        shown = self._method.render(drawn, full, self._pictures, self._content[0], vectors[0])
        frames = shown[self._returned - start :]
        if self._tail is not None:
            overlap = min(len(self._tail), len(frames))
            share = (np.arange(1, overlap + 1) / (overlap + 1)).reshape(-1, 1, 1, 1)
            blended = self._tail[:overlap] * (1 - share) + frames[:overlap] * share
            frames = np.concatenate([np.rint(blended).astype(np.uint8), frames[overlap:]])
        done = keep - self._returned
        self._tail, self._returned = frames[done:], keep
        finished: Frames = frames[:done]
        return finished

    def _noise_of(self, start: int, size: int) -> Tensor:
        """Noise [size, S, values] of the frames from `start` on; frames keep theirs in the next window."""
        kept = torch.zeros(0) if self._noise is None else self._noise[start - self._noise_start :]
        fresh = torch.randn(self._method.loaded.model.noise_shape(size - len(kept)), generator=self._generator)
        self._noise = torch.cat([kept, fresh]) if len(kept) else fresh
        self._noise_start = start
        return self._noise


def read_packets(file: BinaryIO, start: bytes = b"") -> Iterator[bytes]:
    """The packets of a file or pipe that contains a stream, each as soon as it is complete.

    `start` has been read from the file before. Raises `BitstreamError` if the stream is damaged or cut short.
    """
    buffer, size_of = start, first_packet_size
    while True:
        size = size_of(buffer)
        while size is None or len(buffer) < size:
            more = file.read(CHUNK if size is None else size - len(buffer))
            if not more:
                if buffer or size_of is first_packet_size:
                    raise BitstreamError("the stream is cut short inside a packet")
                return
            buffer += more
            size = size_of(buffer)
        yield buffer[:size]
        buffer, size_of = buffer[size:], packet_size
