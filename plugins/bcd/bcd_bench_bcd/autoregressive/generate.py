"""Long generated videos: codes and decoded segments are kept on disk, so an interrupted command continues."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from bcd_bench.io.atomic import write_json_atomic
from bcd_bench.io.npz import load_tree, save_tree
from bcd_bench.io.video import save_frames
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import open_progress
from bcd_bench_bcd.autoregressive.generator import MotionGenerator, Prompt

__all__ = ["MOST_FRAMES", "SEGMENT", "check_face", "generate_video"]

SEGMENT, BLOCK = 96, 100
"""Frames that are decoded at once, and frames between two saves of the codes."""
MOST_FRAMES = 1_000_000
"""Longest video, eleven hours at 25 frames per second."""
STATE, CODES = "state.json", "codes.npz"


def generate_video(
    generator: MotionGenerator, prompt: Clip, frames: int, output: Path, *, seed: int = 0
) -> npt.NDArray[np.int64]:
    """Continue `prompt` (of `generator.frame_size`) to `frames` frames in all, write the video, and return its codes
    int64 [frames, N].

    Work in progress is in the folder `OUTPUT.part`, from which a second call with the same arguments continues.
    Segments are decoded with frames of their neighbours on both sides. Raises `UsageError` if `frames` is not more than
    the prompt has, or the folder belongs to other settings.
    """
    if not len(prompt) < frames <= MOST_FRAMES:
        raise UsageError(
            f"{frames} frames: the prompt has {len(prompt)}, so at least {len(prompt) + 1} and at most {MOST_FRAMES}",
            hint="--frames is the length of the whole video, --prompt-frames K uses only the first K of the prompt",
        )
    work = output.with_name(output.name + ".part")
    _open(work, _settings(generator, prompt, frames, seed))
    encoded = generator.prompt(prompt.frames)
    codes = _codes(generator, encoded, frames, seed, work)
    segments = [(start, min(start + SEGMENT, frames)) for start in range(0, frames, SEGMENT)]
    with open_progress().task("decode", total=frames, unit="frames") as task:
        for start, stop in segments:
            path = work / f"{start:07d}.npz"
            if _read(path, "frames", stop - start) is None:
                save_tree(path, {"frames": _segment(generator, encoded, codes, start, stop, seed)})
            task.advance(stop - start)
    save_frames(output, _stored(work, segments), prompt.fps)
    shutil.rmtree(work)
    return np.asarray(codes.numpy(), np.int64)


def _settings(generator: MotionGenerator, prompt: Clip, frames: int, seed: int) -> dict[str, str | int]:
    """All that determines the video, as JSON."""
    return {
        "motion_model": generator.motion.sha256,
        "bcd": generator.motion.bcd_sha256,
        "sampling": generator.sampling.model_dump_json(),
        "prompt": prompt.sha256,
        "fps": repr(prompt.fps),
        "frames": frames,
        "seed": seed,
    }


def _open(work: Path, settings: dict[str, str | int]) -> None:
    state = work / STATE
    if not work.exists():
        work.mkdir()
        write_json_atomic(state, settings)
        return
    try:
        same = json.loads(state.read_text()) == settings
    except (OSError, ValueError):
        same = False
    if not same:
        raise UsageError(
            f"{work}: an unfinished video of another command",
            hint=f"rerun that command, delete {work}, or use a different --output",
        )


def _codes(generator: MotionGenerator, prompt: Prompt, frames: int, seed: int, work: Path) -> Tensor:
    """All codes int64 [frames, N]; saved every `BLOCK` frames."""
    path = work / CODES
    saved = _read(path, "codes")
    codes = prompt.codes
    if saved is not None:
        codes = torch.from_numpy(saved.astype(np.int64))[None].to(codes.device)
    with open_progress().task("generate codes", total=frames, done=codes.shape[1], unit="frames") as task:
        while codes.shape[1] < frames:
            target = min(codes.shape[1] + BLOCK, frames)
            codes = generator.codes(replace(prompt, codes=codes), target, [seed], done=lambda _: task.advance(1))
            save_tree(path, {"codes": codes[0].cpu().numpy()})
    return codes[0].cpu()


def _read(path: Path, name: str, length: int | None = None) -> npt.NDArray[Any] | None:
    """An array of a file of work in progress; None if it is missing or damaged, so that it is computed again."""
    if not path.exists():
        return None
    try:
        array: npt.NDArray[Any] = np.asarray(load_tree(path)[name])
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    return array if length is None or len(array) == length else None


def _segment(
    generator: MotionGenerator, prompt: Prompt, codes: Tensor, start: int, stop: int, seed: int
) -> npt.NDArray[np.uint8]:
    """Frames `start` to `stop`, decoded with a window of neighbouring frames on both sides."""
    margin = generator.bcd.description.inference.window or 0
    first, last = max(0, start - margin), min(len(codes), stop + margin)
    decoded = generator.frames(prompt, codes[None, first:last].to(prompt.codes.device), [seed], first=first)
    frames: npt.NDArray[np.uint8] = decoded[0, start - first : stop - first].cpu().numpy()
    return frames


def _stored(work: Path, segments: list[tuple[int, int]]) -> Iterator[npt.NDArray[np.uint8]]:
    for start, _ in segments:
        yield from load_tree(work / f"{start:07d}.npz")["frames"]


def check_face(clip: Clip, suite: str, name: str) -> None:
    """Raise `UsageError` if the weights were trained on faces (`suite`) and no frame of the prompt shows one.

    The dense landmarks of the faces plugin decide; without this plugin nothing is checked.
    """
    from bcd_bench.plugin.loading import load_factory
    from bcd_bench.plugin.registry import load_registry

    if not suite.startswith(("heads", "lrs3", "clips")):
        return
    spec = load_registry().extractors.get("dense-landmarks")
    if spec is None:
        return
    extractor = load_factory(spec.factory)()
    extractor.load("cpu")
    if not (extractor.extract([Clip(clip.frames[:1], clip.fps)])[0]["face"] > 0).any():
        raise UsageError(f"{name}: there is no face in the first frame", hint="--any-prompt generates a video anyway")
