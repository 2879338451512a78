"""`bcd-bench view`: a gallery of run folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load

EXAMPLES = (
    "bcd-bench view runs/sprites-procedural@1",
    "bcd-bench view RUN RUN --output comparison --limit 200 --open",
    "bcd-bench view RUN --single-file --limit 20",
)


def command(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of them: one suite.")],
    output: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the gallery; a rerun updates it.")] = Path(
        "gallery"
    ),
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write FOLDER/gallery.html, which contains the videos.")
    ] = False,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="Only the first N pairs.")] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Make a page with the videos, values and leaderboard of runs."""
    from bcd_bench.util.progress import open_progress
    from bcd_bench.view.gallery import build_gallery

    gallery = build_gallery(paths, output, load(), single_file=single_file, limit=limit, progress=open_progress())
    typer.echo(
        f"{gallery.pairs} pairs of {gallery.runs} runs, {gallery.previews} videos ({gallery.made} new)", err=True
    )
    print(gallery.page)
    if open_:
        import webbrowser

        webbrowser.open(gallery.page.absolute().as_uri())
