"""`bcd-bench transfer`: what is cropped, when each frame is shown, what the file holds, and what is refused."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import made_videos
import numpy as np
import pytest
import transfer_toy
from PIL import Image

import bcd_bench as bb
from bcd_bench.assets.hashing import sha256_file
from bcd_bench.cli.app import main
from bcd_bench.inference import method as inference_method
from bcd_bench.inference import prepare
from bcd_bench.inference.compose import bounded, paste_back
from bcd_bench.io.video import read_video
from bcd_bench.plugin.registry import Registry
from bcd_bench.testing import preprocessor_checks
from bcd_bench.testing.check import Subject
from bcd_bench.types.crop import Crop
from bcd_bench.types.errors import UsageError

RED = (220, 20, 20)


@pytest.fixture(autouse=True)
def registry(bcd_bench_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry.from_modules([transfer_toy])
    monkeypatch.setattr(inference_method, "load_registry", lambda: found)
    monkeypatch.setattr("bcd_bench.plugin.registry.load_registry", lambda: found)
    monkeypatch.chdir(tmp_path)
    return found


def scene(count: int = 6, size: tuple[int, int] = (80, 120), square: tuple[int, int, int] = (30, 20, 40)) -> np.ndarray:
    """uint8[count, H, W, 3]: a red square (left, top, side) on a grey that grows by 20 per frame, from 20."""
    frames = np.zeros((count, *size, 3), np.uint8)
    frames += (20 + 20 * np.arange(count, dtype=np.uint8))[:, None, None, None]
    left, top, side = square
    frames[:, top : top + side, left : left + side] = RED
    return frames


def inside(count: int = 6) -> np.ndarray:
    """As `scene`, with the frame's grey in the lower half of the square as well."""
    frames = scene(count)
    frames[:, 42:58, 34:66] = (np.arange(count, dtype=np.uint8) * 20)[:, None, None, None] + 20
    return frames


def with_sound(path: Path, frames: np.ndarray, fps: int, seconds: float, *, begins: float = 0.0) -> Path:
    """An .mp4 of `frames` with a stereo tone of `seconds`, from `begins` on; its level is 0.25."""
    rate = 44100
    with av.open(str(path), "w") as out:
        video: Any = out.add_stream("libx264", rate=fps)
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        audio: Any = out.add_stream("aac", rate=rate)
        audio.layout = "stereo"
        for index, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, fps)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        tone = 0.25 * np.sign(np.sin(2 * np.pi * 300 * np.arange(int(seconds * rate)) / rate))
        sound = av.AudioFrame.from_ndarray(np.repeat(tone[None], 2, 0).astype(np.float32), "fltp", "stereo")
        sound.sample_rate, sound.pts, sound.time_base = rate, round(begins * rate), Fraction(1, rate)
        out.mux(audio.encode(sound))
        out.mux(audio.encode(None))
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main(["transfer", *map(str, arguments)])
    captured = capsys.readouterr()
    return stop.value.code, captured.out, captured.err


def tags(path: Path) -> dict[str, str]:
    with av.open(str(path)) as container:
        return dict(container.metadata)


def sound_of(path: Path) -> np.ndarray:
    """float32[samples] of the first channel, from the first frame on."""
    with av.open(str(path)) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(container.streams.audio[0])])


def photo(path: Path, frame: np.ndarray, orientation: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(frame).save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))
    return path


def test_a_photo_and_a_video_are_cropped_resampled_and_written(capsys, tmp_path: Path) -> None:
    content = photo(tmp_path / "photo.png", scene(1)[0])
    motion = made_videos.write(tmp_path / "motion.mkv", inside(6), rate=20)
    code, out, err = run(capsys, "--method", "half", "--content", content, "--motion", motion, "--output", "out.mkv")
    assert (code, out.split(" in ")[0]) == (0, "out.mkv: 3 frames at 10 fps")
    assert "note: it is red" in err
    assert "3/3 frames" in err
    clip = read_video(tmp_path / "out.mkv")
    assert (clip.frames.shape, clip.fps) == ((3, 32, 32, 3), 10.0)
    # Frames 0, 2 and 4 of the driving clip, at 0, 0.1 and 0.2 s: their grey over the red of the content.
    middle = clip.frames[:, 22, 16].astype(int)
    np.testing.assert_allclose(middle, [[(RED[c] + 20 + 40 * t) / 2 for c in range(3)] for t in range(3)], atol=1)
    np.testing.assert_allclose(clip.frames[:, 2, 2], [RED] * 3, atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_exif_orientation_decides_which_pixels_are_up(tmp_path: Path, orientation: int, ending: str) -> None:
    upright = np.zeros((16, 32, 3), np.uint8)
    upright[:, :16], upright[:8, 16:], upright[8:, 16:] = (250, 20, 20), (20, 250, 20), (20, 20, 250)
    undo = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    path = photo(tmp_path / f"photo.{ending}", np.ascontiguousarray(undo(upright)), orientation)
    result = bb.transfer("copy-content", content=path, motion=np.zeros((3, 16, 32, 3), np.uint8))
    assert result.frames.shape == (3, 16, 32, 3)
    for frame in result.frames:
        for (row, column), colour in {(8, 6): (250, 20, 20), (3, 26): (20, 250, 20), (12, 26): (20, 20, 250)}.items():
            np.testing.assert_allclose(frame[row, column], colour, atol=40)


def test_time_stamps_decide_which_frame_is_shown(tmp_path: Path) -> None:
    stamps = [0, 100, 130, 160, 400, 500]
    made_videos.write(tmp_path / "m.mkv", inside(6), rate=20, stamps=stamps)
    result = bb.transfer("half", content=scene(1), motion=tmp_path / "m.mkv", crop=True)
    nearest = [int(np.argmin([abs(stamp - 100 * k) for stamp in stamps])) for k in range(6)]
    assert nearest == [0, 1, 3, 4, 4, 5]
    greys = result.frames[:, 22, 16, 2].astype(int) * 2 - RED[2]
    np.testing.assert_allclose(greys, [20 + 20 * index for index in nearest], atol=2)


def test_rotated_videos_are_upright(tmp_path: Path) -> None:
    tall = scene(4, (120, 80), (20, 60, 40))
    stored = np.ascontiguousarray(np.rot90(tall, 1, axes=(1, 2)))
    path = made_videos.write(tmp_path / "m.mp4", stored, codec="mpeg4", pixels="yuv420p", options={"qscale": "1"})
    made_videos.turn_header(path, 0, 1, -1, 0)
    result = bb.transfer("copy-motion", content=scene(1), motion=path)
    assert result.frames.shape[1:3] == (120, 80)
    assert result.frames[0, 80, 40, 0] > 180
    assert result.frames[0, 20, 40, 0] < 80


def test_files_play_everywhere_and_say_that_they_are_synthetic(capsys, tmp_path: Path) -> None:
    made_videos.write(tmp_path / "m.mkv", inside(6), rate=10)
    photo(tmp_path / "p.png", scene(1)[0])
    code, _, _ = run(capsys, "--method", "weighted", "--content", "p.png", "--motion", "m.mkv", "--output", "o.mp4",
                     "--seed", 5)  # fmt: skip
    assert code == 0
    body = (tmp_path / "o.mp4").read_bytes()
    assert body.index(b"moov") < body.index(b"mdat")
    with av.open(str(tmp_path / "o.mp4")) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt, codec.profile) == ("h264", "yuv420p", "High")
        assert (codec.colorspace, codec.color_range) == (1, 1)
        assert not container.streams.audio
    found = tags(tmp_path / "o.mp4")
    expected = {
        "synthetic": "true",
        "tool": "bcd-bench",
        "tool_version": bb.__version__,
        "method": "weighted",
        "method_version": "1",
        "weights": "toy",
        "weights_sha256": sha256_file(Path(transfer_toy.__file__)),
        "seed": "5",
    }
    assert {key: found[key] for key in expected} == expected
    assert found["comment"].startswith("Synthetic video")
    assert str(tmp_path) not in repr(found)
    np.testing.assert_allclose(read_video(tmp_path / "o.mp4").frames[0, 4, 4], [20, 20, 20], atol=3)


@pytest.mark.parametrize("seconds", [2.0, 0.6])
def test_the_sound_of_the_driving_clip_is_kept(tmp_path: Path, seconds: float) -> None:
    motion = with_sound(tmp_path / "m.mp4", inside(10), 10, seconds)
    bb.transfer("half", content=scene(1), motion=motion, output=tmp_path / "o.mp4", crop=False)
    with av.open(str(tmp_path / "o.mp4")) as container:
        audio = container.streams.audio[0]
        assert (audio.codec_context.name, audio.rate, audio.channels) == ("aac", 44100, 2)
    sound = sound_of(tmp_path / "o.mp4")
    assert len(sound) / 44100 == pytest.approx(min(seconds, 1.0), abs=0.1)
    assert np.abs(sound[4410:22050]).mean() == pytest.approx(0.25, abs=0.05)
    bb.transfer("half", content=scene(1), motion=motion, output=tmp_path / "o.mp4", crop=False, audio=False)
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert not container.streams.audio


def test_sound_that_begins_late_stays_late(tmp_path: Path) -> None:
    motion = with_sound(tmp_path / "m.mp4", inside(10), 10, 1.0, begins=0.5)
    bb.transfer("half", content=scene(1), motion=motion, output=tmp_path / "o.mp4", crop=False)
    sound = np.abs(sound_of(tmp_path / "o.mp4"))
    assert sound[: int(0.4 * 44100)].max() < 0.05
    assert sound[int(0.6 * 44100) : int(0.9 * 44100)].mean() == pytest.approx(0.25, abs=0.05)


def test_paste_back_leaves_the_pixels_outside_the_crop_as_they_are(capsys, tmp_path: Path) -> None:
    background = np.random.default_rng(0).integers(60, 120, (80, 120, 3), np.uint8)
    background[20:60, 30:70] = RED
    photo(tmp_path / "p.png", background)
    made_videos.write(tmp_path / "m.mkv", inside(4), rate=10)
    code, _, _ = run(capsys, "--method", "half", "--content", "p.png", "--motion", "m.mkv", "--output", "o.mkv",
                     "--paste-back")  # fmt: skip
    assert code == 0
    frames = read_video(tmp_path / "o.mkv").frames
    outside = np.ones((80, 120), bool)
    outside[20:60, 30:70] = False
    assert (frames[:, outside] == background[outside]).all()
    np.testing.assert_allclose(frames[3, 48, 50], [(channel + 80) / 2 for channel in RED], atol=2)


def test_the_seam_of_a_pasted_output_is_gradual_but_not_at_the_border_of_the_frame() -> None:
    frame, white = np.zeros((40, 60, 3), np.uint8), np.full((1, 8, 8, 3), 255, np.uint8)
    [pasted] = paste_back(white, frame, Crop(0, 10, 20, 30))
    assert pasted[20, 0, 0] == 255  # at the border of the frame
    row = pasted[20, 17:21, 0].astype(int)
    assert 255 >= row[0] > row[1] > row[2] > row[3] == 0
    assert pasted[10, 10, 0] < 60
    assert (pasted[:10] == 0).all()


def test_large_photos_are_reduced_to_what_players_decode() -> None:
    frame, crop = bounded(np.zeros((3000, 4001, 3), np.uint8), Crop(1000, 500, 3000, 2500))
    assert frame.shape == (1440, 1920, 3)
    assert (crop.left, crop.top) == (480, 240)
    assert crop.size == (960, 960)


@pytest.mark.parametrize("pasted", [False, True])
def test_side_by_side_shows_content_motion_and_result(capsys, tmp_path: Path, pasted: bool) -> None:
    photo(tmp_path / "p.png", scene(1)[0])
    made_videos.write(tmp_path / "m.mkv", inside(4), rate=10)
    arguments = ["--method", "half", "--content", "p.png", "--motion", "m.mkv", "--output", "o.mkv", "--side-by-side"]
    assert run(capsys, *arguments, *(["--paste-back"] if pasted else []))[0] == 0
    frames = read_video(tmp_path / "o.mkv").frames
    if pasted:
        assert frames.shape == (4, 80, 120 + 80 + 120, 3)
        return
    assert frames.shape == (4, 32, 3 * 32, 3)
    np.testing.assert_allclose(frames[3, 22, [16, 48, 80]], [RED, (80, 80, 80), (150, 50, 50)], atol=2)


def test_several_driving_videos_make_several_files_and_a_broken_one_stops_none(capsys, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", scene(1)[0])
    (tmp_path / "x").mkdir()
    for name in ("a.mkv", "x/a.mkv", "b.mkv"):
        made_videos.write(tmp_path / name, inside(4), rate=10)
    (tmp_path / "bad.mp4").write_bytes(b"not a video" * 100)
    made_videos.write(tmp_path / "blank.mkv", np.zeros((4, 40, 40, 3), np.uint8), rate=10)
    motions = [word for name in ("a.mkv", "bad.mp4", "blank.mkv", "x/a.mkv", "b.mkv") for word in ("--motion", name)]
    code, out, err = run(capsys, "--method", "half", "--content", "p.png", *motions, "--output", "new/folder")
    assert code == 1
    assert sorted(path.name for path in (tmp_path / "new" / "folder").iterdir()) == ["a-2.mp4", "a.mp4", "b.mp4"]
    assert len(out.splitlines()) == 3
    assert "error: bad.mp4: cannot read bad.mp4: cannot be decoded" in err
    assert "error: blank.mkv: blank.mkv: no red square was found\nhint: use --no-crop" in err
    assert "3 of 5 videos written" in err


def test_whole_frames_are_used_without_a_preprocessor_or_with_no_crop(capsys, tmp_path: Path) -> None:
    photo(tmp_path / "p.png", scene(1)[0])
    made_videos.write(tmp_path / "m.mkv", inside(4), rate=20)
    for method, more, count in (("half", ["--no-crop"], 2), ("whole", [], 4)):
        code, _, err = run(
            capsys, "--method", method, "--content", "p.png", "--motion", "m.mkv", "--output", "o.mkv", *more
        )
        assert (code, "red" in err) == (0, False)
        frames = read_video(tmp_path / "o.mkv").frames
        assert len(frames) == count  # --no-crop keeps the rate of the domain
        np.testing.assert_allclose(frames[0, 1, 1], [20] * 3, atol=1)


def test_frames_limits_the_driving_video(capsys, tmp_path: Path) -> None:
    made_videos.write(tmp_path / "m.mkv", inside(6), rate=10)
    photo(tmp_path / "p.png", scene(1)[0])
    arguments = ("--method", "half", "--content", "p.png", "--motion", "m.mkv", "--output", "o.mkv", "--frames", 3)
    assert run(capsys, *arguments)[0] == 0
    assert len(read_video(tmp_path / "o.mkv").frames) == 3


@pytest.mark.parametrize(
    ("changes", "code", "message"),
    [
        ({"--method": "hafl"}, 2, "error: unknown method 'hafl'; did you mean half?"),
        ({"--content": "absent.jpg"}, 2, "error: absent.jpg does not exist"),
        ({"--content": "text.png"}, 2, "error: cannot read text.png: damaged"),
        ({"--content": "grey.png"}, 2, "error: grey.png: no red square was found\nhint: use --no-crop"),
        ({"--motion": "absent.mp4"}, 2, "error: absent.mp4 does not exist"),
        ({"--motion": "p.png"}, 2, "error: p.png is a photo; the driving clip must be a video"),
        ({"--motion": "one.mkv"}, 2, "error: one.mkv has only one frame at 10 per second"),
        ({"--output": "m.mkv"}, 2, "error: m.mkv is both an input and the output\nhint: use another --output"),
        ({"--output": "o.gif"}, 2, "error: cannot write o.gif: the name has to end in .mp4 (H.264) or .mkv"),
        ({"--output": "no/o.mp4"}, 2, "error: cannot write no/o.mp4: the folder no does not exist"),
        ({"--method": "broken"}, 1, "error: broken: RuntimeError: the network is down (transfer_toy.py:"),
        ({"--method": "missing"}, 2, "error: no installed plugin provides 'circles', the preprocessor of method"),
        ({"--method": "whole", "--paste-back": None}, 2, "error: --paste-back needs a content clip that is cropped"),
        ({"--no-crop": None, "--paste-back": None}, 2, "error: --paste-back needs a content clip that is cropped"),
        ({"--set": "steps=3"}, 2, "error: method 'half' has no setting 'steps'"),
        ({"--weights": "none.safetensors"}, 2, "error: --weights 'none.safetensors': no such file"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(capsys, tmp_path: Path, changes, code: int, message: str) -> None:
    photo(tmp_path / "p.png", scene(1)[0])
    Image.new("RGB", (90, 90), (90, 90, 90)).save(tmp_path / "grey.png")
    (tmp_path / "text.png").write_text("a text\n" * 50)
    made_videos.write(tmp_path / "m.mkv", inside(6), rate=20)
    made_videos.write(tmp_path / "one.mkv", inside(1), rate=20)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    options = {"--method": "half", "--content": "p.png", "--motion": "m.mkv", "--output": "o.mp4", **changes}
    words = [word for key, value in options.items() for word in (key, value) if word is not None]
    found, out, err = run(capsys, *words)
    lines = [line for line in err.splitlines() if not line.startswith(("transfer: ", "note: "))]
    assert (found, out) == (code, "")
    assert "\n".join(lines).startswith(message)
    assert len(lines) <= 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_missing_weights_end_with_their_own_code(capsys, tmp_path: Path, registry: Registry) -> None:
    registry.add("assets", bb.AssetSpec("gone", "gone.bin", "ab" * 32, 3, "MIT", "ask for it"), registry.plugins[0])
    photo(tmp_path / "p.png", scene(1)[0])
    made_videos.write(tmp_path / "m.mkv", inside(6), rate=20)
    code, _, err = run(capsys, "--method", "assetless", "--content", "p.png", "--motion", "m.mkv", "--output", "o.mp4")
    assert code == 3
    assert "hint: bcd-bench assets add gone PATH" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told_before_the_work(capsys, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    made_videos.write(tmp_path / "m.mkv", inside(6), rate=20)
    photo(tmp_path / "p.png", scene(1)[0])
    code, _, err = run(
        capsys, "--method", "half", "--content", "p.png", "--motion", "m.mkv", "--output", "locked/o.mp4"
    )
    assert (code, err.splitlines()[0]) == (2, "error: cannot write locked/o.mp4: permission denied")


def test_an_interrupted_transfer_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made_videos.write(tmp_path / "m.mkv", inside(6), rate=20)

    def interrupted(*arguments: object, **options: object) -> object:
        yield np.zeros((32, 32, 3), np.uint8)
        raise KeyboardInterrupt

    monkeypatch.setattr("bcd_bench.inference.write._frames", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bb.transfer("half", content=scene(1), motion=tmp_path / "m.mkv", output=tmp_path / "o.mp4", crop=False)
    assert {path.name for path in tmp_path.iterdir()} == {"m.mkv"}


def test_a_video_that_does_not_fit_into_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "LARGEST", 3 * 32 * 32 * 3)
    made_videos.write(tmp_path / "m.mkv", inside(6), rate=10)
    with pytest.raises(UsageError, match="is too long: 4 frames of 32x32 pixels do not fit into memory") as caught:
        bb.transfer("half", content=scene(1), motion=tmp_path / "m.mkv")
    assert caught.value.hint == "--frames 2 uses only its start"


def test_clips_from_memory_are_taken_as_they_are_unless_asked(tmp_path: Path) -> None:
    content, motion = scene(1), bb.Clip(inside(4), 50.0)
    whole = bb.transfer("half", content=content, motion=motion)
    assert whole.fps == 50.0
    np.testing.assert_allclose(whole.frames[0, 1, 1], [20] * 3, atol=1)
    cropped = bb.transfer("half", content=content, motion=motion, crop=True)
    assert (len(cropped), cropped.fps) == (4, 50.0)
    np.testing.assert_allclose(cropped.frames[0, 2, 2], RED, atol=1)
    with pytest.raises(UsageError, match="crop=True: method 'whole' with these weights has no preprocessor"):
        bb.transfer("whole", content=content, motion=motion, crop=True)


def test_weights_of_a_suite_are_prepared_as_the_suite_is(registry: Registry) -> None:
    owner = registry.plugins[-1]
    for name, preprocessor in (("plain", ""), ("squared", "squares")):
        registry.add("suites", bb.SuiteSpec(name, "1", "s", "f:f", preprocessor=preprocessor), owner)
    half = registry.method("half")
    assert prepare.preprocessor_of(registry, half, suites=["*"])[0] == registry.preprocessor("squares")
    assert prepare.preprocessor_of(registry, half, suites=["plain"]) == (None, "")
    assert prepare.preprocessor_of(registry, half, suites=["plain", "squared"])[0] == registry.preprocessor("squares")
    spec, note = prepare.preprocessor_of(registry, half, suites=["absent"])
    assert spec is None
    assert "no installed plugin provides the suite 'absent'" in note


@pytest.mark.parametrize("check", preprocessor_checks.CHECKS)
def test_the_kit_accepts_a_good_preprocessor(registry: Registry, check) -> None:
    check(Subject(registry, registry.plugins[-1], "preprocessors", registry.preprocessor("squares")))


def test_the_kit_refuses_a_crop_outside_the_frame(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer_toy.RedSquare, "find", lambda self, frames: Crop(0, 0, 70, 10))
    with pytest.raises(AssertionError, match="exceeds the width of 64 pixels"):
        preprocessor_checks.crops_lie_within_the_frame(
            Subject(registry, registry.plugins[-1], "preprocessors", registry.preprocessor("squares"))
        )
