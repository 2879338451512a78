"""Writes a gallery: `index.html` with a folder of previews, or one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.io.atomic import write_json_atomic, write_text_atomic
from bcd_bench.run.folder import writing
from bcd_bench.types.errors import UsageError
from bcd_bench.util.progress import NoProgress
from bcd_bench.view.content import Content
from bcd_bench.view.previews import Previews
from bcd_bench.view.template import fill_page

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.util.progress import Progress

__all__ = ["SINGLE_FILE_LIMIT", "Gallery", "build_gallery"]

MARKER = "gallery.json"
"""Marks a folder as a gallery, so that nothing is written into other folders."""
SINGLE_FILE_LIMIT = 100_000_000
"""Bytes; browsers need several times as much memory to open such a page."""


@dataclass(frozen=True)
class Gallery:
    """A gallery that was written: the page, and the numbers of pairs, runs, previews, new previews and clips that could
    not be shown."""

    page: Path
    pairs: int
    runs: int
    previews: int
    made: int
    broken: int


def build_gallery(
    paths: Sequence[Path],
    output: Path,
    registry: Registry,
    *,
    single_file: bool = False,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """Write the gallery of the runs in `paths` to the folder `output`; previews that are there already are reused.

    The page is `index.html`; with `single_file`, it is `gallery.html`, which contains the previews and can be moved.
    `limit` is the largest number of pairs. Raises `UsageError` if `output` is not a gallery or cannot be written, for
    the runs as `Content` does, and if a single file would be larger than `SINGLE_FILE_LIMIT`.
    """
    _check_output(output)
    content = Content(paths, registry, limit=limit)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        write_json_atomic(output / MARKER, {"format": 1, "what": "bcd-bench gallery"})
    previews = Previews(output / "previews")
    previews.make(content.clips, progress or NoProgress())
    usable = {key: preview for key in content.clips if (preview := previews.get(key)) is not None}
    if single_file:
        _check_size(sum(preview.bytes for preview in usable.values()), len(content.pairs))
    media = []
    for preview in usable.values():
        entry = {name: value for name, value in asdict(preview).items() if name not in ("name", "bytes")}
        if single_file:
            entry["src"] = "data:video/mp4;base64," + base64.b64encode(previews.path(preview).read_bytes()).decode()
        else:
            entry["src"] = f"previews/{preview.name}"
        media.append(entry)
    data = content.to_json({key: index for index, key in enumerate(usable)}, previews.failures)
    page = output / ("gallery.html" if single_file else "index.html")
    with writing(output):
        write_text_atomic(page, render_page({**data, "media": media}))
    return Gallery(page, len(content.pairs), len(content.runs), len(usable), previews.made, len(previews.failures))


def render_page(data: dict[str, Any]) -> str:
    """The page with its data. It allows its own script only (Content-Security-Policy), and no request to anywhere."""
    import bcd_bench

    return fill_page("bcd_bench.view", {**data, "bcd_bench": bcd_bench.__version__})


def _check_output(output: Path) -> None:
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output}: is a file, not a folder")
    if output.is_dir() and any(output.iterdir()) and not (output / MARKER).is_file():
        raise UsageError(f"--output {output}: exists and is not a gallery", hint="choose a new folder")


def _check_size(videos: int, pairs: int) -> None:
    size = videos * 4 / 3  # base64
    if size > SINGLE_FILE_LIMIT:
        fitting = int(pairs * SINGLE_FILE_LIMIT / size)
        shorter = f"--limit {fitting}, or leave" if fitting else "leave"
        raise UsageError(
            f"the videos of {pairs} pairs take {_megabytes(size)} in one file, and at most "
            f"{_megabytes(SINGLE_FILE_LIMIT)} are allowed",
            hint=f"{shorter} --single-file out, to get a folder",
        )


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.{0 if size >= 1e7 else 1}f} MB"
