"""Scores existing videos: each pair's output is read from a folder, in which it is named after the pair."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcd_bench.io.expected_frames import WrongLengthError, WrongSizeError, read_expected
from bcd_bench.io.links import FOLLOW_LINKS
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.folder.videos import Listing, content_sha256, list_videos, match_videos

__all__ = ["Folder", "identify"]


def identify(config: Mapping[str, Any], pairs: Sequence[Pair]) -> dict[str, Any]:
    """The videos' contents instead of their path, so that a run changes with its videos but not with their location.

    Raises `UsageError` for invalid settings, or if the folder contains no video of any of the pairs.
    """
    videos = match_videos(_path(config), [pair.id for pair in pairs])
    return {
        "name": _text(config, "name"),
        "resize": bool(config["resize"]),
        "videos": content_sha256(videos),
        "n_videos": len(videos),
    }


class Folder:
    """Settings: `path`, the folder; `name`, shown in tables; `resize`, to resize videos to the suite's size."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._path, self._resize = _path(config), bool(config["resize"])
        self._listing = Listing()

    def load(self, weights: Path | None, device: str) -> None:
        """List the folder. Raises `UsageError` if it cannot be read, or if weights are passed."""
        del device
        if weights is not None:
            raise UsageError("method 'folder' does not accept weights")
        self._listing = list_videos(self._path)

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """Yield the pairs' videos, with the length and frame rate of their driving clips."""
        del seed
        for pair in pairs:
            match self._listing.videos.get(pair.id, []):
                case [path]:
                    yield self._read(pair, path)
                case [] if pair.id in self._listing.outside:
                    yield Failed(f"its video is a link that points outside the folder (set {FOLLOW_LINKS}=1 to follow)")
                case []:
                    yield Failed("the folder does not contain a video of this pair")
                case several:
                    yield Failed(f"the folder contains {len(several)} videos of this pair")

    def _read(self, pair: Pair, path: Path) -> Clip | Failed:
        motion = pair.motion.load()
        height, width = motion.frames.shape[1:3]
        try:
            frames = read_expected(path, len(motion), (height, width), resize=self._resize)
        except WrongLengthError as wrong:
            return Failed(f"its video has {wrong}, its driving clip {len(motion)}")
        except WrongSizeError as wrong:
            return Failed(f"its video is {wrong}, the suite is {height}x{width} (resize=true resizes)")
        except (UsageError, OSError, ValueError) as error:
            return Failed(f"its video cannot be read: {str(error).replace(str(path), path.name)}")
        return Clip(frames, motion.fps, pair.id)


def _path(config: Mapping[str, Any]) -> Path:
    text = _text(config, "path")
    if not text:
        raise UsageError("method 'folder' requires the folder of the videos", hint="--set path=FOLDER")
    path = Path(text).expanduser()
    if not path.is_dir():
        raise UsageError(f"folder of videos {path}: no such folder", hint="--set path=FOLDER")
    if not isinstance(config["resize"], bool):
        raise UsageError(f"resize={config['resize']!r} must be true or false", hint="--set resize=true")
    return path


def _text(config: Mapping[str, Any], key: str) -> str:
    """A setting as text, even if it was parsed as a number."""
    value = config[key]
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise UsageError(f"{key}={value!r} must be text", hint=f"--set {key}=TEXT")
