"""`bcd-bench figure`: figures of videos as PNG, PDF and MP4, from run folders, ablations and videos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bcd_bench.cli.common import load, split_names
from bcd_bench.types.errors import UsageError
from bcd_bench.util.devices import DEVICES, device_name

EXAMPLES = (
    "bcd-bench figure comparison runs/sprites@1/bcd/RUN_ID runs/sprites@1/cdsvae/RUN_ID --seed 3",
    "bcd-bench figure comparison runs/heads-cross-128@1/bcd/RUN_ID --count 24 --output pairs.mp4",
    "bcd-bench figure motion-grid runs/sprites-procedural@1/bcd/RUN_ID --output grid.png --format png,pdf",
    "bcd-bench figure a7 ablations/bitrate-sprites-procedural-small",
    "bcd-bench figure generation generated-1.mp4 generated-2.mp4 --frames 8",
    "bcd-bench figure csim runs/heads-cross-128@1/bcd/RUN_ID --error shape-error",
)


def command(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="comparison, motion-grid, rates, generation or csim; or the paper's number: 3, 4, 5, a6, a7, a8.",
        ),
    ],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="PATH...", help="Run folders, an ablation's folder (rates), or videos (generation)."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Output file (default: NAME.png in this folder).")
    ] = None,
    format_: Annotated[
        list[str] | None, typer.Option("--format", metavar="png,pdf,mp4", help="Formats (default: that of --output).")
    ] = None,
    pair: Annotated[list[str] | None, typer.Option(metavar="ID[,ID…]", help="Pairs to show, by id.")] = None,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed that chooses the pairs.")] = 0,
    count: Annotated[int | None, typer.Option(metavar="N", min=1, help="Number of pairs, without --pair.")] = None,
    frames: Annotated[int | None, typer.Option(metavar="N", min=1, help="Frames per clip, evenly spaced.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="L[,L…]", help="Labels of the runs, in order.")] = None,
    weights: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="motion-grid: the weights of the run, if not shipped.")
    ] = None,
    error: Annotated[str, typer.Option(metavar="COLUMN", help="csim: the error that CSIM is compared with.")] = (
        "motion-error"
    ),
    prompt_frames: Annotated[int, typer.Option(metavar="N", min=1, help="generation: frames of the prompt.")] = 1,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"motion-grid: {DEVICES}.")] = "cpu",
) -> None:
    """Draw a figure of videos, labelled, as PNG, PDF or video."""
    from bcd_bench.figures.draw import Options, draw_figure, write_video
    from bcd_bench.figures.names import figure_name

    figure = figure_name(name)
    target = Path(f"{figure}.png") if output is None else output
    files = _files(target, split_names(format_, "--format"), figure)
    options = Options(
        paths=tuple(paths or ()),
        pairs=tuple(split_names(pair, "--pair")),
        seed=seed,
        count=count,
        frames=frames,
        labels=tuple(split_names(label, "--label")),
        weights=weights,
        error=error,
        prompt_frames=prompt_frames,
        device=device_name(device),
    )
    registry = load()
    pages = [path for path in files if path.suffix.lower() != ".mp4"]
    canvas = draw_figure(figure, options, registry) if pages else None
    for path in files:
        if path in pages and canvas is not None:
            canvas.save(path)
        else:
            write_video(path, options, registry)
        print(path)


def _files(target: Path, formats: list[str], figure: str) -> list[Path]:
    """The files to write. Raises `UsageError` for a format that does not exist."""
    if target.is_dir():
        raise UsageError(f"--output {target}: is a folder, not a file")
    for kind in formats or [target.suffix.lower().removeprefix(".")]:
        where = f"--format {kind}" if formats else f"--output {target}"
        if kind == "mp4" and figure != "comparison":
            raise UsageError(f"{where}: only the figure comparison can be a video")
        if kind not in ("png", "pdf", "mp4"):
            raise UsageError(f"{where}: figures are written as png or pdf, and comparison also as mp4")
    return [target.with_suffix(f".{kind}") for kind in formats] if formats else [target]
