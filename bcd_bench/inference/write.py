"""Files of transfers: what is shown, the sound of the driving clip, and where the file comes from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import bcd_bench
from bcd_bench.inference.compose import LONGEST_SIDE, bounded, held, paste_back, side_by_side
from bcd_bench.io.audio import audio_of
from bcd_bench.io.video import is_lossless, save_frames
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from bcd_bench.assets.weights import ResolvedWeights
    from bcd_bench.inference.prepare import PreparedClip
    from bcd_bench.plugin.specs import MethodSpec
    from bcd_bench.types.clip import Clip

__all__ = ["Output", "check_output", "provenance", "write_output"]

H264 = {"crf": "18", "preset": "veryfast"}
"""Options of libx264: visually lossless, and no slower than the fastest methods."""


@dataclass(frozen=True)
class Output:
    """What an output file shows and plays."""

    side_by_side: bool = False
    """The content clip, the driving clip and the output next to each other."""
    paste_back: bool = False
    """The output in the full frame that the content was cropped from."""
    audio: bool = True
    """With the sound of the driving clip."""


def provenance(spec: MethodSpec, weights: ResolvedWeights | None, *, seeded: bool = False) -> dict[str, str]:
    """Tags that say that a video is synthetic and what made it. They hold no paths and no names of input files."""
    tags = {
        "synthetic": "true",
        "comment": "Synthetic video: the motion of one clip, transferred to the subject of another.",
        "tool": "bcd-bench",
        "tool_version": bcd_bench.__version__,
        "method": spec.name,
        "method_version": spec.version,
    }
    if weights is not None:
        tags |= {"weights": weights.name, "weights_sha256": weights.sha256}
    return tags | ({"weights": "random"} if seeded else {})


def check_output(path: Path, inputs: list[Path]) -> None:
    """Raise `UsageError` for a path that cannot be written, has an unknown ending, or is one of the inputs."""
    is_lossless(path)
    if not os.access(path.parent, os.W_OK) or (path.exists() and not os.access(path, os.W_OK)):
        raise UsageError(f"cannot write {path}: permission denied")
    for given in inputs:
        if path.exists() and given.exists() and path.samefile(given):
            raise UsageError(f"{path} is both an input and the output", hint="use another --output")


def write_output(
    output: str | PathLike[str],
    result: Clip,
    content: PreparedClip,
    motion: PreparedClip,
    options: Output,
    tags: Mapping[str, str],
) -> list[str]:
    """Write a transfer as `.mp4` (H.264) or `.mkv` (lossless), atomically. Returns notes for the user.

    Raises `UsageError` if the file cannot be written.
    """
    path = Path(output).expanduser()
    check_output(path, [source for source in (content.source.path, motion.source.path) if source is not None])
    audio = None
    if options.audio and motion.source.is_video and motion.source.path is not None:
        audio = audio_of(motion.source.path, motion.source.start())
    try:
        save_frames(path, _frames(result, content, motion, options), result.fps, tags=tags, audio=audio, options=H264)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    return [audio.problem] if audio is not None and audio.problem else []


def _frames(
    result: Clip, content: PreparedClip, motion: PreparedClip, options: Output
) -> Iterator[npt.NDArray[np.uint8]]:
    """The frames to show, as many as the output has."""
    count = len(result)
    shown, outputs = content.clip.frames, iter(result.frames)
    if options.paste_back:
        longest = LONGEST_SIDE // 2 if options.side_by_side else LONGEST_SIDE
        background, crop = bounded(content.source.first(), content.crop, longest)
        shown, outputs = background[None], paste_back(result.frames, background, crop)
    if not options.side_by_side:
        return outputs
    return side_by_side(held(shown, count), motion.clip.frames, outputs, height=shown.shape[1])
