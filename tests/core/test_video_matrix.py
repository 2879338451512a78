"""Containers, codecs, pixel formats, ranges, matrices and pixel shapes, against the ffmpeg program's own conversion."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bcd_bench.io.video import read_video

WIDTH, HEIGHT, FRAMES = 64, 48, 3
EXACT = "accurate_rnd+full_chroma_int+bicubic"
FFMPEG = shutil.which("ffmpeg")


@dataclass(frozen=True)
class Case:
    """How ffmpeg makes the file."""

    name: str
    codec: str
    pixels: str
    space: str = ""
    """Colour matrix as ffmpeg names it; "" leaves it unspecified."""
    range: str = ""
    aspect: str = "1"
    rate: str = "25"
    options: tuple[str, ...] = ()
    width: int = WIDTH
    height: int = HEIGHT

    def __str__(self) -> str:
        parts = (self.name, self.codec, self.pixels, self.space, self.range, self.aspect, self.rate)
        return " ".join(part for part in (*parts, *self.options[1::2]) if part not in ("", "1", "25"))


X264, X265 = ("-crf", "6"), ("-crf", "6", "-x265-params", "log-level=error")
LEFT = ("libx264", "libx265", "mpeg4", "mpeg2video")
"""Codecs whose chroma samples lie above one another with the left of two pixels, and whose decoders say so."""
MATRICES = ("bt709", "smpte170m", "bt470bg", "bt2020nc", "fcc", "smpte240m")
Q2 = ("-q:v", "2")
CASES = [
    *(Case("a.mp4", "libx264", "yuv420p", space, kind, options=X264) for space in MATRICES for kind in ("tv", "pc")),
    *(Case("a.mkv", "ffv1", "yuv444p", space, kind) for space in ("bt709", "bt2020nc", "")
      for kind in ("tv", "pc", "")),
    *(Case("a.mkv", "libx264", pixels, "bt709", options=X264) for pixels in
      ("yuv422p", "yuv444p", "yuv420p10le", "gray")),
    *(Case("a.mp4", "libx265", pixels, "bt2020nc", options=X265) for pixels in
      ("yuv420p", "yuv420p10le", "yuv444p12le")),
    *(
        Case("a.mkv", "ffv1", pixels)
        for pixels in (
            "yuv420p", "yuv422p", "yuv411p", "yuv410p", "yuv440p", "yuv420p10le", "yuv422p12le", "yuv444p16le", "gray",
            "gray10le", "gray16le", "bgr0", "bgra", "gbrp10le", "rgb48le", "yuva420p", "yuva444p", "ya8",
        )
    ),
    *(Case("a.mov", "png", pixels) for pixels in
      ("rgb24", "rgba", "gray", "gray16be", "rgb48be", "ya8", "monob", "pal8")),
    *(Case("a.avi", "mjpeg", pixels, options=Q2) for pixels in ("yuvj420p", "yuvj422p", "yuvj444p")),
    *(Case("a.avi", "rawvideo", pixels) for pixels in ("yuv420p", "uyvy422", "yuyv422", "bgr24")),
    *(Case("a.nut", "rawvideo", pixels) for pixels in ("nv12", "p010le", "rgb24", "rgb565le", "gray", "abgr")),
    *(Case("a.webm", codec, "yuv420p", options=("-b:v", "2M")) for codec in ("libvpx", "libvpx-vp9")),
    Case("a.webm", "libvpx-vp9", "yuv444p", "bt709", options=("-b:v", "2M")),
    Case("a.mov", "prores_ks", "yuv422p10le"),
    Case("a.mov", "prores_ks", "yuva444p10le"),
    Case("a.avi", "utvideo", "yuv422p"),
    Case("a.avi", "huffyuv", "yuv422p"),
    Case("a.mpg", "mpeg2video", "yuv420p", options=Q2),
    Case("a.mpg", "mpeg1video", "yuv420p", options=Q2),
    Case("a.y4m", "wrapped_avframe", "yuv420p"),
    Case("a.y4m", "wrapped_avframe", "yuv444p"),
    Case("a.gif", "gif", "bgr8"),
    Case("a.flv", "flv1", "yuv420p", options=Q2),
    *(Case("a.mp4", "libx264", "yuv420p", "bt709", aspect=aspect, options=X264) for aspect in
      ("4/3", "10/11", "2", "1/2")),
    *(Case("a.avi", "mpeg4", "yuv420p", aspect=aspect, options=Q2) for aspect in ("16/15", "12/11")),
    *(Case("a.mp4", "libx264", "yuv420p", rate=rate, options=X264) for rate in ("30000/1001", "8", "50", "120")),
    Case("a.mkv", "ffv1", "yuv420p", width=63, height=47),
    Case("a.mkv", "ffv1", "yuv422p10le", "bt709", width=33, height=17),
    Case("a.mp4", "libx264", "yuv444p", options=X264, width=35, height=21),
    Case("a.png", "png", "rgb24"),
    Case("a.png", "png", "rgba"),
    Case("a.jpg", "mjpeg", "yuvj420p", options=Q2),
    Case("a.webp", "libwebp", "yuv420p", options=("-lossless", "0")),
    Case("a.bmp", "bmp", "bgr24"),
]  # fmt: skip


def ffmpeg(*arguments: str | Path) -> bytes:
    assert FFMPEG is not None
    done = subprocess.run([FFMPEG, "-v", "error", "-y", *arguments], capture_output=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def made(case: Case, folder: Path) -> Path:
    """Moving coloured shapes over smooth gradients, as the case wants them."""
    path = folder / case.name
    scale = f"scale={case.width}:{case.height}:flags={EXACT}"
    if case.space and case.pixels != "gray":
        scale += f":out_color_matrix={case.space}"
    if case.range:
        scale += f":out_range={case.range}"
    filters = [scale, f"setsar={case.aspect}", f"format={case.pixels}"]
    tags = [*(("-colorspace", case.space) if case.space else ()), *(("-color_range", case.range) if case.range else ())]
    still = case.name.rpartition(".")[2] in ("png", "jpg", "webp", "bmp")
    ffmpeg(
        "-f", "lavfi", "-i", f"testsrc2=size={case.width}x{case.height}:rate={case.rate}", "-frames:v",
        "1" if still else str(FRAMES), "-vf", ",".join(filters), "-c:v", case.codec, *tags, *case.options, path,
    )  # fmt: skip
    return path


def shown_by_ffmpeg(path: Path, case: Case, shape: tuple[int, ...]) -> np.ndarray:
    scale = f"scale=iw*sar:ih:flags={EXACT}"
    if case.codec in LEFT and case.pixels.startswith(("yuv420", "yuv422")):
        # What the stream says; programs before version 7.1 take chroma to lie in the middle whatever it says.
        scale += ":in_h_chr_pos=0" + ":in_v_chr_pos=128" * case.pixels.startswith("yuv420")
    raw = ffmpeg("-i", path, "-vf", f"{scale},format=rgb24", "-fps_mode", "passthrough", "-f", "rawvideo", "-")
    assert len(raw) == np.prod(shape), "another geometry"
    return np.frombuffer(raw, np.uint8).reshape(shape)


@pytest.mark.skipif(FFMPEG is None, reason="the ffmpeg program is not installed")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_frames_are_those_ffmpeg_shows(case: Case, tmp_path: Path) -> None:
    path = made(case, tmp_path)
    clip = read_video(path)
    numerator, _, denominator = case.aspect.partition("/")
    width = case.width * int(numerator) // int(denominator or 1)
    assert clip.frames.shape[1:] == (case.height, width, 3)
    assert len(clip) in (1, FRAMES)
    numerator, _, denominator = case.rate.partition("/")
    if case.name.rpartition(".")[2] not in ("gif", "mpg"):
        assert clip.fps == pytest.approx(int(numerator) / int(denominator or 1), rel=1e-3)
    expected = shown_by_ffmpeg(path, case, clip.frames.shape)
    difference = np.abs(clip.frames.astype(int) - expected)
    assert difference.mean() < 0.5
    assert difference.max() <= 6


GOOD = {
    "periodic refresh.mp4": ("-c:v", "libx264", "-x264-params", "intra-refresh=1:keyint=10"),
    "open.mp4": ("-c:v", "libx264", "-x264-params", "open-gop=1:keyint=10:bframes=3"),
    "slices.mkv": ("-c:v", "libx264", "-x264-params", "slices=4:keyint=10"),
    "hidden frames.webm": ("-c:v", "libvpx", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-b:v", "300k"),
    "packed.avi": ("-c:v", "libxvid", "-bf", "2", "-q:v", "3"),
    "fragments.mp4": ("-c:v", "libx264", "-g", "10", "-movflags", "frag_keyframe+empty_moov"),
    "live.mkv": ("-c:v", "libx264", "-f", "matroska", "-live", "1"),
    "before zero.mkv": ("-c:v", "libx264", "-vf", "setpts=PTS-0.5/TB"),
    "first version.mkv": ("-c:v", "ffv1", "-level", "1"),
    "no checksums.avi": ("-c:v", "ffv1", "-level", "3", "-slicecrc", "0"),
    "checksums.avi": ("-c:v", "ffv1", "-level", "3", "-slicecrc", "1", "-slices", "4"),
    "stream.ts": ("-c:v", "mpeg2video", "-q:v", "3"),
    "variable.mp4": ("-c:v", "libx264", "-vf", "select=not(mod(n\\,3))*lt(n\\,20)+gte(n\\,20)", "-fps_mode", "vfr"),
}
"""Good files of kinds that a strict reader could take for damaged."""


@pytest.mark.skipif(FFMPEG is None, reason="the ffmpeg program is not installed")
@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut without encoding"])
def test_odd_but_good_files_are_read_whole(tmp_path: Path, name: str, cut: bool) -> None:
    path = tmp_path / name
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25", "-frames:v", "50", *GOOD[name], path)
    if cut:
        whole, path = path, tmp_path / f"cut {name}"
        ffmpeg("-ss", "0.9", "-i", whole, "-c", "copy", path)
    raw = ffmpeg("-i", path, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "gray", "-")
    assert len(read_video(path)) == len(raw) // (64 * 48) > 10
