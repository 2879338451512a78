"""What is read of a video: colours by their formulas, upright square pixels, the right stream, names and rates."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from made_videos import moving, planes, turn_header, write

from bcd_bench import Clip
from bcd_bench.io.decode import open_video
from bcd_bench.io.expected_frames import WrongLengthError, WrongSizeError, read_expected
from bcd_bench.io.image_sequence import encode_png, read_frames
from bcd_bench.io.orientation import matrix_turn
from bcd_bench.io.rgb import Shown, resize_frame
from bcd_bench.io.video import read_video, write_video_lossless
from bcd_bench.types.errors import UnreadableVideoError, UsageError

MATRICES = {"bt709": (1, 0.2126, 0.0722), "bt601": (6, 0.299, 0.114), "bt2020": (9, 0.2627, 0.0593)}
"""Number (ITU-T H.273), and the weights of red and blue in luma."""


def expected_rgb(y: float, u: float, v: float, red: float, blue: float) -> list[float]:
    """y in 0..1, u and v in -0.5..0.5, by the definition of YCbCr."""
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return [255 * min(max(value, 0), 1) for value in (r, g, b)]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize(("color_range", "depth", "pixels"), [
    (1, 8, "yuv444p"), (2, 8, "yuv444p"), (1, 8, "yuv420p"), (1, 10, "yuv420p10le"), (2, 10, "yuv422p10le"),
    (1, 12, "yuv444p12le"), (1, 16, "yuv444p16le"),
])  # fmt: skip
@pytest.mark.parametrize("levels", [(235, 128, 128), (16, 128, 128), (81, 90, 200), (145, 100, 80), (180, 160, 110)])
def test_flat_colours_are_those_of_the_formulas(
    tmp_path: Path, matrix: str, color_range: int, depth: int, pixels: str, levels: tuple[int, ...]
) -> None:
    number, red, blue = MATRICES[matrix]
    scaled = [level << (depth - 8) for level in levels]
    path = planes(tmp_path / "x.mkv", scaled, pixels, number, color_range)
    top = (1 << depth) - 1
    if color_range == 1:
        y, (u, v) = (levels[0] - 16) / 219, ((level - 128) / 224 for level in levels[1:])
    else:
        middle = 1 << (depth - 1)
        y, (u, v) = scaled[0] / top, ((level - middle) / top for level in scaled[1:])
    found = read_video(path).frames[0]
    assert np.ptp(found.reshape(-1, 3), axis=0).tolist() == [0, 0, 0], "flat"
    assert found[0, 0].astype(float) == pytest.approx(expected_rgb(y, u, v, red, blue), abs=1.0)


def test_white_is_white_and_black_is_black(tmp_path: Path) -> None:
    for pixels, shift in (("yuv420p", 0), ("yuv420p10le", 2), ("yuv422p12le", 4)):
        for level, shown in ((235, 255), (16, 0)):
            levels = [level << shift, 128 << shift, 128 << shift]
            assert (read_video(planes(tmp_path / "x.mkv", levels, pixels, 1, 1)).frames == shown).all()


def test_a_matrix_that_is_not_stated_is_taken_for_bt601(tmp_path: Path) -> None:
    stated = read_video(planes(tmp_path / "a.mkv", (81, 90, 200), "yuv444p", 6, 1)).frames
    assert (read_video(planes(tmp_path / "b.mkv", (81, 90, 200), "yuv444p", 2, 1)).frames == stated).all()


@pytest.mark.parametrize("number", [8, 10, 14])
def test_matrices_that_would_be_converted_wrongly_are_refused(tmp_path: Path, number: int) -> None:
    path = planes(tmp_path / "x.mkv", (81, 90, 200), "yuv444p", number, 1)
    with pytest.raises(UnreadableVideoError, match=rf"its colour matrix \(number {number} of ITU-T H.273\)"):
        read_video(path)


TURNS = {
    "upright": (1, 0, 0, 1), "mirrored": (-1, 0, 0, 1), "half": (-1, 0, 0, -1), "half mirrored": (1, 0, 0, -1),
    "clockwise": (0, 1, -1, 0), "anticlockwise": (0, -1, 1, 0), "transposed": (0, 1, 1, 0),
    "transverse": (0, -1, -1, 0),
}  # fmt: skip
"""Display matrices (a, b, c, d)."""


def turned_by_points(frame: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Every pixel moved to where the matrix says."""
    height, width = frame.shape[:2]
    y, x = np.mgrid[:height, :width]
    to_x, to_y = a * x + c * y, b * x + d * y
    to_x, to_y = to_x - to_x.min(), to_y - to_y.min()
    out = np.zeros((to_y.max() + 1, to_x.max() + 1, 3), np.uint8)
    out[to_y, to_x] = frame
    return out


@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("aspect", [1, 2])
def test_quarter_turns_and_mirror_images_of_the_header(tmp_path: Path, turn: str, aspect: int) -> None:
    path = write(tmp_path / "x.mp4", moving(2), codec="libx264", pixels="yuv444p", sample_aspect_ratio=Fraction(aspect))
    plain = read_video(path).frames
    assert plain.shape == (2, 48, 64 * aspect, 3), "the width is stretched before turning"
    turn_header(path, *TURNS[turn])
    found = read_video(path).frames
    assert (found == np.stack([turned_by_points(frame, *TURNS[turn]) for frame in plain])).all()
    with open_video(path) as video:
        shown = next(video.frames())
        assert shown.size == found.shape[1:3]


@pytest.mark.parametrize("turn", ["upright", "half", "clockwise", "anticlockwise"])
def test_side_data_that_pyav_does_not_know_hides_no_turn(tmp_path: Path, turn: str) -> None:
    """PyAV then lists no side data at all, but tells the angle."""

    class Unlisted:
        def __init__(self, frame: av.VideoFrame) -> None:
            self.rotation = frame.rotation

        @property
        def side_data(self) -> None:
            raise ValueError("31 is not a valid Type")

    path = write(tmp_path / "x.mp4", moving(1), codec="mpeg4", pixels="yuv420p")
    turn_header(path, *TURNS[turn])
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert matrix_turn(Unlisted(frame)) == matrix_turn(frame)
        assert matrix_turn(frame).transpose == (TURNS[turn][0] == 0)


def test_other_angles_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mp4", moving(2), codec="mpeg4", pixels="yuv420p")
    turn_header(path, 1, 1, -1, 1)
    with pytest.raises(UnreadableVideoError, match="rotated by an angle that is not a multiple of 90 degrees"):
        read_video(path)


EXIF = {1: (1, 0, 0, 1), 2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1), 5: (0, 1, 1, 0), 6: (0, 1, -1, 0),
        7: (0, -1, -1, 0), 8: (0, -1, 1, 0)}  # fmt: skip


def tiff(orientation: int, order: str) -> bytes:
    head = b"II*\0" if order == "<" else b"MM\0*"
    entries = struct.pack(f"{order}HHIHH", 0x010F, 2, 4, 0, 0) + struct.pack(
        f"{order}HHIHH", 0x0112, 3, 1, orientation, 0
    )
    return head + struct.pack(f"{order}IH", 8, 2) + entries + bytes(4)


def with_exif(picture: bytes, exif: bytes) -> bytes:
    if picture.startswith(b"\xff\xd8"):
        body = b"Exif\0\0" + exif
        return picture[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + picture[2:]
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    return picture[:33] + chunk + picture[33:]


@pytest.mark.parametrize("orientation", EXIF)
@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pictures_are_upright_by_their_exif(tmp_path: Path, orientation: int, kind: str, order: str) -> None:
    codec, pixels = ("mjpeg", "yuvj444p") if kind == "jpg" else ("png", "rgb24")
    path = write(
        tmp_path / f"x.{kind}", moving(1), codec=codec, pixels=pixels, form="image2", container={"update": "1"}
    )
    plain = read_video(path).frames[0]
    path.write_bytes(with_exif(path.read_bytes(), tiff(orientation, order)))
    assert (read_video(path).frames[0] == turned_by_points(plain, *EXIF[orientation])).all()


@pytest.mark.parametrize("orientation", EXIF)
def test_a_webp_is_upright_by_its_exif(tmp_path: Path, orientation: int) -> None:
    try:
        av.CodecContext.create("libwebp", "w")
    except (ValueError, av.error.FFmpegError):
        pytest.skip("this PyAV cannot write WebP")
    path = write(tmp_path / "x.webp", moving(1), codec="libwebp", pixels="yuv420p", form="webp")
    plain, pixels = read_video(path).frames[0], path.read_bytes()[12:]
    exif = tiff(orientation, "<")
    extended = struct.pack("<IB3x", 10, 8) + (63).to_bytes(3, "little") + (47).to_bytes(3, "little")
    body = b"WEBPVP8X" + extended + pixels + b"EXIF" + struct.pack("<I", len(exif)) + exif
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    assert (read_video(path).frames[0] == turned_by_points(plain, *EXIF[orientation])).all()


def test_a_damaged_exif_leaves_a_picture_upright(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.jpg", moving(1), codec="mjpeg", pixels="yuvj444p", form="image2", container={"update": "1"}
    )
    plain, before = path.read_bytes(), read_video(path).frames
    for exif in (b"", b"II*\0", tiff(6, "<")[:12], tiff(9, "<"), b"nonsense" * 4):
        path.write_bytes(with_exif(plain, exif))
        assert (read_video(path).frames == before).all()


NAMES = [
    "2024-01-01T12:30:00/x.mkv", "concat:a/x.mkv", "d:1/x.mkv", "pipe:0.mkv", "http:/x.mkv", "%03d.mkv", "100%.mkv",
    "a b.mkv",
    "клип 顔 🎬.mkv", "-i.mkv", "a\nb.mkv", "what?*{1,2}.mkv", "file:x.mkv", "a#b;c&d.mkv", "'\".mkv",
    "back\\slash.mkv",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_just_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    clip = Clip(moving(2), 25.0)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write_video_lossless(tmp_path / name, clip)
    monkeypatch.chdir(tmp_path)
    assert read_video(name).sha256 == read_video(tmp_path / name).sha256 == clip.sha256


@pytest.mark.parametrize("name", ["%03d.png", "%d.png", "a*.png", "[0-9].png", "x?.png"])
def test_names_of_pictures_are_no_patterns(tmp_path: Path, name: str) -> None:
    frame, other = moving(2)
    (tmp_path / name).write_bytes(encode_png(frame))
    (tmp_path / "001.png").write_bytes(encode_png(other))
    (tmp_path / "1.png").write_bytes(encode_png(other))
    (tmp_path / "a0.png").write_bytes(encode_png(other))
    assert (read_video(tmp_path / name).frames == frame).all()


def playlists(folder: Path) -> dict[str, str]:
    return {
        "x.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mkv\n#EXT-X-ENDLIST\n",
        "hls.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "x.ffconcat": "ffconcat version 1.0\nfile secret.mkv\n",
        "concat.mkv": "ffconcat version 1.0\nfile secret.mkv\n",
        "x.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
        "x.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
    }


@pytest.mark.parametrize("name", playlists(Path()))
def test_lists_of_other_files_are_refused(tmp_path: Path, name: str) -> None:
    write_video_lossless(tmp_path / "secret.mkv", Clip(moving(2), 25.0))
    (tmp_path / name).write_text(playlists(tmp_path)[name])
    with pytest.raises(UnreadableVideoError, match="cannot be decoded"):
        read_video(tmp_path / name)


def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.mkv")
    with pytest.raises(UsageError, match=r"cannot read video .*pipe\.mkv: not a regular file"):
        read_video(tmp_path / "pipe.mkv")
    with pytest.raises(UsageError, match="Is a directory"):
        read_video(tmp_path)
    with pytest.raises(UsageError, match="is not a valid file name"):
        read_video("a\0b.mkv")


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every frame that is converted."""
    seen: list[int] = []
    convert = Shown.rgb.func
    counting = lambda self: seen.append(1) or convert(self)  # noqa: E731
    monkeypatch.setattr(Shown, "rgb", property(counting))
    return seen


def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every packet that is decoded."""
    from bcd_bench.io.decode import OpenVideo

    seen: list[int] = []
    decode = OpenVideo._decoded
    monkeypatch.setattr(OpenVideo, "_decoded", lambda self, *rest: seen.append(1) or decode(self, *rest))
    return seen


def test_nothing_behind_the_wanted_frames_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.mkv"
    write_video_lossless(path, Clip(moving(200), 25.0))
    packets, frames = decoded(monkeypatch), counted(monkeypatch)
    assert len(read_video(path, start=3, stop=9)) == 6
    assert (len(packets), len(frames)) == (9, 6)
    packets.clear()
    frames.clear()
    with pytest.raises(WrongLengthError, match=r"^more than 8 frames$"):
        read_expected(path, 8, (48, 64))
    assert (len(packets), len(frames)) == (9, 8)
    packets.clear()
    frames.clear()
    with pytest.raises(WrongSizeError, match=r"^48x64$"):
        read_expected(path, 8, (24, 32))
    assert (len(packets), len(frames)) == (1, 0)


def test_expected_videos_and_folders(tmp_path: Path) -> None:
    frames = moving(3)
    write_video_lossless(tmp_path / "x.mkv", Clip(frames, 25.0))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, frame in enumerate(frames):
        (folder / f"{index}.png").write_bytes(encode_png(frame))
    for path in (tmp_path / "x.mkv", folder):
        assert (read_expected(path, 3, (48, 64)) == frames).all()
        small = read_expected(path, 3, (24, 32), resize=True)
        assert (small == np.stack([resize_frame(frame, (24, 32)) for frame in frames])).all()
        with pytest.raises(WrongLengthError, match=r"^3 frames$"):
            read_expected(path, 4, (48, 64))
        with pytest.raises(WrongLengthError, match=r"^(more than 1 frame|3 frames)$"):
            read_expected(path, 1, (48, 64))
        with pytest.raises(WrongSizeError, match=r"^48x64$"):
            read_expected(path, 3, (64, 48))
    (folder / "1.png").write_bytes(encode_png(frames[0, :40]))
    with pytest.raises(UsageError, match=r"1\.png differs in size from the first frame"):
        read_expected(folder, 3, (24, 32), resize=True)
    with pytest.raises(UsageError, match=r"1\.png differs in size from the first frame"):
        read_frames(folder)


def test_time_stamps_and_frame_rates(tmp_path: Path) -> None:
    stamps = [0, 40, 80, 400, 440, 1000]
    path = write(tmp_path / "x.mkv", moving(6), stamps=stamps)
    with open_video(path) as video:
        assert [round(1000 * shown.seconds) for shown in video.frames()] == stamps
    assert len(read_video(path)) == 6, "every frame once, whatever its time"
    one = write(tmp_path / "one.mkv", moving(1), stamps=[0])
    assert 0 < read_video(one).fps <= 1000
    for rate in (1, 8, 60, 240):
        assert read_video(write(tmp_path / "r.mkv", moving(3), rate=rate)).fps == pytest.approx(rate, rel=0.01)


def test_animations_and_pictures(tmp_path: Path) -> None:
    grey = np.repeat(moving(4)[..., :1] // 64 * 80, 3, axis=3)
    gif = write(tmp_path / "x.gif", grey, codec="gif", pixels="gray", rate=10)
    assert (read_video(gif).frames == grey).all()
    assert read_video(gif).fps == pytest.approx(10)
    apng = write(tmp_path / "x.apng", moving(4), codec="apng", pixels="rgb24", form="apng")
    assert (read_video(apng).frames == moving(4)).all()
    webp = tmp_path / "x.webp"
    webp.write_bytes(b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + bytes((2,)) + bytes(9))
    with pytest.raises(UsageError, match="an animated WebP, which FFmpeg does not decode"):
        read_video(webp)


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 16, "bgra"
        frame = av.VideoFrame.from_ndarray(np.full((16, 16, 4), (10, 200, 30, 0), np.uint8), format="rgba")
        out.mux(stream.encode(frame.reformat(format="bgra")))
        out.mux(stream.encode(None))
    assert (read_video(path).frames == (10, 200, 30)).all()


def two_streams(path: Path, dispositions: list[str]) -> Path:
    with av.open(str(path), "w") as out:
        streams = []
        for number, disposition in enumerate(dispositions):
            cover = disposition == "attached_pic"
            stream = out.add_stream("png" if cover else "ffv1" if path.suffix == ".mkv" else "mpeg4", rate=25)
            stream.height, stream.width = 32, 32 + 16 * number
            stream.pix_fmt = "rgb24" if cover else "bgr0" if path.suffix == ".mkv" else "yuv420p"
            stream.disposition = getattr(av.stream.Disposition, disposition).value if disposition else 0
            streams.append(stream)
        for number, stream in enumerate(streams):
            for index in range(1 if stream.disposition & av.stream.Disposition.attached_pic else 3):
                frame = av.VideoFrame.from_ndarray(
                    np.full((32, 32 + 16 * number, 3), 50 * number, np.uint8), format="rgb24"
                )
                frame.pts = index
                out.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("dispositions", "wanted"),
    [(["", "default"], 1), (["default", ""], 0), (["attached_pic", ""], 1), (["", "attached_pic"], 0)],
)
def test_of_several_streams_the_players_is_read(tmp_path: Path, dispositions: list[str], wanted: int) -> None:
    path = two_streams(tmp_path / ("x.mp4" if "attached_pic" in dispositions else "x.mkv"), dispositions)
    assert read_video(path).frames.shape[1:3] == (32, 32 + 16 * wanted)


def test_an_edit_list_hides_what_it_hides(tmp_path: Path) -> None:
    """Frames before the start of the edit are decoded and not shown, as in clips cut without encoding again."""
    path = write(tmp_path / "x.mp4", moving(10), codec="mpeg4", pixels="yuv420p", container={"use_editlist": "1"})
    whole = read_video(path).frames
    body = bytearray(path.read_bytes())
    at = body.index(b"elst") + 4 + 8
    duration, _ = struct.unpack_from(">Ii", body, at)
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
    struct.pack_into(">Ii", body, at, duration * 6 // 10, int(Fraction(4, 25) / base))
    path.write_bytes(body)
    cut = read_video(path).frames
    assert len(cut) == 6
    assert (cut == whole[4:]).all()


def test_metadata_in_another_encoding_is_no_damage(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.mp4", moving(2), codec="mpeg4", pixels="yuv420p", container={"movflags": "use_metadata_tags"}
    )
    before = read_video(path).frames
    body = path.read_bytes()
    assert body.count(b"VideoHandler") == 1
    path.write_bytes(body.replace(b"VideoHandler", b"Cam\xe9ra\xff\xfe    "))
    assert (read_video(path).frames == before).all()


WITHOUT_SIMD = """
import ctypes, glob, os, sys
import av
if sys.argv[1] == "c":
    (library,) = glob.glob(os.path.join(os.path.dirname(os.path.dirname(av.__file__)), "av.libs", "libavutil*"))
    ctypes.CDLL(library).av_force_cpu_flags(0)
from bcd_bench.io.video import read_video
for path in sys.argv[2:]:
    print(read_video(path).sha256, read_video(path, size=(37, 41)).sha256, read_video(path, size=(96, 100)).sha256)
"""


def test_pixels_do_not_depend_on_the_processor(tmp_path: Path) -> None:
    if not list(Path(av.__file__).parents[1].glob("av.libs/libavutil*")):
        pytest.skip("this PyAV brings no libraries of its own, whose use of the processor could be limited")
    kinds = (
        "yuv420p",
        "yuv422p",
        "yuv444p",
        "yuv420p10le",
        "yuv444p16le",
        "gray",
        "rgb48le",
        "gbrp10le",
        "bgra",
        "yuva420p",
    )
    paths = [
        write(tmp_path / f"{kind}-{width}.mkv", moving(2, 48, width), pixels=kind)
        for kind in kinds
        for width in (64, 61)
    ]
    paths.append(
        write(tmp_path / "wide.mp4", moving(3), codec="libx264", pixels="yuv420p", sample_aspect_ratio=Fraction(4, 3))
    )
    said = [
        subprocess.run(
            [sys.executable, "-c", WITHOUT_SIMD, mode, *map(str, paths)], capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for mode in ("simd", "c")
    ]
    assert len(said[0]) == len(paths)
    different = [path.name for path, one, other in zip(paths, *said, strict=True) if one != other]
    assert different == []


def test_a_resize_by_area_is_the_mean_and_flat_colours_stay(tmp_path: Path) -> None:
    frame = moving(1)[0]
    half = frame.reshape(24, 2, 32, 2, 3).mean(axis=(1, 3))
    assert np.abs(resize_frame(frame, (24, 32)) - half).max() <= 0.75
    for colour in ((0, 0, 0), (255, 255, 255), (255, 0, 0), (13, 200, 97)):
        flat = np.full((20, 30, 3), colour, np.uint8)
        for size in ((10, 15), (7, 11), (40, 60), (33, 31)):
            assert (resize_frame(flat, size) == colour).all()
    assert resize_frame(frame, (48, 64)) is frame, "nothing is done where nothing is to be done"


def test_an_untested_pyav_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video_lossless(tmp_path / "x.mkv", Clip(moving(1), 25.0))
    for version in ("14.0.0", "16.1.0", "17.0.1", "19.0.0", "99.0.0"):
        monkeypatch.setattr(av, "__version__", version)
        with pytest.raises(UsageError, match=f"PyAV {version} is installed; reading videos requires") as caught:
            read_video(tmp_path / "x.mkv")
        assert caught.value.hint is not None
        assert caught.value.hint.startswith('pip install "av>=')
