"""The Python API: load methods and suites, transfer clips, evaluate methods, score outputs.

    >>> import bcd_bench as bb
    >>> bcd = bb.load_method("bcd", weights="heads-small")
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
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import AssetStore
from bcd_bench.assets.weights import resolve_weights
from bcd_bench.io.inputs import InMemory, NotGiven, fitted, read_clip
from bcd_bench.plugin import suites
from bcd_bench.plugin.objects import add_method, add_metric
from bcd_bench.plugin.registry import load_registry
from bcd_bench.results.results import Results
from bcd_bench.results.schema import Value
from bcd_bench.run.executor import Batch, Work, close_method, run_batch
from bcd_bench.run.executor import load_method as load_work
from bcd_bench.run.pipeline import prepare_all, run_all
from bcd_bench.run.plan import resolved_config
from bcd_bench.scoring.features import needed_extractors
from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import TransferError, UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.types.suite import Suite
from bcd_bench.util.devices import device_name
from bcd_bench.util.pool import PoolOptions
from bcd_bench.util.progress import NoProgress, Progress, open_progress

if TYPE_CHECKING:
    from types import TracebackType

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


class LoadedMethod:
    """A method with its weights on a device, for `transfer`. Can be used as a context manager, which closes it."""

    def __init__(self, name: str, method: Any) -> None:
        self.name = name
        self._method = method

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """(height, width) in pixels of the clips that the method accepts; None if it accepts any size."""
        size = getattr(self._method, "frame_size", None)
        return None if size is None else (int(size[0]), int(size[1]))

    def transfer(self, content: ClipLike, motion: ClipLike, *, seed: int = 0, size: Any = None) -> Clip:
        """As `bcd_bench.transfer`."""
        driving = read_clip(motion, "motion")
        source = read_clip(content, "content")
        height, width = size or self.frame_size or driving.frames.shape[1:3]
        pair = Pair(
            "transfer",
            _reference("content", fitted(source, (height, width))),
            _reference("motion", fitted(driving, (height, width))),
        )
        outcome = run_batch(self._method, Batch(0, [pair]), seed=seed, size=(height, width))
        [result] = outcome.results
        if isinstance(result, Failed):
            raise TransferError(f"{self.name}: {result.reason}")
        assert isinstance(result, Clip), "only executors encode outputs"
        return result

    def close(self) -> None:
        """Release the method's resources, such as processes."""
        close_method(self._method)

    def __enter__(self) -> LoadedMethod:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_method(
    method: str | Any,
    *,
    weights: str | PathLike[str] | None = None,
    suite: str | None = None,
    device: str = "cpu",
    settings: Mapping[str, Any] | None = None,
) -> LoadedMethod:
    """Load a method by name, or an object or function (see `evaluate`), for `transfer`.

    `weights` is a name or a path; by default, those for `suite`, or the only weights that the method has.
    `settings` are those of `bcd-bench run --set`. Raises `UsageError` for unknown names and settings, and
    `MissingAssetError` for files that are missing or altered.
    """
    registry = load_registry()
    name = method if isinstance(method, str) else add_method(registry, method)
    spec = registry.method(name)
    store = AssetStore(registry)
    config = resolved_config(spec, settings or {})
    choice = None if weights is None else str(weights)
    seeded = bool(spec.seeded_by) and config.get(spec.seeded_by) is not None
    if choice is None and suite is None and spec.weights and not seeded:
        if len(spec.weights) > 1:
            names = ", ".join(option.name for option in spec.weights)
            raise UsageError(
                f"method {name!r} has several sets of weights: {names}", hint=f'weights="{spec.weights[0].name}"'
            )
        choice = spec.weights[0].name
    for asset in spec.assets:
        store.find(asset)
    resolved = None if seeded else resolve_weights(spec, suite or "", choice, store)
    path = None if resolved is None else resolved.path
    extractors = tuple(needed_extractors(registry, spec.extractors))
    work = Work(name, spec.factory, config, path, device_name(device), 0, (0, 0), extractors)
    return LoadedMethod(name, load_work(work))


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
) -> Clip:
    """A clip with the subject of `content` and the motion of `motion`.

    Both are videos or photos by path, clips, or arrays uint8 [T, H, W, 3] or [H, W, 3] (RGB). They are cropped around
    their centre and resized to `size` (height, width), by default to the size that the method accepts, else to that
    of the driving clip. The output is as long as the driving clip and has its frame rate.

    `method` is a name, a `LoadedMethod` (load once, transfer often), or an object; `weights`, `device` and `settings`
    are as in `load_method`. Raises `TransferError` if the method fails on the pair, and `UsageError` for files that
    cannot be read.
    """
    if isinstance(method, LoadedMethod):
        return method.transfer(content, motion, seed=seed, size=size)
    with load_method(method, weights=weights, device=device, settings=settings) as loaded:
        return loaded.transfer(content, motion, seed=seed, size=size)


def evaluate(
    methods: str | Any | Sequence[Any],
    suite: str | Suite,
    *,
    metrics: Sequence[Any] | None = None,
    weights: str | PathLike[str] | None = None,
    settings: Mapping[str, Any] | None = None,
    data: Mapping[str, str | PathLike[str]] | None = None,
    limit: int | None = None,
    seed: int = 0,
    device: str = "cpu",
    out: str | PathLike[str] = "runs",
    executor: str = "local",
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

    Runs are written below `out`; call again with the same arguments to resume an interrupted call. `limit` keeps only
    the first pairs of the suite. With several methods, errors of a method are added to `Results.errors`; the error of
    a single method is raised. Raises `UsageError` and `MissingAssetError` for problems found before the first run
    starts.
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
        pool=None if jobs == 1 and timeout is None else PoolOptions(timeout=timeout),
        out=Path(out),
        retry_failed=retry_failed,
        progress=display,
    )
    if runs.errors and len(names) == 1:
        raise next(iter(runs.errors.values()))
    return Results(tuple(folder.path for folder in runs.folders), dict(runs.errors))


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
