"""`bcd-bench view`: a gallery of run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load, split_names

EXAMPLES = (
    "bcd-bench view runs/sprites-procedural@1",
    "bcd-bench view RUN RUN --output comparison --limit 200 --open",
    "bcd-bench view RUN --single-file --limit 20",
    "bcd-bench view RUN --overlay dense-landmarks",
)
NO_OVERLAY = "none"


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of them: one suite.")],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the gallery; a rerun updates it.")] = Path(
        "gallery"
    ),
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write FOLDER/gallery.html, which contains the videos.")
    ] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pairs.")] = None,
    overlay: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[,NAME…]",
            help="Landmarks or meshes to draw over the videos, extracted if they are not cached; none for no overlay "
            "(default: all that metrics use and that are cached).",
        ),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Make a page with the videos, values and leaderboard of runs."""
    from bcd_bench.types.errors import UsageError
    from bcd_bench.util.progress import open_progress
    from bcd_bench.view.gallery import build_gallery

    names = split_names(overlay, "--overlay")
    if NO_OVERLAY in names and len(names) > 1:
        raise UsageError(f"--overlay: {NO_OVERLAY} goes with no other name")
    gallery = build_gallery(
        paths,
        output,
        load(),
        single_file=single_file,
        limit=limit,
        overlays=None if overlay is None else [name for name in names if name != NO_OVERLAY],
        progress=open_progress(),
    )
    for note in gallery.notes:
        typer.echo(note, err=True)
    drawn = f", overlays {', '.join(gallery.overlays)}" if gallery.overlays else ""
    typer.echo(
        f"{gallery.pairs} pairs of {gallery.runs} runs, {gallery.previews} videos ({gallery.made} new){drawn}", err=True
    )
    print(gallery.page)
    if open_:
        import webbrowser

        webbrowser.open(gallery.page.absolute().as_uri())
