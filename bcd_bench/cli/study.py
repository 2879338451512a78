"""`bcd-bench study`: people rate the outputs of several methods."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load, split_names
from bcd_bench.cli.help import examples_text
from bcd_bench.types.errors import UsageError

app = typer.Typer(add_completion=False)

EXAMPLES = (
    "bcd-bench study build runs/heads-cross@1 --out my-study",
    "bcd-bench study serve my-study",
    "bcd-bench study report my-study --format latex-table",
)
BUILD_EXAMPLES = ("bcd-bench study build RUN RUN RUN --out my-study --groups 15 --label ours,lia,fomm",)
SERVE_EXAMPLES = (
    "bcd-bench study serve my-study",
    "bcd-bench study serve my-study --port 8080 --root-path /study --proxy 127.0.0.1",
)
EXPORT_EXAMPLES = ("bcd-bench study export my-study --out pages --raters 30",)
IMPORT_EXAMPLES = ("bcd-bench study import my-study downloads/*.csv",)
DELETE_EXAMPLES = ("bcd-bench study delete my-study 3f2a9c0b1d4e5f60",)
REPORT_EXAMPLES = ("bcd-bench study report my-study", "bcd-bench study report my-study --format csv --output study.csv")

Folder = Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a study.")]


@app.command(epilog=examples_text(BUILD_EXAMPLES))
def build(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of them: one suite.")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of the study.")],
    groups: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="Number of pairs.")] = 15,
    checks: Annotated[int, typer.Option(metavar="N", min=0, max=20, help="Number of attention checks.")] = 2,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed of pairs and orders.")] = 0,
    label: Annotated[
        list[str] | None, typer.Option(metavar="L[,L…]", help="Names of the methods in tables, in the runs' order.")
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Title of the page.")] = "Video study",
    consent: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Text file that raters agree to (default: a short one).")
    ] = None,
) -> None:
    """Choose pairs and make blinded videos of several runs."""
    from bcd_bench.study.build import build_study
    from bcd_bench.util.progress import open_progress

    text = None
    if consent is not None:
        try:
            text = consent.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--consent {consent}: cannot be read: {error}") from None
    study = build_study(
        runs,
        out,
        load(),
        groups=groups,
        checks=checks,
        seed=seed,
        labels=split_names(label, "--label"),
        title=title,
        consent=text,
        progress=open_progress(),
    )
    print(
        f"{len(study.groups)} pairs of {study.suite}, {len(study.methods)} methods, {len(study.order(0))} videos for "
        f"each rater; the order is balanced with a multiple of {study.balanced} raters",
        file=sys.stderr,
    )
    print(out)


@app.command(epilog=examples_text(SERVE_EXAMPLES))
def serve(
    folder: Folder,
    host: Annotated[
        str,
        typer.Option(metavar="ADDRESS", help="Address to listen on; others than the default are open to a network."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="N", min=1, max=65535, help="Port of the page.")] = 7870,
    root_path: Annotated[
        str, typer.Option(metavar="PATH", help="Path under which a proxy, which removes it, shows the page.")
    ] = "",
    proxy: Annotated[
        str, typer.Option(metavar="ADDRESS[,…]", help="Proxies whose X-Forwarded headers are believed.")
    ] = "127.0.0.1",
    rate_limit: Annotated[
        int, typer.Option(metavar="N", min=5, help="Most ratings per minute from one address.")
    ] = 300,
) -> None:
    """Show the study to raters and store their ratings. Ctrl-C stops it."""
    from bcd_bench.study.design import load_study
    from bcd_bench.study.server import ADMIN_NAME, admin_token, build_app, require
    from bcd_bench.study.store import DATABASE_NAME, Store

    study = load_study(folder)
    require("starlette", "uvicorn", "limits")
    import uvicorn

    if root_path and not root_path.startswith("/"):
        raise UsageError(f"--root-path {root_path}: has to start with /")
    with Store(folder / DATABASE_NAME) as store:
        served = build_app(study, store, folder, admin_token(folder), rate=rate_limit)
        config = uvicorn.Config(
            served,
            host=host,
            port=port,
            root_path=root_path.rstrip("/"),
            proxy_headers=True,
            forwarded_allow_ips=proxy,
            server_header=False,
            access_log=False,  # it would store addresses
            log_level="warning",
            timeout_graceful_shutdown=3,  # seconds for open requests after Ctrl-C
        )
        try:
            listening = config.bind_socket()
        except SystemExit:  # uvicorn has printed the reason
            raise UsageError(f"cannot listen on {host}:{port}", hint="--port N") from None
        print(f"http://{host}:{port}/  (Ctrl-C stops it)", flush=True)
        print(
            f"ratings as CSV: /admin/ratings.csv, with the token in {folder / ADMIN_NAME}", file=sys.stderr, flush=True
        )
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has answered open requests, and raises it again
            uvicorn.Server(config).run(sockets=[listening])
        raters = len({rating.rater.id for rating in store.ratings()})
        print(f"stopped; the ratings of {raters} raters are in {folder / DATABASE_NAME}", file=sys.stderr)


@app.command(epilog=examples_text(DELETE_EXAMPLES))
def delete(
    folder: Folder,
    rater: Annotated[str, typer.Argument(metavar="CODE", help="The code that the rater saw at the end.")],
) -> None:
    """Delete all data of one rater."""
    from bcd_bench.study.design import load_study
    from bcd_bench.study.store import DATABASE_NAME, Store

    load_study(folder)
    number = None
    if (folder / DATABASE_NAME).is_file():
        with Store(folder / DATABASE_NAME) as store:
            number = store.delete(rater.strip())
    if number is None:
        raise UsageError(f"{folder}: no rater has the code {rater!r}", hint="the first column of /admin/ratings.csv")
    print(f"{number} ratings of {rater.strip()} deleted")


@app.command(epilog=examples_text(EXPORT_EXAMPLES))
def export(
    folder: Folder,
    out: Annotated[Path, typer.Option(metavar="DIR", help="New folder of the pages.")],
    raters: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=10_000, help="Number of pages (default: balances the order).")
    ] = None,
) -> None:
    """Write pages that work without this server: each rater downloads a CSV file."""
    from bcd_bench.study.design import load_study
    from bcd_bench.study.static import export_pages

    study = load_study(folder)
    pages = export_pages(study, folder, out, raters)
    if len(pages) % study.balanced:
        print(f"note: the order is balanced with a multiple of {study.balanced} raters", file=sys.stderr)
    print(f"{len(pages)} pages; give each rater one of them", file=sys.stderr)
    print(out)


@app.command("import", epilog=examples_text(IMPORT_EXAMPLES))
def import_(
    folder: Folder,
    files: Annotated[list[Path], typer.Argument(metavar="CSV...", help="Files that raters downloaded.")],
) -> None:
    """Add the CSV files of raters to a study: all of them, or none."""
    from bcd_bench.study.design import load_study
    from bcd_bench.study.files import import_ratings
    from bcd_bench.study.store import DATABASE_NAME, Store

    study = load_study(folder)
    with Store(folder / DATABASE_NAME) as store:
        new, known = import_ratings(study, store, files)
    print(f"{new} ratings imported, {known} were there already")


@app.command(epilog=examples_text(REPORT_EXAMPLES))
def report(
    folder: Folder,
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Where the runs are now, for their metrics (default: as built)."),
    ] = None,
    format_: Annotated[
        str, typer.Option("--format", metavar="NAME", help="markdown (default), csv, json, html, latex or latex-table.")
    ] = "markdown",
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Write to a file.")] = None,
    allow_failed: Annotated[int, typer.Option(metavar="N", min=0, help="Attention checks that a rater may fail.")] = 0,
    unfinished: Annotated[bool, typer.Option("--unfinished", help="Include raters who stopped early.")] = False,
) -> None:
    """Make tables: scores, agreement, differences, and which metrics agree with people."""
    from bcd_bench.io.atomic import write_text_atomic
    from bcd_bench.run.folder import writing
    from bcd_bench.study.analysis import evaluate
    from bcd_bench.study.correlation import correlate, load_values
    from bcd_bench.study.design import load_study
    from bcd_bench.study.report import FORMATS, render
    from bcd_bench.study.server import require
    from bcd_bench.study.store import DATABASE_NAME, Store

    if format_ not in FORMATS:
        raise UsageError(f"--format {format_}: must be {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    study = load_study(folder)
    require("krippendorff")
    if not (folder / DATABASE_NAME).is_file():
        raise UsageError(f"{folder}: has no ratings yet", hint=f"bcd-bench study serve {folder}")
    with Store(folder / DATABASE_NAME) as store:
        ratings = store.ratings()
    evaluation = evaluate(study, ratings, allowed_failures=allow_failed, unfinished=unfinished)
    if not evaluation.raters.used:
        counts = evaluation.raters
        raise UsageError(
            f"{folder}: no rater to report: {counts.started} started, {counts.failed} failed attention checks, "
            f"{counts.unfinished} stopped early",
            hint=f"bcd-bench study report {folder} --unfinished" if counts.unfinished else None,
        )
    text = render(study, evaluation, correlate(study, evaluation.scores, load_values(study, runs or [])), format_)
    if output is None:
        print(text, end="")
        return
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_text_atomic(output, text)
    print(output)
