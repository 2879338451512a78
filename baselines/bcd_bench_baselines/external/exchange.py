"""Clips exchanged with a worker: folders of PNG frames, NumPy arrays, or lossless videos."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from bcd_bench.io.expected_frames import WrongLengthError, WrongSizeError, read_expected
from bcd_bench.io.image_sequence import write_frames
from bcd_bench.io.video import write_video_lossless
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError

__all__ = ["Frames", "output_path", "read_output", "write_input"]

Frames = Literal["png", "npy", "mkv"]
SUFFIX = {"png": "", "npy": ".npy", "mkv": ".mkv"}


def write_input(folder: Path, name: str, clip: Clip, kind: Frames) -> Path:
    """Write a clip as `<name>/000000.png`…, `<name>.npy` (uint8[T, H, W, 3] RGB) or `<name>.mkv` (FFV1)."""
    path = folder / f"{name}{SUFFIX[kind]}"
    if kind == "png":
        write_frames(path, clip)
    elif kind == "npy":
        np.save(path, clip.frames)
    else:
        write_video_lossless(path, clip)
    return path


def output_path(folder: Path, kind: Frames) -> Path:
    """The path that the worker must write to; for frames an empty folder, created here."""
    path = folder / f"output{SUFFIX[kind]}"
    if kind == "png":
        path.mkdir()
    return path


def read_output(path: Path, kind: Frames, frames: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The worker's output uint8[frames, *size, 3]. Raises `UsageError` with a description of any mismatch."""
    height, width = size
    if kind == "png":
        if not path.is_dir():
            raise UsageError(f"the worker wrote 0 frames, its driving clip has {frames}")
    elif not path.is_file():
        raise UsageError(f"the worker did not write {path.name}")
    elif kind == "npy":
        return _array(path, (frames, height, width, 3))
    try:
        return read_expected(path, frames, size)
    except WrongLengthError as wrong:
        raise UsageError(f"the worker wrote {wrong}, its driving clip has {frames}") from None
    except WrongSizeError as wrong:
        raise UsageError(f"the worker wrote frames of {wrong}, not {frames} frames of {height}x{width}") from None
    except OSError as error:
        raise UsageError(f"the worker's {path.name} cannot be read: {error.strerror or error}") from None


def _array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The array in a file; its header is checked first, so that a wrong array is never read into memory."""
    try:
        with path.open("rb") as file:
            start = file.read(6)
        if start.startswith(b"PK"):  # NumPy would leave a damaged archive open
            raise UsageError(f"the worker wrote an archive, not uint8 {list(shape)}")
        if start != b"\x93NUMPY":  # else NumPy suggests unpickling it
            raise UsageError(f"the worker's {path.name} is not an array: it does not begin like a NumPy file")
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"the worker's {path.name} is not an array: {error}") from None
    if mapped.dtype != np.uint8 or mapped.shape != shape:
        raise UsageError(f"the worker wrote {mapped.dtype} {list(mapped.shape)}, not uint8 {list(shape)}")
    return np.array(mapped)
