"""Previews of clips: H.264 files that browsers play, named by the hash of their source and made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.assets.hashing import hash_json
from bcd_bench.io.atomic import append_jsonl, read_jsonl
from bcd_bench.io.video import write_preview
from bcd_bench.run.folder import writing
from bcd_bench.types.errors import BcdBenchError, one_line

if TYPE_CHECKING:
    from bcd_bench.types.clip import Clip
    from bcd_bench.util.progress import Progress

__all__ = ["Preview", "Previews", "preview_key"]

ENCODING = 1
"""Part of every name; increase it if previews are made in another way."""
ENLARGED = 128
"""Smaller clips are enlarged to about this many pixels by repeating pixels: H.264 stores colours at half resolution."""


@dataclass(frozen=True)
class Preview:
    """A preview: its name without folder, its size in pixels, number of frames, frames per second, and bytes.

    `scale` is the factor by which the clip was enlarged, and `sha256` the hash of the clip.
    """

    name: str
    width: int
    height: int
    frames: int
    fps: float
    bytes: int
    scale: int
    sha256: str

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the clip, in pixels."""
        return self.height // self.scale, self.width // self.scale


def preview_key(*source: object) -> str:
    """The name of a preview without ending, from JSON values that determine the frames and the frame rate."""
    return hash_json([ENCODING, *source])[:32]


class Previews:
    """The previews in a folder, which is created when the first one is written.

    `made` counts those that `make` wrote, `failures` maps the key of a clip that could not be had to the reason.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made = 0
        self.failures: dict[str, str] = {}
        self._index = folder / "index.jsonl"
        self._known: dict[str, Preview] = {}
        for row in read_jsonl(self._index):
            try:
                preview = Preview(**row)
            except TypeError:  # a line of another version: the preview is encoded again
                continue
            self._known[Path(preview.name).stem] = preview

    def get(self, key: str) -> Preview | None:
        """The preview with this key, or None if it is not there or was changed."""
        preview = self._known.get(key)
        if preview is None:
            return None
        path = self.folder / preview.name
        return preview if path.is_file() and path.stat().st_size == preview.bytes else None

    def path(self, preview: Preview) -> Path:
        return self.folder / preview.name

    def make(self, clips: Mapping[str, Callable[[], Clip]], progress: Progress) -> None:
        """Write the previews that are missing; `clips` maps keys to functions that load a clip.

        A clip that cannot be loaded or encoded is noted in `failures`, and the others are made. Raises `UsageError` if
        the folder cannot be written.
        """
        missing = [key for key in clips if self.get(key) is None]
        if not missing:
            return
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with progress.task("previews", total=len(clips), done=len(clips) - len(missing), unit="clips") as task:
            for key in missing:
                try:
                    clip = clips[key]()
                except BcdBenchError as error:
                    self.failures[key] = str(error)
                else:
                    self._write(key, clip)
                if key in self.failures:
                    task.message(f"no preview: {self.failures[key]}")
                task.advance()

    def _write(self, key: str, clip: Clip) -> None:
        import av

        height, width = clip.frames.shape[1:3]
        scale = max(1, ENLARGED // max(height, width))
        path = self.folder / f"{key}.mp4"
        with writing(self.folder):
            try:
                write_preview(path, clip, scale=scale)
            except (ValueError, av.error.FFmpegError) as error:  # such as a frame rate that MP4 cannot store
                self.failures[key] = one_line(error, place=False)
                return
            size = path.stat().st_size
            preview = Preview(path.name, width * scale, height * scale, len(clip), clip.fps, size, scale, clip.sha256)
            append_jsonl(self._index, [asdict(preview)])
        self._known[key] = preview
        self.made += 1
