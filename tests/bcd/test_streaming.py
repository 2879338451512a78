"""Streams of packets: the same codes and frames as a file, bounded delay, and losses."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from bcd_bench.types.errors import UsageError
from bcd_bench_bcd.bitstream.container import BitstreamError, Packet, pack_packet, read_packet
from bcd_bench_bcd.bitstream.streaming import PacketLost, StreamDecoder, StreamEncoder, read_packets
from bcd_bench_bcd.inference.method import BCDMethod
from tests.bcd.bitstream_toy import ToyMotionModel, driving, tiny_method

WINDOW = 8


@pytest.fixture
def method(tmp_path: Path) -> BCDMethod:
    return tiny_method(tmp_path, grid=False, window=WINDOW)


def packets_of(method: BCDMethod, length: int, **options: object) -> list[bytes]:
    settings: dict[str, object] = {"fps": 8.0, "size": (32, 32), **options}
    encoder = StreamEncoder(method, driving(3), **settings)  # type: ignore[arg-type]
    packets = []
    for index, frame in enumerate(driving(length)):
        packets += encoder.push(frame)
        sent = sum(read_packet(packet)[0].frames for packet in packets[1:])
        assert index + 1 - sent < WINDOW + WINDOW // 2  # the delay
    packets += encoder.finish()
    assert encoder.frames == length
    assert encoder.motion_bytes == sum(len(read_packet(packet)[0].payload) for packet in packets[1:])
    return packets


def decoded(method: BCDMethod, packets: list[bytes], **options: object) -> np.ndarray:
    decoder = StreamDecoder(method, packets[0], **options)  # type: ignore[arg-type]
    frames = [decoder.push(packet) for packet in packets[1:]]
    assert decoder.finished
    return np.concatenate(frames)


@pytest.mark.parametrize("length", [1, 5, WINDOW])
@pytest.mark.parametrize("model", ["static", "adaptive", "context", "autoregressive"])
def test_a_clip_of_one_window_has_the_frames_of_transfer(method: BCDMethod, length: int, model: str) -> None:
    motion_model = ToyMotionModel(method)
    packets = packets_of(method, length, seed=4, model=model, motion_model=motion_model)
    assert len(packets) == 2
    np.testing.assert_array_equal(
        decoded(method, packets, motion_model=motion_model), method.transfer_frames(driving(3), driving(length), seed=4)
    )


@pytest.mark.parametrize("length", [9, 11, 12, 13, 16, 30])
def test_longer_clips_have_the_codes_of_transfer(
    method: BCDMethod, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets = packets_of(method, length, model="context")
    codes = []
    extend = StreamDecoder._extend
    monkeypatch.setattr(
        StreamDecoder, "_extend", lambda self, new, last: codes.extend(new) or extend(self, new, last=last)
    )
    frames = decoded(method, packets)
    np.testing.assert_array_equal(np.stack(codes), method.motion_codes(driving(length)).numpy())
    assert frames.shape == (length, 32, 32, 3)


def test_windows_are_blended(method: BCDMethod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Window k shows 60 k everywhere: the second half of a window fades into the next window's first half."""
    calls = []

    def sample(self: BCDMethod, content: object, motion: object, noise: np.ndarray) -> np.ndarray:
        calls.append(noise[0])
        return np.full((1, noise.shape[1], 32, 32, 3), 60 * (len(calls) - 1), np.uint8)

    monkeypatch.setattr(BCDMethod, "sample_noise", sample)
    frames = decoded(method, packets_of(method, 14))
    faded = [round(60 * part / 5) for part in range(1, 5)]
    assert frames[:8, 0, 0, 0].tolist() == [0, 0, 0, 0, *faded]
    # the last window starts at frame 6: its first two frames have been returned already
    assert frames[8:, 0, 0, 0].tolist() == [round(60 + 60 * part / 5) for part in range(1, 5)] + [120, 120]
    assert (calls[0][4:] == calls[1][:4]).all()
    assert (calls[1][2:] == calls[2][:6]).all()


def test_windows_of_other_sizes(tmp_path: Path) -> None:
    method = tiny_method(tmp_path)
    for window, length in ((2, 7), (3, 8), (5, 17)):
        encoder = StreamEncoder(method, driving(3), fps=8.0, size=(32, 32), window=window)
        packets = [packet for frame in driving(length) for packet in encoder.push(frame)] + encoder.finish()
        assert len(decoded(method, packets)) == length
    assert StreamEncoder(method, driving(3), fps=8.0, size=(32, 32)).window == 16


def test_losses_with_the_static_model(method: BCDMethod) -> None:
    motion_model = ToyMotionModel(method)
    packets = packets_of(method, 30, model="static", motion_model=motion_model)
    decoder = StreamDecoder(method, packets[0], motion_model=motion_model)
    frames = [decoder.push(packets[1])]
    for damaged in (packets[2][:-1], packets[2][:9] + b"?" + packets[2][10:], b"", packets[2] + b"?"):
        with pytest.raises(BitstreamError, match=r"damaged|cut short|unexpected"):
            decoder.push(damaged)
    with pytest.raises(PacketLost, match="packet 1 is missing, got packet 2"):
        decoder.push(packets[3])
    frames.append(decoder.skip())
    frames += [decoder.push(packet) for packet in packets[3:]]
    whole = decoded(method, packets, motion_model=motion_model)
    received = np.concatenate(frames)
    assert received.shape == whole.shape
    np.testing.assert_array_equal(received[-6:], whole[-6:])  # the loss has no effect that lasts
    with pytest.raises(PacketLost, match="after the last one"):
        decoder.push(packets[-1])
    with pytest.raises(PacketLost, match="too many to conceal"):
        StreamDecoder(method, packets[0], motion_model=motion_model).skip(10**9)


def test_models_that_learn_cannot_continue_after_a_loss(method: BCDMethod) -> None:
    packets = packets_of(method, 30)
    decoder = StreamDecoder(method, packets[0])
    decoder.push(packets[1])
    with pytest.raises(PacketLost, match="the adaptive model cannot continue without it") as error:
        decoder.skip()
    assert error.value.hint == "encode --model static for channels that lose packets"
    decoder.push(packets[2])  # it may still arrive


def test_a_stream_without_its_end(method: BCDMethod) -> None:
    packets = packets_of(method, 30)
    decoder = StreamDecoder(method, packets[0])
    count = sum(len(decoder.push(packet)) for packet in packets[1:-1])
    count += len(decoder.finish())
    assert count == sum(read_packet(packet)[0].frames for packet in packets[1:-1])


def test_packets_of_a_file(method: BCDMethod) -> None:
    packets = packets_of(method, 13)
    data = b"".join(packets)
    assert list(read_packets(io.BytesIO(data))) == packets
    assert list(read_packets(io.BytesIO(data[20:]), data[:20])) == packets
    for size in (3, 40, len(packets[0]) - 1, len(packets[0]) + 5, len(data) - 1):
        with pytest.raises(BitstreamError, match="cut short inside a packet"):
            list(read_packets(io.BytesIO(data[:size])))
    with pytest.raises(BitstreamError, match="does not start with 'BCDP'"):
        list(read_packets(io.BytesIO(data + b"more")))
    with pytest.raises(BitstreamError, match="a packet has 4294967295 bytes"):
        list(read_packets(io.BytesIO(packets[0] + packets[1][:11] + b"\xff" * 4)))


def test_hostile_packets(method: BCDMethod) -> None:
    packets = packets_of(method, 5)
    for frames in (0, 2 * WINDOW + 1):
        with pytest.raises(BitstreamError, match=f"packet 0 has {frames} frames"):
            StreamDecoder(method, packets[0]).push(pack_packet(Packet(0, frames, True, b"")))
    with pytest.raises(BitstreamError, match="1 unexpected bytes"):
        StreamDecoder(method, packets[0] + b"?")


def test_refusals(method: BCDMethod) -> None:
    encoder = StreamEncoder(method, driving(3), fps=8.0, size=(32, 32))
    with pytest.raises(UsageError, match="0 frames"):
        encoder.finish()
    with pytest.raises(UsageError, match=r"a frame must be uint8 \[32, 32, 3\]"):
        encoder.push(np.zeros((16, 32, 3), np.uint8))
    encoder.push(driving(1)[0])
    encoder.finish()
    for call in (encoder.finish, lambda: encoder.push(driving(1)[0])):
        with pytest.raises(UsageError, match="the stream is finished"):
            call()
    with pytest.raises(UsageError, match="at least 2 frames"):
        StreamEncoder(method, driving(3), fps=8.0, size=(32, 32), window=1)
    with pytest.raises(UsageError, match=r"the clip has \(16, 32\) pixels, the weights require"):
        StreamEncoder(method, driving(3)[:, :16], fps=8.0, size=(32, 32))
