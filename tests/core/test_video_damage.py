"""Damaged and cut files: refused with one line, or read exactly; never with other pixels where a checksum tells."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import moving, write

from bcd_bench import Clip
from bcd_bench.io.decode import open_video
from bcd_bench.io.image_sequence import encode_png, read_frames
from bcd_bench.io.video import encode_lossless, read_video, write_video_lossless
from bcd_bench.types.errors import UnreadableVideoError, UsageError

CHECKED = {
    "x.mkv": ("ffv1", "bgr0"), "h264.mkv": ("libx264", "yuv420p"), "mpeg4.mkv": ("mpeg4", "yuv420p"),
    "mjpeg.mkv": ("mjpeg", "yuvj420p"), "vp9.mkv": ("libvpx-vp9", "yuv420p"), "ffv1.avi": ("ffv1", "yuv420p"),
    "ffv1.nut": ("ffv1", "bgr0"), "x.apng": ("apng", "rgb24"), "png.mov": ("png", "rgb24"),
}  # fmt: skip
"""Files whose container or codec has checksums over the pixels."""
UNCHECKED = {
    "h264.mp4": ("libx264", "yuv420p", 0.15),
    "mpeg4.avi": ("mpeg4", "yuv420p", 0.1),
    "mjpeg.avi": ("mjpeg", "yuvj420p", 0.08),
}
"""Files without, and the share of single flipped bits that has to be noticed at least."""


def made(path: Path, codec: str, pixels: str) -> Path:
    options = (
        {"level": "3", "slicecrc": "1"}
        if codec == "ffv1"
        else {"x264-params": "log-level=none"}
        if "264" in codec
        else {}
    )
    noisy = moving(5) ^ np.random.default_rng(1).integers(0, 32, (5, 48, 64, 3), dtype=np.uint8)
    return write(
        path, noisy, codec=codec, pixels=pixels, options=options, form="apng" if path.suffix == ".apng" else None
    )


def outcomes(path: Path, flips: int, seed: int) -> dict[str, int]:
    """What comes of `flips` copies with one flipped bit each."""
    good, whole = read_video(path).frames, path.read_bytes()
    rng, counts, lines = np.random.default_rng(seed), {"refused": 0, "same": 0, "other": 0}, False
    for _ in range(flips):
        body = bytearray(whole)
        body[int(rng.integers(len(body)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(body)
        try:
            found = read_video(path).frames
        except UsageError as error:
            lines |= "\n" in str(error)
            counts["refused"] += 1
        else:
            counts["same" if np.array_equal(found, good) else "other"] += 1
    assert not lines, "one line each"
    return counts


@pytest.mark.parametrize("name", CHECKED)
def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path, name: str) -> None:
    counts = outcomes(made(tmp_path / name, *CHECKED[name]), 120, seed=len(name))
    assert counts["other"] == 0
    assert counts["refused"] > 60


@pytest.mark.parametrize("name", UNCHECKED)
def test_without_checksums_what_the_decoder_notices_is_refused(tmp_path: Path, name: str) -> None:
    codec, pixels, share = UNCHECKED[name]
    assert outcomes(made(tmp_path / name, codec, pixels), 80, seed=3)["refused"] >= share * 80


@pytest.mark.parametrize("name", ["h264.mp4", "mpeg4.avi", "mpeg4.mp4", "mjpeg.avi", "hevc.mp4"])
def test_many_damaged_bytes_are_refused(tmp_path: Path, name: str) -> None:
    codec = {"h264": "libx264", "hevc": "libx265"}.get(name.partition(".")[0], name.partition(".")[0])
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    noisy = moving(12) ^ np.random.default_rng(1).integers(0, 32, (12, 48, 64, 3), dtype=np.uint8)
    path = write(
        tmp_path / name, noisy, codec=codec, pixels="yuvj420p" if codec == "mjpeg" else "yuv420p", options=options
    )
    assert len(read_video(path)) == 12
    body = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    start = body.index(b"mdat" if name.endswith("mp4") else b"movi")
    for at in rng.integers(start + 1000, start + 9000, 200):
        body[min(int(at), len(body) - 1)] ^= 0x5A
    path.write_bytes(body)
    with pytest.raises(UnreadableVideoError, match=r"damaged|cannot be decoded"):
        read_video(path)


def pictures(folder: Path) -> dict[str, Path]:
    frame = moving(1)
    paths = {"x.png": folder / "x.png"}
    paths["x.png"].write_bytes(encode_png(frame[0]))
    for name, codec, pixels in (
        ("x.jpg", "mjpeg", "yuvj420p"),
        ("x.bmp", "bmp", "bgr24"),
        ("x.webp", "libwebp", "yuv420p"),
    ):
        try:
            form = "webp" if codec == "libwebp" else "image2"
            container = {} if codec == "libwebp" else {"update": "1"}
            paths[name] = write(folder / name, frame, codec=codec, pixels=pixels, form=form, container=container)
        except (ValueError, av.error.FFmpegError):
            assert codec == "libwebp", "the other encoders are always there"
    return paths


def test_cut_pictures_are_refused(tmp_path: Path) -> None:
    for path in pictures(tmp_path).values():
        whole, good = path.read_bytes(), read_video(path).frames
        for share in (0.02, 0.3, 0.5, 0.7, 0.9, 0.98):
            path.write_bytes(whole[: int(len(whole) * share)])
            with pytest.raises(UsageError, match="cannot read video"):
                read_video(path)
        path.write_bytes(whole)
        assert (read_video(path).frames == good).all()


def test_a_folder_with_one_cut_jpeg_is_refused(tmp_path: Path) -> None:
    for index in range(3):
        write(
            tmp_path / f"{index}.jpg",
            moving(1),
            codec="mjpeg",
            pixels="yuvj420p",
            form="image2",
            container={"update": "1"},
        )
    assert read_frames(tmp_path).shape == (3, 48, 64, 3)
    cut = tmp_path / "1.jpg"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    with pytest.raises(UsageError, match=r"1\.jpg: damaged"):
        read_frames(tmp_path)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("x.mkv", "ffv1", "bgr0"), ("x.webm", "libvpx", "yuv420p"), ("x.mp4", "libx264", "yuv420p"),
        ("fast.mp4", "mpeg4", "yuv420p"), ("x.mov", "mjpeg", "yuvj420p"), ("x.avi", "mpeg4", "yuv420p"),
        ("x.gif", "gif", "bgr8"), ("x.y4m", "wrapped_avframe", "yuv420p"), ("fragments.mp4", "mpeg4", "yuv420p"),
    ],
)  # fmt: skip
def test_cut_videos_are_refused(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    flags = {"fast.mp4": "faststart", "fragments.mp4": "frag_keyframe+empty_moov"}.get(name)
    path = tmp_path / name
    if codec == "wrapped_avframe":
        frames = moving(8)
        planes = [
            av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format=pixels).to_ndarray() for frame in frames
        ]
        path.write_bytes(
            b"YUV4MPEG2 W64 H48 F25:1 C420jpeg\n" + b"".join(b"FRAME\n" + plane.tobytes() for plane in planes)
        )
    else:
        write(path, moving(8), codec=codec, pixels=pixels, container={"movflags": flags} if flags else {})
    whole = path.read_bytes()
    good = read_video(path).frames
    assert len(good) == 8
    for share in (0.5, 0.8, 0.95, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        try:
            found = read_video(path).frames
        except UsageError:
            continue
        assert np.array_equal(found, good), f"{share:.0%} of the file is read with {len(found)} of 8 frames"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="cannot read video"):
        read_video(path)


def test_frames_before_the_damage_can_be_had(tmp_path: Path) -> None:
    """Only what is asked for is judged: a reader of the first frames does not pay for the rest."""
    path = tmp_path / "x.mkv"
    clip = Clip(moving(150), 25.0)
    write_video_lossless(path, clip)
    body = bytearray(path.read_bytes())
    assert body.count(b"\x1f\x43\xb6\x75") > 1, "several clusters"
    body[body.rindex(b"\x1f\x43\xb6\x75") + 200] ^= 1
    path.write_bytes(body)
    assert (read_video(path, stop=10).frames == clip.frames[:10]).all()
    with pytest.raises(UnreadableVideoError, match=r"damaged 5\.\d\d seconds in"):
        read_video(path)


def test_interlaced_frames_are_refused_with_what_helps(tmp_path: Path) -> None:
    options = {"x264-params": "interlaced=1:log-level=none", "flags": "+ildct+ilme"}
    path = write(tmp_path / "x.mkv", moving(4), codec="libx264", pixels="yuv420p", options=options)
    with pytest.raises(UnreadableVideoError, match="interlaced: every frame combines two points in time") as caught:
        read_video(path)
    assert caught.value.hint == "deinterlace it with ffmpeg -i IN -vf bwdif OUT"


def test_a_size_that_changes_on_the_way_is_refused(tmp_path: Path) -> None:
    first, second = (encode_png(moving(1, 48, width)[0]) for width in (64, 32))
    path = tmp_path / "x.mov"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "rgb24"
        for index, data in enumerate((first, first, second)):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, index, index, Fraction(1, 25)
            out.mux(packet)
    with pytest.raises(UnreadableVideoError, match="the frame size changes within the video"):
        read_video(path)


def test_lossless_outputs_with_checksums_are_our_own(tmp_path: Path) -> None:
    """What the harness keeps is covered twice: each cluster of the file, and each slice of each frame."""
    data = encode_lossless(Clip(moving(3), 25.0))
    at = data.index(b"\x1f\x43\xb6\x75")
    assert b"\xbf\x84" in data[at : at + 16]
    for offset in (40, 400, 900):
        body = bytearray(data)
        body[at + offset] ^= 4
        (tmp_path / "x.mkv").write_bytes(body)
        with pytest.raises(UnreadableVideoError):
            read_video(tmp_path / "x.mkv")


def test_good_files_with_odd_ends_are_read(tmp_path: Path) -> None:
    grey = np.repeat(moving(3)[..., :1] // 64 * 80, 3, axis=3)
    gif = write(tmp_path / "x.gif", grey, codec="gif", pixels="gray")
    gif.write_bytes(gif.read_bytes() + bytes(7))
    assert len(read_video(gif)) == 3
    live = write(tmp_path / "live.mkv", moving(3), container={"live": "1"})
    assert len(read_video(live)) == 3
    mp4 = write(tmp_path / "x.mp4", moving(3), codec="mpeg4", pixels="yuv420p")
    mp4.write_bytes(mp4.read_bytes() + struct.pack(">I", 16) + b"free" + bytes(8))
    assert len(read_video(mp4)) == 3
    mp4.write_bytes(mp4.read_bytes() + b"left over from an editor")
    assert len(read_video(mp4)) == 3
    jpg = write(
        tmp_path / "x.jpg", moving(1), codec="mjpeg", pixels="yuvj420p", form="image2", container={"update": "1"}
    )
    jpg.write_bytes(jpg.read_bytes() + b"left over from an editor")
    assert len(read_video(jpg)) == 1


def test_what_has_no_decoder_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video_lossless(tmp_path / "x.mkv", Clip(moving(1), 25.0))

    def without(*_: object, **__: object) -> None:
        raise av.error.DecoderNotFoundError(-1128613112, "Decoder not found")

    monkeypatch.setattr(av, "open", without)
    with pytest.raises(UsageError, match="the installed PyAV cannot read it: Decoder not found") as caught:
        read_video(tmp_path / "x.mkv")
    assert not isinstance(caught.value, UnreadableVideoError)


def test_errors_of_the_disk_are_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video_lossless(tmp_path / "x.mkv", Clip(moving(1), 25.0))

    def failing(*_: object, **__: object) -> None:
        raise av.error.OSError(5, "Input/output error")

    monkeypatch.setattr(av, "open", failing)
    with pytest.raises(OSError, match="Input/output error"), open_video(tmp_path / "x.mkv"):
        pass
    with pytest.raises(UsageError, match=r"x\.mkv: Input/output error"):
        read_video(tmp_path / "x.mkv")
