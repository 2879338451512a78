"""Readers of files that others wrote: a valid file to start from, and a function that reads a changed one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RUN_FILE = b'[defaults]\nseed = 1\n[[run]]\nmethods = ["a"]\nsuites = ["b"]\n'
WEIGHTS = {"form": "storm", "what": "storm", "maker": "a storm"}


@dataclass(frozen=True)
class Reader:
    """`seed(run)` is a valid file, made from a finished run; `read(path)` raises one of `errors` for an invalid one."""

    name: str
    suffix: str
    seed: Callable[[Path], bytes]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...] = ()
    """What it may raise beside `BcdBenchError`."""


def _made(write: Callable[[Path], Any], suffix: str) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"seed{suffix}"
        write(path)
        return path.read_bytes()


def _video(path: Path) -> Any:
    from bcd_bench.io.video import read_video

    return read_video(path)


def _h264(run: Path) -> bytes:
    from bcd_bench import Clip, save_video

    frames = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    return _made(lambda path: save_video(Clip(frames, 25.0), path), ".mp4")


def _picture(run: Path) -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    return _made(lambda path: Image.fromarray(pixels).save(path), ".png")


def _read_picture(path: Path) -> Any:
    from bcd_bench.io.image_sequence import read_picture

    return read_picture(path)


def _record(path: Path) -> Any:
    from bcd_bench.results.schema import load_record

    return load_record(path)


def _plan(path: Path) -> Any:
    from bcd_bench.run.plan import read_plan

    return read_plan(path)


def _pair_lines(path: Path) -> Any:
    from bcd_bench.io.atomic import read_jsonl
    from bcd_bench.run.folder import PairResult

    return [PairResult.from_json(line) for line in read_jsonl(path)]


def _bundle(run: Path) -> bytes:
    from bcd_bench.verification.bundle import write_bundle

    return _made(lambda path: write_bundle(run, path), ".zip")


def _read_bundle(path: Path) -> Any:
    from bcd_bench.verification.bundle import opened

    with opened(path) as folder:
        return sorted(folder.iterdir())


def _run_file(path: Path) -> Any:
    from bcd_bench.run.request import read_run_file

    return read_run_file(path)


def _features(run: Path) -> bytes:
    from bcd_bench.io.npz import save_tree

    tree = [{"points": np.zeros((3, 5, 2), np.float32), "names": ["a", "b"]}]
    return _made(lambda path: save_tree(path, tree), ".npz")


def _read_features(path: Path) -> Any:
    from bcd_bench.io.npz import load_tree

    return load_tree(path)


def _weights(run: Path) -> bytes:
    from safetensors.numpy import save

    return bytes(save({"weight": np.zeros((4, 4), np.float32)}, {"format": "storm"}))


def _read_weights(path: Path) -> Any:
    from bcd_bench.io.safetensors import read_weight_header

    return read_weight_header(path, **WEIGHTS)


def _study(run: Path) -> bytes:
    import tempfile

    from bcd_bench.study.design import DESIGN_NAME
    from tests.core.test_study_server import make_study

    with tempfile.TemporaryDirectory() as folder:
        make_study(Path(folder))
        return (Path(folder) / DESIGN_NAME).read_bytes()


def _read_study(path: Path) -> Any:
    from bcd_bench.study.design import DESIGN_NAME, load_study

    folder = path.parent / "study"
    folder.mkdir(exist_ok=True)
    (folder / DESIGN_NAME).write_bytes(path.read_bytes())
    return load_study(folder)


def _ratings(run: Path) -> bytes:
    import tempfile

    from bcd_bench.study.files import write_ratings
    from bcd_bench.study.store import Rater, Rating
    from tests.core.test_study_server import SCORES, make_study

    with tempfile.TemporaryDirectory() as folder:
        study = make_study(Path(folder))
    return write_ratings(study, [Rating(Rater("0" * 16, 1), item.id, SCORES, 2.5) for item in study.items()]).encode()


def _read_ratings(path: Path) -> Any:
    import tempfile

    from bcd_bench.study.files import read_ratings
    from tests.core.test_study_server import make_study

    with tempfile.TemporaryDirectory() as folder:
        return read_ratings(make_study(Path(folder)), path)


def _bitstream(run: Path) -> bytes:
    import tempfile

    from bcd_bench_bcd.bitstream.codec import encode_clip
    from tests.bcd.bitstream_toy import driving, tiny_method

    with tempfile.TemporaryDirectory() as folder:
        return bytes(encode_clip(tiny_method(Path(folder)), driving(3), driving(8), 8.0, model="adaptive").data)


def _read_bitstream(path: Path) -> Any:
    from bcd_bench_bcd.bitstream.container import read_file

    return read_file(path.read_bytes())


READERS = {
    reader.name: reader
    for reader in (
        Reader("lossless video", ".mkv", lambda run: next((run / "outputs").iterdir()).read_bytes(), _video),
        Reader("H.264 video", ".mp4", _h264, _video),
        Reader("picture", ".png", _picture, _read_picture),
        Reader("record", ".json", lambda run: (run / "record.json").read_bytes(), _record),
        Reader("plan", ".json", lambda run: (run / "plan.json").read_bytes(), _plan),
        Reader("pair results", ".jsonl", lambda run: (run / "pairs.jsonl").read_bytes(), _pair_lines),
        Reader("bundle", ".zip", _bundle, _read_bundle),
        Reader("run file", ".toml", lambda run: RUN_FILE, _run_file),
        Reader("cached features", ".npz", _features, _read_features, (ValueError, OSError)),
        Reader("weights", ".safetensors", _weights, _read_weights),
        Reader("study", ".json", _study, _read_study),
        Reader("ratings", ".csv", _ratings, _read_ratings),
        Reader("bitstream", ".bcdm", _bitstream, _read_bitstream),
    )
}  # fmt: skip
