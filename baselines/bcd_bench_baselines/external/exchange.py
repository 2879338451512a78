"""Clips as a worker reads and writes them: folders of PNG frames, NumPy arrays, or lossless videos."""

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
    """Where the worker has to write; for frames an empty folder, made here."""
    path = folder / f"output{SUFFIX[kind]}"
    if kind == "png":
        path.mkdir()
    return path


def read_output(path: Path, kind: Frames, frames: int, size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """What the worker wrote: uint8[frames, *size, 3]. Raises `UsageError` that says what is wrong with it."""
    height, width = size
    if kind == "png":
        if not path.is_dir():
            raise UsageError(f"the worker wrote 0 frames, its driver has {frames}")
    elif not path.is_file():
        raise UsageError(f"the worker wrote no {path.name}")
    elif kind == "npy":
        return _array(path, (frames, height, width, 3))
    try:
        return read_expected(path, frames, size)
    except WrongLengthError as wrong:
        raise UsageError(f"the worker wrote {wrong}, its driver has {frames}") from None
    except WrongSizeError as wrong:
        raise UsageError(f"the worker wrote frames of {wrong}, not {frames} frames of {height}x{width}") from None
    except OSError as error:
        raise UsageError(f"the worker's {path.name} cannot be read: {error.strerror or error}") from None


def _array(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The array of a file; looked at by its header first, so that no wrong one is read into memory."""
    try:
        with path.open("rb") as file:
            if not file.read(6).startswith((b"\x93NUMPY", b"PK")):  # else NumPy suggests to unpickle it
                raise UsageError(f"the worker's {path.name} is no array: it does not begin as one of NumPy's files")
        mapped = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"the worker's {path.name} is no array: {error}") from None
    if not isinstance(mapped, np.ndarray) or mapped.dtype != np.uint8 or mapped.shape != shape:
        is_array = isinstance(mapped, np.ndarray)
        found = f"{mapped.dtype} {list(mapped.shape)}" if is_array else "an archive"
        raise UsageError(f"the worker wrote {found}, not uint8 {list(shape)}")
    return np.array(mapped)
