"""The static form of a study, for crowd platforms and any web server: raters download their ratings as CSV."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

from bcd_bench.io.atomic import write_text_atomic
from bcd_bench.run.folder import writing
from bcd_bench.study.design import MEDIA, Study
from bcd_bench.study.page import render_page
from bcd_bench.types.errors import UsageError

__all__ = ["export_pages"]

LIST_NAME = "pages.csv"


def export_pages(study: Study, folder: Path, output: Path, pages: int | None = None) -> list[Path]:
    """Write a page for each of `pages` raters (default: as many as balance the order of methods) to `output`.

    `pages.csv` lists them. Give each rater one page. Raises `UsageError` if `output` has other files, or if a video of
    the study is missing.
    """
    if output.exists() and (not output.is_dir() or (any(output.iterdir()) and not (output / LIST_NAME).is_file())):
        raise UsageError(f"--out {output}: exists and is not an export of a study", hint="choose a new folder")
    number = pages or study.balanced
    width = max(2, len(str(number)))
    written = []
    with writing(output):
        shutil.rmtree(output / MEDIA, ignore_errors=True)
        (output / MEDIA).mkdir(parents=True)
        for old in output.glob("rater-*.html"):
            old.unlink()
        for name in sorted(study.media()):
            video = folder / MEDIA / f"{name}.mp4"
            if not video.is_file():
                raise UsageError(f"{video}: is missing", hint="build the study again")
            shutil.copyfile(video, output / MEDIA / video.name)
        for slot in range(number):
            page = output / f"rater-{slot + 1:0{width}d}.html"
            write_text_atomic(page, render_page(study, slot))
            written.append(page)
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([["page"], *([page.name] for page in written)])
        write_text_atomic(output / LIST_NAME, out.getvalue())
    return written
