"""The Python API: load methods and suites, transfer clips, evaluate methods, score outputs.

    >>> import bcd_bench as bb
    >>> bcd = bb.load_method("bcd", weights="heads-landmarks")
    >>> clip = bb.transfer(bcd, content="photo.jpg", motion="driving.mp4")
    >>> bb.save_video(clip, "out.mp4")
    >>> results = bb.evaluate(["bcd", my_method], "sprites-procedural", limit=16)
    >>> results.compare("bcd", "my_method")

Methods and metrics are passed by name or as Python objects.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bcd_bench.inference.method import LoadedMethod, load_method
from bcd_bench.io.inputs import InMemory, NotGiven, read_clip
from bcd_bench.plugin import suites
from bcd_bench.plugin.objects import add_method, add_metric
from bcd_bench.plugin.registry import load_registry
from bcd_bench.plugin.specs import ExecutorSpec
from bcd_bench.results.results import Results
from bcd_bench.results.schema import Value
from bcd_bench.run.executors import optional_pool
from bcd_bench.run.pipeline import prepare_all, run_all
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench.util.devices import device_name
from bcd_bench.util.pool import PoolOptions
from bcd_bench.util.progress import NoProgress, Progress, open_progress

__all__ = [
    "LoadedMethod",
    "evaluate",
    "list_methods",
    "list_metrics",
    "list_suites",
    "load_method",
    "load_results",
    "load_suite",
    "score",
    "transfer",
]

ClipLike: TypeAlias = "str | PathLike[str] | Clip | npt.NDArray[np.uint8]"
"""A video or photo by path, a `Clip`, or an array uint8 [T, H, W, 3] or [H, W, 3] (RGB)."""


def list_methods() -> list[str]:
    """The names of all installed methods."""
    return sorted(load_registry().methods)


def list_metrics() -> list[str]:
    """The names of all installed metrics."""
    return sorted(load_registry().metrics)


def list_suites() -> list[str]:
    """The names of all installed suites."""
    return sorted(load_registry().suites)


def load_suite(name: str, data: Mapping[str, str | PathLike[str]] | None = None) -> Suite:
    """A suite by name; `suite.pairs[i].content.load()` is a clip.

    `data` maps names to paths of your own data, like `--data NAME=PATH`. Raises `UsageError` for an unknown suite and
    `MissingAssetError` for missing data.
    """
    return suites.load_suite(load_registry(), name, _paths(data))


def transfer(
    method: str | LoadedMethod | Any,
    *,
    content: ClipLike,
    motion: ClipLike,
    weights: str | PathLike[str] | None = None,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
    seed: int = 0,
    size: tuple[int, int] | None = None,
    crop: bool | None = None,
    frames: int | None = None,
    output: str | PathLike[str] | None = None,
    side_by_side: bool = False,
    paste_back: bool = False,
    audio: bool = True,
) -> Clip:
    """A clip with the subject of `content` and the motion of `motion`: `bcd-bench transfer` from Python.

    Both are videos, photos or folders of frames by path, clips, or arrays uint8 [T, H, W, 3] or [H, W, 3] (RGB). Files
    of any size and rate are cropped and resampled as in the suites that the weights are for: on faces, one square
    around the face at 25 frames per second. Arrays and clips are taken as they are, unless `crop=True`; with
    `crop=False` files are not cropped either. Everything is then cropped around its centre and resized to `size`
    (height, width), by default to the size that the method accepts, else to that of the driving clip.
    The returned clip is as long as the driving clip, of which `frames` keeps only the first ones, and has its rate.

    `output` writes a file as well: `.mp4` (H.264) or `.mkv` (lossless), with the sound of the driving clip if `audio`,
    and with tags that say that it is synthetic. The file shows content, motion and result with `side_by_side`, and
    the result in the full frame of the content with `paste_back`.

    `method` is a name, a `LoadedMethod` (load once, transfer often), or an object; `weights`, `device` and `settings`
    are as in `load_method`. Raises `TransferError` if the method fails on the pair, and `UsageError` for files that
    cannot be read or written, and for clips in which the preprocessor finds nothing.
    """
    options: dict[str, Any] = {
        "seed": seed,
        "size": size,
        "crop": crop,
        "frames": frames,
        "output": output,
        "side_by_side": side_by_side,
        "paste_back": paste_back,
        "audio": audio,
    }
    if isinstance(method, LoadedMethod):
        return method.transfer(content, motion, **options)
    with load_method(method, weights=weights, device=device, settings=settings) as loaded:
        return loaded.transfer(content, motion, **options)


def evaluate(
    methods: str | Any | Sequence[Any],
    suite: str | Suite,
    *,
    metrics: Sequence[Any] | None = None,
    weights: str | PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, str | PathLike[str]] | None = None,
    limit: int | None = None,
    pairs: Sequence[str] | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: str | PathLike[str] = "runs",
    executor: str = "local",
    executor_settings: Mapping[str, Any] | None = None,
    jobs: int = 1,
    timeout: float | None = None,
    retry_failed: bool = False,
    strict: bool = False,
    progress: bool | Progress = True,
) -> Results:
    """Run methods on a suite, score them, and return the results: `bcd-bench run` from Python.

    `methods` are names, or objects: anything with `transfer(pairs, seed=…)` (see `bcd_bench.Method`), such a class,
    or a function `f(content, motion)` of two clips. `metrics` are names or objects (`PairMetric`, `SetMetric`), by
    default those of the suite and the method. An object is identified by its source and state: an interrupted
    evaluation resumes, and a changed method starts a new run. Objects that cannot be hashed are never ranked.

    With `jobs` above 1, or with a `timeout` in seconds per pair, worker processes generate and score; otherwise
    everything happens in this process. Methods that are objects cannot run in another process. The results do not
    depend on `jobs`, as long as the number of threads is the same (`OMP_NUM_THREADS`; a worker's default is 1).
    `executor` chooses who does the work, and `executor_settings` are its settings (`--set executor.K=V`).

    Runs are written below `out`; call again with the same arguments to resume an interrupted call. `limit` keeps only
    the first pairs of the suite, `pairs` only those with these ids. With several methods, errors of a method are added
    to `Results.errors`; the error of a single method is raised. Raises `UsageError` and `MissingAssetError` for
    problems found before the first run starts.
    """
    registry = load_registry()
    method_list = [methods] if isinstance(methods, str) or not isinstance(methods, Sequence) else list(methods)
    names = [item if isinstance(item, str) else add_method(registry, item) for item in method_list]
    scored = None
    if metrics is not None:
        metric_list = [metrics] if isinstance(metrics, str) else metrics
        scored = [item if isinstance(item, str) else add_metric(registry, item) for item in metric_list]
    prepared = prepare_all(
        registry,
        names,
        suite,
        weights=None if weights is None else str(weights),
        data=_paths(data),
        settings=settings,
        metrics=scored,
        limit=limit,
        pairs=pairs,
        seed=seed,
        device=device,
        strict=strict,
    )
    for note in dict.fromkeys(note for item in prepared.values() for note in item.notes):
        print(f"note: {note}", file=sys.stderr)
    display = (open_progress() if progress else NoProgress()) if isinstance(progress, bool) else progress
    runs = run_all(
        registry,
        prepared,
        executor=executor,
        jobs=jobs,
        pool=_pool(registry.executor(executor), executor_settings, jobs, timeout, device),
        out=Path(out),
        retry_failed=retry_failed,
        progress=display,
    )
    if runs.errors and len(names) == 1:
        raise next(iter(runs.errors.values()))
    return Results(tuple(folder.path for folder in runs.folders), dict(runs.errors))


def _pool(
    spec: ExecutorSpec, settings: Mapping[str, Any] | None, jobs: int, timeout: float | None, device: str
) -> PoolOptions | None:
    """The options of workers; None if everything happens in this process."""
    here = spec.name == "local" and jobs == 1 and timeout is None
    pool = None if here else PoolOptions(timeout=timeout, device=device_name(device))
    return optional_pool(spec, pool, settings or {})


def load_results(*paths: str | PathLike[str]) -> Results:
    """Load the results of run folders, folders that contain some, or records (default: ./runs)."""
    return Results(tuple(Path(path) for path in paths or ("runs",)))


def score(
    outputs: Sequence[ClipLike],
    targets: Sequence[ClipLike] | None = None,
    *,
    metrics: Sequence[Any],
    contents: Sequence[ClipLike] | None = None,
    motions: Sequence[ClipLike] | None = None,
    subjects: Sequence[str] | None = None,
    device: str = "cpu",
) -> dict[str, Value]:
    """Score existing clips without a suite. Returns column -> value with its 95 % interval.

    `targets` are the ground-truth targets, `contents` and `motions` the inputs; pass those that the metrics need (PSNR
    and FID need targets, CSIM contents). `subjects` contains the subject of each clip, by which intervals are
    clustered; by default each clip is its own cluster. All clips must have the same size. The value of columns that
    could not be scored is None.

    Raises `UsageError` for lists of different lengths, empty `outputs`, and unknown metrics.
    """
    output_clips = [read_clip(output, f"output {index}") for index, output in enumerate(outputs)]
    if not output_clips:
        raise UsageError("no outputs to score")
    roles: dict[str, list[ClipRef]] = {}
    for role, clips in (("content", contents), ("motion", motions), ("target", targets)):
        if clips is not None and len(clips) != len(output_clips):
            raise UsageError(f"{len(output_clips)} outputs, but {len(clips)} clips with the role {role!r}")
        roles[role] = [
            ClipRef(f"{role}-{index}", NotGiven(role), frames=len(output_clips[index]))
            if clips is None
            else _reference(f"{role}-{index}", read_clip(clips[index], f"{role} {index}"))
            for index in range(len(output_clips))
        ]
    if subjects is not None and len(subjects) != len(output_clips):
        raise UsageError(f"{len(output_clips)} outputs, but {len(subjects)} subjects")
    pairs = [
        Pair(
            f"{index:06d}",
            replace(content, labels={"subject": str(subjects[index]) if subjects else f"{index:06d}"}),
            motion,
            None if targets is None else target,
        )
        for index, (content, motion, target) in enumerate(
            zip(roles["content"], roles["motion"], roles["target"], strict=True)
        )
    ]
    size = output_clips[0].frames.shape[1:3]
    suite = Suite("clips", "0", pairs, (int(size[0]), int(size[1])), output_clips[0].fps)
    with tempfile.TemporaryDirectory(prefix="bcd-bench-score-") as folder:
        method = _Given({pair.id: clip for pair, clip in zip(pairs, output_clips, strict=True)})
        results = evaluate(method, suite, metrics=metrics, device=device, out=folder, progress=False)
        [record] = results.records
        for name, info in record.metrics.items():
            if info.error:
                raise UsageError(f"metric {name}: {info.error}")
        return dict(record.values)


class _Given:
    """The method of `score`, which returns the existing clips."""

    name = "given"

    def __init__(self, clips: Mapping[str, Clip]) -> None:
        self._clips = clips

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> list[Clip | Failed]:
        del seed
        return [self._clips[pair.id] for pair in pairs]


def _reference(name: str, clip: Clip) -> ClipRef:
    return ClipRef(name, InMemory(clip), frames=len(clip))


def _paths(data: Mapping[str, str | PathLike[str]] | None) -> dict[str, Path]:
    return {name: Path(path).expanduser() for name, path in (data or {}).items()}
