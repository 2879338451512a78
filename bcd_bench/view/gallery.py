"""Writes a gallery: `index.html` with a folder of previews, or one file."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.assets.store import cache_folder
from bcd_bench.io.atomic import write_json_atomic, write_text_atomic
from bcd_bench.run.folder import writing
from bcd_bench.scoring.features import FeatureStore
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.util.progress import NoProgress
from bcd_bench.view.content import Content
from bcd_bench.view.overlays import Overlays
from bcd_bench.view.previews import Previews
from bcd_bench.view.template import fill_page

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.util.progress import Progress

__all__ = ["SINGLE_FILE_LIMIT", "Gallery", "build_gallery", "open_folder"]

MARKER = "gallery.json"
"""Marks a folder as a gallery or a report, so that nothing is written into other folders."""
SINGLE_FILE_LIMIT = 100_000_000
"""Bytes; browsers need several times as much memory to open such a page."""


@dataclass(frozen=True)
class Gallery:
    """A gallery that was written: the page, and the numbers of pairs, runs, previews, new previews and clips that could
    not be shown; the overlays that it offers, and a line for each that is left out."""

    page: Path
    pairs: int
    runs: int
    previews: int
    made: int
    broken: int
    overlays: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def build_gallery(
    paths: Sequence[Path],
    output: Path,
    registry: Registry,
    *,
    single_file: bool = False,
    limit: int | None = None,
    overlays: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> Gallery:
    """Write the gallery of the runs in `paths` to the folder `output`; previews that are there already are reused.

    The page is `index.html`; with `single_file`, it is `gallery.html`, which contains the previews and can be moved.
    `limit` is the largest number of pairs. `overlays` names the overlays to offer, whose features are extracted if they
    are missing (empty: none); by default, those whose features are cached.

    Raises `UsageError` if `output` is not a gallery or cannot be written, for the runs as `Content` does, for an
    unknown overlay, and if a single file would be larger than `SINGLE_FILE_LIMIT`.
    """
    _check_folder(output, "--output")
    content = Content(paths, registry, limit=limit)
    open_folder(output, "--output")
    progress = progress or NoProgress()
    previews = Previews(output / "previews")
    store = FeatureStore(registry, device="cpu", root=cache_folder() / "features")
    drawn = Overlays(output / "overlays", registry, content.metrics, overlays, store)
    previews.make(content.clips, progress)
    usable = {key: preview for key in content.clips if (preview := previews.get(key)) is not None}
    drawn.make(usable, frozenset(content.outputs & usable.keys()), content.clips, progress)
    if single_file:
        files = [name for one in drawn.shown for name in one.points.values() if isinstance(name, str)]
        points = sum(len(drawn.text(name)) for name in files)
        _check_size(sum(preview.bytes for preview in usable.values()) * 4 / 3 + points, len(content.pairs))
    media = []
    for key, preview in usable.items():
        entry: dict[str, Any] = {name: getattr(preview, name) for name in ("width", "height", "frames", "fps")}
        if single_file:
            entry["src"] = "data:video/mp4;base64," + base64.b64encode(previews.path(preview).read_bytes()).decode()
        else:
            entry["src"] = f"previews/{preview.name}"
        entry["points"] = [_points(drawn, one.points.get(key), single_file=single_file) for one in drawn.shown]
        media.append(entry)
    data = content.to_json({key: index for index, key in enumerate(usable)}, previews.failures)
    data["overlays"] = {
        "notes": drawn.notes,
        "offered": [
            {"name": one.name, "summary": one.summary, "metrics": one.metrics, "lines": one.lines}
            for one in drawn.shown
        ],
    }
    page = output / ("gallery.html" if single_file else "index.html")
    with writing(output):
        write_text_atomic(page, render_page({**data, "media": media}))
    return Gallery(
        page,
        len(content.pairs),
        len(content.runs),
        len(usable),
        previews.made,
        len(previews.failures),
        tuple(one.name for one in drawn.shown),
        tuple(drawn.notes),
    )


def _points(drawn: Overlays, points: str | Failed | None, *, single_file: bool) -> dict[str, str] | None:
    """The points of a clip for the page: a file, the text in it, or the reason why there are none."""
    if points is None:
        return None
    if isinstance(points, Failed):
        return {"none": points.reason}
    return {"text": drawn.text(points)} if single_file else {"file": f"overlays/{points}"}


def render_page(data: dict[str, Any]) -> str:
    """The page with its data. It allows its own script only (Content-Security-Policy), and no request to anywhere."""
    import bcd_bench

    return fill_page(
        "bcd_bench.view",
        {**data, "bcd_bench": bcd_bench.__version__},
        scripts=("leaderboard.js", "overlay.js", "page.js"),
    )


def open_folder(folder: Path, option: str) -> None:
    """Create the folder of a gallery or a report, or accept one that is there already. Raises `UsageError`, with the
    `option` that named it, for a file, a folder with other content, and one that cannot be written."""
    _check_folder(folder, option)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_json_atomic(folder / MARKER, {"format": 1, "what": "bcd-bench gallery"})


def _check_folder(folder: Path, option: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{option} {folder}: is a file, not a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file():
        raise UsageError(f"{option} {folder}: exists and is not a gallery", hint="choose a new folder")


def _check_size(size: float, pairs: int) -> None:
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
