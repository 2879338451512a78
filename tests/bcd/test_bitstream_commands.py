"""`bcd-bench encode`, `decode` and `rates` from end to end, on tiny weights."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import bcd_bench
from bcd_bench.cli import main
from bcd_bench.io.video import read_video, save_video
from bcd_bench.types.clip import Clip, ClipRef, Generated
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench_bcd.bitstream.rates import EncodedClips, rates_of
from bcd_bench_bcd.metrics.motion_bitrate import code_entropy
from tests.bcd.bitstream_toy import driving, tiny_method


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with weights, a content clip of another shape, and a driving clip."""
    tiny_method(tmp_path, window=8)
    content = np.pad(driving(3), ((0, 0), (0, 0), (8, 8), (0, 0)))
    save_video(Clip(content, 25.0), tmp_path / "content.mkv")
    save_video(Clip(driving(12), 12.5), tmp_path / "motion.mkv")
    return tmp_path


def encode(folder: Path, output: object, *more: object) -> list[object]:
    clips = ["--content", folder / "content.mkv", "--motion", folder / "motion.mkv"]
    return ["encode", "bcd", *clips, "--output", output, "--weights", folder / "tiny-True-8.safetensors", *more]


def decode(folder: Path, *more: object) -> list[object]:
    return ["decode", "bcd", *more, "--weights", folder / "tiny-True-8.safetensors"]


def test_a_file_has_the_frames_of_transfer(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, *encode(folder, folder / "x.bcdm", "--seed", 7, "--set", "steps=3"))
    assert (code, err) == (0, "")
    title, header, *rows = out.splitlines()
    assert title == "12 frames at 12.5 fps, motion model adaptive, content grid"
    assert header.split() == ["part", "bytes", "bits", "bit/frame", "kbit/s"]
    table = {row.split()[0]: row.split()[1:] for row in rows}
    size = (folder / "x.bcdm").stat().st_size
    assert table["all"] == [f"{size}", f"{8 * size}", f"{8 * size / 12:.2f}", f"{8 * size / 12 * 12.5 / 1000:.3f}"]
    assert sum(int(table[part][0]) for part in ("header", "content", "motion")) == size
    assert run(capsys, *decode(folder, folder / "x.bcdm", "--output", folder / "x.mkv"))[0] == 0
    expected = bcd_bench.transfer(
        "bcd",
        content=read_video(folder / "content.mkv"),  # as it is; files are brought to one rate first
        motion=read_video(folder / "motion.mkv"),
        weights=folder / "tiny-True-8.safetensors",
        settings={"steps": 3},
        seed=7,
    )
    result = read_video(folder / "x.mkv")
    assert (result.fps, result.sha256) == (12.5, expected.sha256)


def test_info(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *encode(folder, folder / "x.bcdm", "--content-bits", 4, "--set", "steps=3"))
    code, out, _ = run(capsys, "decode", "bcd", folder / "x.bcdm", "--info")
    assert code == 0
    for text in ("12 frames", "12.5 fps", "32x32", "adaptive model", "uniform, 4 bits", "steps=3"):
        assert text in out


@pytest.mark.parametrize("model", ["adaptive", "context"])
def test_a_stream_through_pipes(
    folder: Path, capsysbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    def call(arguments: list[object]) -> tuple[bytes, bytes]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsysbinary.readouterr()
        assert stop.value.code == 0, err
        return out, err

    stream, table = call(encode(folder, "-", "--stream", "--model", model))
    assert table.startswith(b"12 frames at 12.5 fps")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stream)))
    raw, _ = call(decode(folder, "-", "--output", "-"))
    (folder / "s.bcdm").write_bytes(stream)
    call(decode(folder, folder / "s.bcdm", "--output", folder / "s.mkv"))
    frames = np.frombuffer(raw, np.uint8).reshape(-1, 32, 32, 3)
    np.testing.assert_array_equal(frames, read_video(folder / "s.mkv").frames)
    assert len(frames) == 12


def test_one_clear_line_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, *encode(folder, folder / "x.bcdm"))
    run(capsys, *encode(folder, folder / "s.bcdm", "--stream"))
    data, stream = ((folder / name).read_bytes() for name in ("x.bcdm", "s.bcdm"))
    (folder / "damaged.bcdm").write_bytes(data[:-12] + b"?" + data[-11:])
    (folder / "short.bcdm").write_bytes(data[:-3])
    (folder / "empty.bcdm").write_bytes(b"")
    (folder / "newer.bcdm").write_bytes(data[:4] + b"\x09" + data[5:])
    (folder / "video.bcdm").write_bytes((folder / "motion.mkv").read_bytes())
    (folder / "stream.bcdm").write_bytes(stream[: stream.rindex(b"BCDP")])
    tiny_method(folder, grid=False)
    out = ["--output", folder / "y.mkv"]
    other = ["--weights", folder / "tiny-False-None.safetensors"]
    for arguments, message in (
        (decode(folder, folder / "damaged.bcdm", *out), "is damaged: its checksum does not match"),
        (decode(folder, folder / "short.bcdm", *out), "is cut short: its motion section"),
        (decode(folder, folder / "empty.bcdm", *out), "is cut short"),
        (decode(folder, folder / "newer.bcdm", *out), "has format version 9"),
        (decode(folder, folder / "video.bcdm", *out), "not a BCD bitstream"),
        (decode(folder, folder / "stream.bcdm", *out), "its last packet is missing"),
        (decode(folder, folder / "no.bcdm", *out), "no.bcdm: No such file"),
        (decode(folder, folder / "x.bcdm"), "needs --output FILE or --info"),
        (["decode", "bcd", folder / "x.bcdm", *out], "which are not shipped"),
        (["decode", "bcd", folder / "x.bcdm", *out, *other], "was encoded with the weights"),
        (["decode", "fomm", folder / "x.bcdm", *out], "method 'fomm' has no bitstream"),
        (encode(folder, folder / "z.bcdm", "--model", "huffman"), "--model 'huffman': choose one of static"),
        (encode(folder, folder / "z.bcdm", "--model", "static"), "needs a motion-model file"),
        (encode(folder, folder / "z.bcdm", "--motion-model", "no", "--model", "static"), "--motion-model no: no such"),
        (encode(folder, folder / "z.bcdm", "--window", 4), "--window requires --stream"),
        (encode(folder, folder / "no" / "z.bcdm"), "its folder does not exist"),
        (encode(folder, folder / "z.bcdm", "--set", "content_bits=40"), "content_bits"),
        (encode(folder, folder / "z.bcdm")[:-2], "several sets of weights"),
    ):
        code, printed, err = run(capsys, *arguments)
        assert (code, printed) == (2, ""), err
        assert message in err.splitlines()[0]
        assert err.startswith("error: ")
        assert len(err.splitlines()) <= 2  # the message and a hint
    assert not (folder / "y.mkv").exists()
    assert not (folder / "z.bcdm").exists()


# ---- rates -----------------------------------------------------------------------------------------------------------
def clips_of(codes: list[np.ndarray], entries: int) -> EncodedClips:
    shares = [np.stack([np.bincount(group, minlength=entries) / len(clip) for group in clip.T]) for clip in codes]
    return EncodedClips(codes, shares, [], [80] * len(codes), 25.0)


def test_rates_of_known_codes() -> None:
    cycle = np.tile(np.array([[0, 3], [1, 3], [2, 3], [1, 3]]), (50, 1))
    clips = [np.roll(cycle, shift, 0)[:20] for shift in range(40)]
    rates = rates_of(clips_of(clips, 4))
    assert rates["hard"] == pytest.approx(code_entropy(np.concatenate(clips))) == pytest.approx(1.5)
    assert rates["soft"] == pytest.approx(1.5)
    assert 1.5 <= rates["static, own counts"] < 1.5 * 1.02
    assert 1.5 < rates["adaptive"] < 1.6
    assert 0.4 < rates["context"] < 0.7  # the second of two neighbours of 1 is random to one frame of context
    assert rates["per file adaptive"] > rates["adaptive"]
    assert rates["content"] == 4


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def reference(index: int) -> ClipRef:
        return ClipRef(str(index), Generated("tests.bcd.test_method:block_clip", {"index": index}))

    pairs = [Pair(f"{i}", reference(0), reference(i % 4)) for i in range(8)]
    suite = Suite("blocks", "1", pairs, (32, 32), 8.0)
    monkeypatch.setattr("bcd_bench.plugin.suites.load_suite", lambda registry, name, data: suite)
    weights = folder / "tiny-True-8.safetensors"
    arguments = ["rates", "bcd", "--suite", "blocks", "--weights", weights, "--output", folder / "r.json"]
    code, out, _ = run(capsys, *arguments)
    assert code == 0
    assert out.splitlines()[0] == "blocks: 4 driving clips, 32 frames"
    record = json.loads((folder / "r.json").read_text())
    assert (record["clips"], record["frames"], record["fps"]) == (4, 32, 8.0)
    codes = [tiny_method(folder, window=8).motion_codes(pair.motion.load().frames).numpy() for pair in pairs[:4]]
    assert record["bits_per_frame"]["hard"] == pytest.approx(code_entropy(np.concatenate(codes)))
    assert {"soft", "adaptive", "context", "per file context", "content"} <= set(record["bits_per_frame"])
    run(capsys, *arguments, "--limit", 2)
    assert json.loads((folder / "r.json").read_text())["clips"] == 2
