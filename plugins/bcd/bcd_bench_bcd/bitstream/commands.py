"""`bcd-bench encode` and `bcd-bench decode`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bcd_bench_bcd.bitstream.container import Header
    from bcd_bench_bcd.bitstream.streaming import StreamDecoder

__all__ = ["decode", "encode"]

PAIR = "transfer"
"""Pair id from which the noise seed is derived, as `bcd_bench.transfer` does: the same --seed gives the same frames."""
MAX_FILE = 1 << 28
"""Largest bitstream in bytes that is read into memory."""
MotionModelOption = Annotated[
    Path | None,
    typer.Option(help="Motion-model file of train bcd-motion (default: the shipped one of the weights, if any)."),
]


def encode(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method; only bcd has a bitstream.")],
    content: Annotated[Path, typer.Option(help="Video, photo or folder of frames that shows the subject.")],
    motion: Annotated[Path, typer.Option(help="The driving video, or a folder of frames.")],
    output: Annotated[str, typer.Option(help="The file to write (.bcdm); - for stdout.")],
    weights: Annotated[str | None, typer.Option(help="Name or path of BCD weights.")] = None,
    model: Annotated[
        str, typer.Option(help="Probability model of motion codes: static, adaptive, context or autoregressive.")
    ] = "adaptive",
    motion_model: MotionModelOption = None,
    content_bits: Annotated[
        int | None, typer.Option(min=1, max=16, help="Bits per content value (default: content is exact).")
    ] = None,
    content_crf: Annotated[
        int | None,
        typer.Option(min=0, max=63, help="Send content as pictures, coded by AV1 with this CRF (larger: smaller)."),
    ] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="K=V", help="Settings as in run --set.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the sampler's noise.")] = 0,
    stream: Annotated[bool, typer.Option("--stream", help="Write packets while reading the driving video.")] = False,
    window: Annotated[
        int | None, typer.Option(min=2, max=1024, help="Frames of a window of --stream (default: of the weights).")
    ] = None,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
) -> None:
    """Encode the content of one clip and the motion of another into a bitstream."""
    from bcd_bench.cli.common import parse_settings
    from bcd_bench.io.inputs import fitted, read_clip
    from bcd_bench.run.fingerprint import pair_seed
    from bcd_bench_bcd.bitstream import opening
    from bcd_bench_bcd.bitstream.codec import encode_clip
    from bcd_bench_bcd.bitstream.container import MODELS

    opening.check_method(method)
    if model not in MODELS:
        raise UsageError(f"--model {model!r}: choose one of {', '.join(MODELS)}")
    if window is not None and not stream:
        raise UsageError("--window requires --stream")
    if output != "-" and not Path(output).expanduser().parent.is_dir():
        raise UsageError(f"cannot write {output}: its folder does not exist")
    settings = parse_settings(set_ or [], "--set")
    if content_bits is not None:
        settings["content_bits"] = content_bits
    bcd = opening.open_method(weights, device, settings)
    size = bcd.frame_size
    assert size is not None
    source = fitted(read_clip(content, "content"), size).frames
    needs_file = model in ("static", "autoregressive")
    probabilities = opening.motion_model(motion_model, bcd.loaded.codes_sha256) if needs_file else None
    noise_seed = pair_seed(seed, PAIR)
    with _writer(output) as file:
        if stream:
            from bcd_bench_bcd.bitstream.streaming import StreamEncoder

            fps, frames = _frames(motion, size)
            encoder = StreamEncoder(
                bcd,
                source,
                fps=fps,
                size=size,
                seed=noise_seed,
                model=model,
                motion_model=probabilities,
                window=window,
                content_crf=content_crf,
            )
            total = sum(_write(file, encoder.push(frame)) for frame in frames) + _write(file, encoder.finish())
            header, count = encoder.header, encoder.frames
            parts = encoder.content_bytes, encoder.motion_bytes
        else:
            driving = fitted(read_clip(motion, "motion"), size)
            encoded = encode_clip(
                bcd,
                source,
                driving.frames,
                driving.fps,
                seed=noise_seed,
                model=model,
                motion_model=probabilities,
                content_crf=content_crf,
            )
            total, count, header = _write(file, [encoded.data]), len(driving), encoded.header
            parts = encoded.content_bytes, encoded.motion_bytes
    _print_sizes(header, count, total, *parts, to_stderr=output == "-")


def decode(
    method: Annotated[str, typer.Argument(metavar="METHOD", help="The method; only bcd has a bitstream.")],
    bitstream: Annotated[str, typer.Argument(metavar="FILE", help="The bitstream (.bcdm); - for stdin.")],
    output: Annotated[
        str | None, typer.Option(help="The video to write (.mp4, or .mkv for lossless); - for raw RGB on stdout.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Name or path of BCD weights (default: the shipped ones of the bitstream's hash)."),
    ] = None,
    motion_model: MotionModelOption = None,
    info: Annotated[bool, typer.Option("--info", help="Print the header and decode nothing.")] = False,
    device: Annotated[str, typer.Option(help=f"{DEVICES}.")] = "cpu",
) -> None:
    """Decode a bitstream into a video."""
    from bcd_bench_bcd.bitstream import opening
    from bcd_bench_bcd.bitstream.container import BitstreamError, header_size, read_header

    opening.check_method(method)
    if output is None and not info:
        raise UsageError("decode needs --output FILE or --info")
    with _reader(bitstream) as file:
        start = b""
        while (size := header_size(start)) is None or len(start) < size:
            more = file.read(6 if size is None else size - len(start))  # no more, for a pipe would wait for it
            if not more:
                break
            start += more
        header, _ = read_header(start)
        if info:
            _print_header(header)
            return
        assert output is not None
        bcd = opening.method_for(header, weights, device)
        probabilities = opening.motion_model_for_header(header, motion_model, bcd.loaded.codes_sha256)
        if header.stream:
            from bcd_bench_bcd.bitstream.streaming import StreamDecoder, read_packets

            packets = read_packets(file, start)
            decoder = StreamDecoder(bcd, next(packets), motion_model=probabilities)
            _save(output, _decoded(decoder, packets), header)
        else:
            from bcd_bench_bcd.bitstream.codec import decode_clip

            data = start + file.read(MAX_FILE)
            if len(data) > MAX_FILE:
                raise BitstreamError(f"the bitstream exceeds {MAX_FILE >> 20} MiB")
            clip = decode_clip(bcd, data, motion_model=probabilities)
            _save(output, iter([clip.frames]), header)


def _decoded(decoder: StreamDecoder, packets: Iterator[bytes]) -> Iterator[npt.NDArray[np.uint8]]:
    from bcd_bench_bcd.bitstream.container import BitstreamError

    for packet in packets:
        yield decoder.push(packet)
    if not decoder.finished:
        raise BitstreamError("the stream is cut short: its last packet is missing")


def _frames(motion: Path, size: tuple[int, int]) -> tuple[float, Iterator[npt.NDArray[np.uint8]]]:
    """Frame rate, and frames uint8 [H, W, 3] of `size` one by one; those of videos are decoded on demand."""
    from bcd_bench.io.image_sequence import PICTURES
    from bcd_bench.io.inputs import fitted, read_clip
    from bcd_bench.types.clip import Clip

    if motion.is_dir() or motion.suffix.lower() in PICTURES:
        clip = fitted(read_clip(motion, "motion"), size)
        return clip.fps, iter(clip.frames)
    rates = _video(motion)
    fps = next(rates)
    return float(fps), (fitted(Clip(frame[None], float(fps)), size).frames[0] for frame in rates)


def _video(path: Path) -> Iterator[Any]:
    """The frame rate of a video, then its frames."""
    from bcd_bench.io.decode import open_video
    from bcd_bench.types.errors import UnreadableVideoError, UnsupportedVideoError

    try:
        with open_video(path) as video:
            yield video.fps
            for frame in video.frames():
                yield frame.rgb
    except (UnreadableVideoError, UnsupportedVideoError) as error:
        raise type(error)(f"cannot read video {path}: {error}", hint=error.hint) from None
    except OSError as error:
        raise UsageError(f"cannot read video {path}: {error.strerror or error}") from error


@contextlib.contextmanager
def _writer(output: str) -> Iterator[BinaryIO]:
    """A file that appears at `output` once it is complete, or stdout."""
    from bcd_bench.io.atomic import atomic_path

    if output == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    else:
        with atomic_path(Path(output).expanduser()) as path, path.open("wb") as file:
            yield file


@contextlib.contextmanager
def _reader(bitstream: str) -> Iterator[BinaryIO]:
    if bitstream == "-":
        yield sys.stdin.buffer
        return
    try:
        with Path(bitstream).expanduser().open("rb") as file:
            yield file
    except OSError as error:
        raise UsageError(f"cannot read {bitstream}: {error.strerror or error}") from None


def _write(file: BinaryIO, packets: list[bytes]) -> int:
    for packet in packets:
        file.write(packet)
        file.flush()
    return sum(map(len, packets))


def _save(output: str, parts: Iterator[npt.NDArray[np.uint8]], header: Header) -> None:
    """Write frames as a video, or as raw RGB bytes to stdout as they come."""
    from bcd_bench.io.video import save_frames

    if output == "-":
        for part in parts:
            _write(sys.stdout.buffer, [part.tobytes()])
        return
    count = 0

    def counted() -> Iterator[npt.NDArray[np.uint8]]:
        nonlocal count
        for part in parts:
            count += len(part)
            yield from part

    save_frames(Path(output).expanduser(), counted(), float(header.fps))
    print(f"{output}: {count} frames of {header.height}x{header.width} at {float(header.fps):g} fps")


def _print_sizes(header: Header, frames: int, total: int, content: int, motion: int, *, to_stderr: bool) -> None:
    """A table of bytes and rates, on stderr if the bitstream is on stdout."""
    from bcd_bench.cli.common import print_table

    fps = float(header.fps)

    def row(name: str, size: int) -> list[str]:
        bits = 8 * size
        return [name, f"{size}", f"{bits}", f"{bits / frames:.2f}", f"{bits / frames * fps / 1000:.3f}"]

    rows = [row("header", total - content - motion), row("content", content), row("motion", motion), row("all", total)]
    with contextlib.redirect_stdout(sys.stderr if to_stderr else sys.stdout):
        title = f"{frames} frames at {fps:g} fps, motion model {header.model}, content {_content(header)}"
        print_table(title, ("part", "bytes", "bits", "bit/frame", "kbit/s"), rows)


def _content(header: Header) -> str:
    from bcd_bench_bcd.bitstream.container import PICTURES

    if header.content_coding in PICTURES:
        return f"pictures, {header.content_coding}"
    return f"{header.content_coding}, {header.content_bits} bits" if header.content_bits else header.content_coding


def _print_header(header: Header) -> None:
    from bcd_bench.cli.common import print_table

    length = f"stream, windows of {header.window} frames" if header.stream else f"{header.frames} frames"
    sampler = "of the weights" if header.sampler is None else ", ".join(f"{k}={v}" for k, v in header.sampler)
    rows = [
        ["weights", header.weights_sha256],
        ["length", length],
        ["frame rate", f"{float(header.fps):g} fps"],
        ["size", f"{header.height}x{header.width}"],
        ["motion codes", f"{header.groups} groups of {header.entries} entries, {header.model} model"],
        ["motion model", header.motion_model_sha256 or "none"],
        ["content", f"{header.tokens}x{header.channels} values, {_content(header)}"],
        ["sampler", f"{sampler}; seed {header.seed}; {header.dtype}"],
    ]
    print_table("BCD bitstream", ("field", "value"), rows)
