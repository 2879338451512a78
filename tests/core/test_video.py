"""Video: lossless for every shape, bytes that depend on the frames alone, ranges, crops, and clear errors."""

from __future__ import annotations

import hashlib
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bcd_bench import Clip, ClipRef, VideoFile
from bcd_bench.assets.hashing import sha256_file
from bcd_bench.io.video import (
    READER,
    encode_lossless,
    read_video,
    save_frames,
    write_preview,
    write_video_lossless,
)
from bcd_bench.types.errors import UsageError


def noise(frames: int = 5, height: int = 16, width: int = 24, fps: float = 8.0, seed: int = 0) -> Clip:
    rng = np.random.default_rng(seed)
    return Clip(rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8), fps)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 6), st.integers(1, 70), st.integers(1, 70), st.integers(0, 9))
def test_every_frame_comes_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, frames: int, height: int, width: int, seed: int
) -> None:
    clip = noise(frames, height, width, seed=seed)
    path = tmp_path_factory.mktemp("v") / "x.mkv"
    write_video_lossless(path, clip)
    back = read_video(path)
    assert back.frames.shape == clip.frames.shape
    assert (back.frames == clip.frames).all()
    assert (back.sha256, back.id) == (clip.sha256, "x")


@pytest.mark.parametrize("fps", [8.0, 25.0, 30000 / 1001, 23.976, 12.5])
def test_the_frame_rate_comes_back(tmp_path: Path, fps: float) -> None:
    write_video_lossless(tmp_path / "x.mkv", noise(fps=fps))
    assert read_video(tmp_path / "x.mkv").fps == pytest.approx(fps, rel=1e-4)


def test_the_bytes_depend_on_the_frames_alone(tmp_path: Path) -> None:
    clip = noise()
    write_video_lossless(tmp_path / "a.mkv", clip)
    write_video_lossless(tmp_path / "b.mkv", Clip(np.asfortranarray(clip.frames), clip.fps, "another id"))
    first = (tmp_path / "a.mkv").read_bytes()
    assert (tmp_path / "b.mkv").read_bytes() == first == encode_lossless(clip)
    assert encode_lossless(noise(seed=1)) != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mkv", "b.mkv"], "no temporary file stays"


def test_large_frames_are_read_with_threads_and_stay_exact(tmp_path: Path) -> None:
    clip = noise(3, 520, 530)
    write_video_lossless(tmp_path / "x.mkv", clip)
    assert read_video(tmp_path / "x.mkv").sha256 == clip.sha256


def test_ranges_and_crops(tmp_path: Path) -> None:
    clip = noise(6)
    write_video_lossless(tmp_path / "x.mkv", clip)
    part = read_video(tmp_path / "x.mkv", start=2, stop=5, crop=(3, 1, 13, 9))
    assert (part.frames == clip.frames[2:5, 1:9, 3:13]).all()
    assert (read_video(tmp_path / "x.mkv", start=4).frames == clip.frames[4:]).all()


@pytest.mark.parametrize("size", [(8, 12), (32, 48), (16, 24), (7, 31)])
def test_a_resize_keeps_flat_colours(tmp_path: Path, size: tuple[int, int]) -> None:
    flat = Clip(np.full((2, 16, 24, 3), (10, 120, 250), np.uint8), 8.0)
    write_video_lossless(tmp_path / "x.mkv", flat)
    small = read_video(tmp_path / "x.mkv", size=size)
    assert small.frames.shape == (2, *size, 3)
    assert np.abs(small.frames.astype(int) - (10, 120, 250)).max() <= 1


def test_a_reference_to_a_file_loads_and_notices_a_change(tmp_path: Path) -> None:
    clip = noise()
    path = tmp_path / "x.mkv"
    write_video_lossless(path, clip)
    source = VideoFile(path, sha256_file(path), start=1)
    assert "x.mkv" not in str(source.describe())
    assert source.describe()["reader"] == READER, "other pixels make another manifest"
    assert (ClipRef("r", source).load().frames == clip.frames[1:]).all()
    with pytest.raises(UsageError, match="clip r: its pixels differ"):
        ClipRef("r", source, sha256=clip.sha256).load()


def test_bad_files_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "x.mkv"
    with pytest.raises(UsageError, match=r"cannot read video .*x\.mkv: No such file"):
        read_video(path)
    path.write_bytes(b"no video at all")
    with pytest.raises(UsageError, match="cannot read video"):
        read_video(path)
    write_video_lossless(path, noise(3))
    with pytest.raises(UsageError, match=r"x\.mkv is too short: frames 2 to 6 requested, 1 found"):
        read_video(path, start=2, stop=6)
    with pytest.raises(UsageError, match="too short: frames 9 to the end requested, 0 found"):
        read_video(path, start=9)
    with pytest.raises(UsageError, match=r"crop \[0, 0, 99, 4\] exceeds the 24x16 frame"):
        read_video(path, crop=(0, 0, 99, 4))


def test_a_file_without_pictures_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(UsageError, match=r"cannot read video .*sound\.mkv: no video stream"):
        read_video(path)


def test_other_codecs_are_read_too(tmp_path: Path) -> None:
    flat = Clip(np.full((4, 17, 21, 3), (200, 30, 60), np.uint8), 10.0)
    write_preview(tmp_path / "x.mp4", flat, scale=2)
    back = read_video(tmp_path / "x.mp4")
    assert back.frames.shape == (4, 34, 42, 3)
    assert np.abs(back.frames.astype(int) - (200, 30, 60)).max() <= 12, "lossy, but the same colour"


def test_the_layout_of_the_file_is_what_we_say(tmp_path: Path) -> None:
    write_video_lossless(tmp_path / "x.mkv", noise())
    with av.open(str(tmp_path / "x.mkv")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("ffv1", "bgr0")
        assert [key for key in container.metadata if key.lower() not in ("encoder", "duration")] == []


def test_the_hash_of_a_clip_is_over_shape_and_pixels() -> None:
    frames = np.zeros((1, 2, 3, 3), np.uint8)
    expected = hashlib.sha256(b"[1, 2, 3, 3]" + bytes(18)).hexdigest()
    assert Clip(frames, 8.0).sha256 == Clip(frames, 25.0, "x").sha256 == expected


def test_frames_are_written_as_they_come(tmp_path: Path) -> None:
    clip = noise(7, 15, 21, fps=30000 / 1001)
    save_frames(tmp_path / "a.mkv", iter(clip.frames), clip.fps)
    assert read_video(tmp_path / "a.mkv").sha256 == clip.sha256
    assert read_video(tmp_path / "a.mkv").fps == pytest.approx(30000 / 1001)
    flat = np.full((4, 15, 21, 3), 130, np.uint8)
    save_frames(tmp_path / "a.mp4", iter(flat), 25.0)
    back = read_video(tmp_path / "a.mp4").frames
    assert back.shape == (4, 16, 22, 3)  # H.264 needs even sides
    assert np.abs(back.astype(int) - 130).max() <= 2
    with pytest.raises(ValueError, match="no frames to write"):
        save_frames(tmp_path / "b.mkv", iter([]), 25.0)
    assert not list(tmp_path.glob("b*"))
    with pytest.raises(UsageError, match=r"has to end in \.mp4"):
        save_frames(tmp_path / "c.gif", iter(flat), 25.0)
