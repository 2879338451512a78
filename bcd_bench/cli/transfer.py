"""`bcd-bench transfer`: animate a photo or a clip with the motion of other clips."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bcd_bench.cli.common import load, parse_settings, print_error
from bcd_bench.cli.complete import methods
from bcd_bench.types.errors import BcdBenchError, UsageError
from bcd_bench.util.devices import DEVICES
from bcd_bench.util.progress import open_progress

if TYPE_CHECKING:
    from bcd_bench.inference.method import LoadedMethod
    from bcd_bench.inference.source import Source
    from bcd_bench.inference.write import Output
    from bcd_bench.types.clip import Clip

EXAMPLES = (
    "bcd-bench transfer --method pca-motion --content photo.jpg --motion talk.mp4 --output out.mp4",
    "bcd-bench transfer --method bcd --content a.png --motion b.mov --output x.mp4",
    "bcd-bench transfer --method pca-motion --content photo.jpg --motion a.mp4 --motion b.mp4 --output folder",
)


def command(
    method: Annotated[
        str, typer.Option(metavar="M", help="Method, see `bcd-bench list methods`.", autocompletion=methods)
    ],
    content: Annotated[Path, typer.Option(metavar="PATH", help="Photo, video or folder of frames with the subject.")],
    motion: Annotated[list[Path], typer.Option(metavar="PATH", help="Driving video; repeat it for several.")],
    output: Annotated[
        Path, typer.Option(metavar="FILE|DIR", help=".mp4 (H.264) or .mkv (lossless); a folder for several videos.")
    ],
    weights: Annotated[
        str | None, typer.Option(metavar="NAME|PATH", help="Weights (default: those for any clip, or the only ones).")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="K=V", help="Change a setting of the method.")
    ] = None,
    no_crop: Annotated[bool, typer.Option("--no-crop", help="Use the whole frames: do not look for a face.")] = False,
    frames: Annotated[
        int | None, typer.Option(metavar="N", min=2, help="Use only the first N frames of the driving video.")
    ] = None,
    side_by_side: Annotated[
        bool, typer.Option("--side-by-side", help="Show content, driving video and result next to each other.")
    ] = False,
    paste_back: Annotated[
        bool, typer.Option("--paste-back", help="Show the result in the full frame of the content.")
    ] = False,
    no_audio: Annotated[bool, typer.Option("--no-audio", help="Leave out the sound of the driving video.")] = False,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Random seed.")] = 0,
    device: Annotated[str, typer.Option(metavar="DEVICE", help=f"{DEVICES}.")] = "cpu",
) -> int:
    """Animate a photo or clip with the motion of a video.

    Inputs have any size and frame rate. Outputs are marked as synthetic in their metadata.
    """
    from bcd_bench.inference.method import load_method
    from bcd_bench.inference.source import open_source
    from bcd_bench.inference.write import Output, check_output

    load()  # warns of broken plugins
    content, motion = content.expanduser(), [path.expanduser() for path in motion]
    outputs = output_names(motion, output)
    for path in outputs:
        check_output(path, [content, *motion])
    options = Output(side_by_side, paste_back, not no_audio)
    source = open_source(content, "content")
    if len(motion) == 1:
        open_source(motion[0], "motion")  # raises for a wrong name before a slow method is loaded
    with load_method(
        method, weights=weights, device=device, settings=parse_settings(settings or [], "--set")
    ) as loaded:
        for note in loaded.notes:
            print(f"note: {note}", file=sys.stderr)
        return _Job(loaded, source, options, crop=False if no_crop else None, frames=frames, seed=seed).run(
            list(zip(motion, outputs, strict=True))
        )


def output_names(motion: list[Path], output: Path) -> list[Path]:
    """The output file of each driving video: `output`, or a file in the folder `output` named after the video.

    With several videos, or for an existing folder, `output` is a folder, which is created. Videos of one name get
    numbers. Raises `UsageError` if several videos are to be written to one file, or if the folder cannot be created.
    """
    output = output.expanduser()
    if len(motion) == 1 and not output.is_dir():
        return [output]
    if output.suffix.lower() in (".mp4", ".mkv") and not output.is_dir():
        raise UsageError(f"--output {output}: {len(motion)} driving videos need a folder", hint="--output FOLDER")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot create the folder {output}: {error.strerror or error}") from error
    names: list[str] = []
    for path in motion:
        name, number = path.stem, 2
        while name.casefold() in (taken.casefold() for taken in names):
            name, number = f"{path.stem}-{number}", number + 1
        names.append(name)
    return [output / f"{name}.mp4" for name in names]


class _Job:
    """The transfers of one command: one content, any number of driving videos."""

    def __init__(
        self,
        loaded: LoadedMethod,
        content: Source,
        options: Output,
        *,
        crop: bool | None,
        frames: int | None,
        seed: int,
    ) -> None:
        self.loaded, self.content, self.options = loaded, content, options
        self.crop, self.frames, self.seed = crop, frames, seed
        self._told: set[str] = set()
        loaded.check(content, options, crop=crop)

    def run(self, files: list[tuple[Path, Path]]) -> int:
        """Transfer all driving videos. With several, one that fails does not stop the others; the exit code is 1."""
        failed = 0
        for number, (motion, output) in enumerate(files, 1):
            name = "transfer" if len(files) == 1 else f"transfer {number}/{len(files)}"
            try:
                self._one(motion, output, name)
            except _ContentError as error:  # no other driving video would help
                raise error.reason from None
            except BcdBenchError as error:
                if len(files) == 1:
                    raise
                print_error(error, motion)
                failed += 1
        if failed:
            print(f"{len(files) - failed} of {len(files)} videos written", file=sys.stderr)
        return 1 if failed else 0

    def _one(self, motion: Path, output: Path, name: str) -> None:
        from bcd_bench.inference.source import open_source
        from bcd_bench.inference.write import write_output

        started = time.perf_counter()
        driving = self.loaded.prepare_motion(open_source(motion, "motion"), crop=self.crop, frames=self.frames)
        with open_progress().task(name, total=len(driving.clip), unit="frames") as task:
            try:
                content = self.loaded.prepare_content(self.content, driving, crop=self.crop)
            except BcdBenchError as error:
                raise _ContentError(error) from error
            self._print([*content.crop.notes, *driving.crop.notes])
            result: Clip = self.loaded.run(content, driving, seed=self.seed)
            notes = write_output(output, result, content, driving, self.options, self.loaded.tags(self.seed))
            task.advance(len(result))
        self._print(notes)
        seconds = time.perf_counter() - started
        print(f"{output}: {len(result)} frames at {result.fps:g} fps in {seconds:.1f} s")

    def _print(self, notes: list[str]) -> None:
        for note in notes:
            if note not in self._told:
                self._told.add(note)
                print(f"note: {note}", file=sys.stderr)


class _ContentError(Exception):
    """The content cannot be used, whatever drives it."""

    def __init__(self, reason: BcdBenchError) -> None:
        super().__init__(str(reason))
        self.reason = reason
