"""Runs batches of pairs through a method. A pair that fails does not affect the others."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bcd_bench.assets.hashing import canonical_json
from bcd_bench.io.video import encode_lossless
from bcd_bench.plugin.base import Method
from bcd_bench.plugin.isolation import PluginScope, raised_by_plugin
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.plugin.specs import ExtractorSpec
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import BcdBenchError, one_line, printable
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench.util.pool import PoolOptions

__all__ = ["Batch", "Encoded", "Executor", "Outcome", "Work", "close_method", "encoded", "load_method", "run_batch"]


@dataclass(frozen=True)
class Work:
    """Everything that a worker needs to build the method, in this or another process. Can be pickled."""

    method: str
    factory: str
    config: Mapping[str, Any]
    weights: Path | None
    device: str
    seed: int
    size: tuple[int, int]
    extractors: tuple[ExtractorSpec, ...] = ()
    """Extractors whose features the method receives, in dependency order (`features.needed_extractors`)."""
    pool: PoolOptions | None = None
    """How worker processes of this machine run; None lets the executor `local` run a single job in this process."""
    distributions: tuple[str, ...] = ()
    """The installed distributions whose requirements' versions an `Outcome.environment` lists."""
    outputs: Path | None = None
    """The folder of outputs, if workers write their outputs into it (under temporary names) instead of sending them."""


@dataclass(frozen=True)
class Batch:
    """The pairs of one `transfer` call, as planned. `wanted` are the ids of the pairs to keep; empty keeps all."""

    number: int
    pairs: Sequence[Pair]
    wanted: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Encoded:
    """An output that a worker has already encoded as the file to write; the other fields describe its frames.

    If the worker has written and synced the file as well, `file` is its temporary name next to the final one, `size`
    its length in bytes, and `data` is empty.
    """

    data: bytes
    sha256: str
    frames: int
    fps: float
    info: Mapping[str, Any] | None
    file: Path | None = None
    size: int = 0


@dataclass(frozen=True)
class Outcome:
    """One output or failure per pair of a batch, in order, and the seconds the batch took.

    An executor may leave all other fields at their defaults. `peak_memory` is the largest memory of the worker so far,
    in MiB. `environment` contains the parts of `environment.environment` that only the worker knows. `events` are
    lines for `--log-json`, as (kind, details).
    """

    batch: Batch
    results: Sequence[Clip | Failed | Encoded]
    seconds: float
    peak_memory: float = 0.0
    environment: Mapping[str, Any] | None = None
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()


class Executor(Protocol):
    """Runs batches and yields one outcome per batch, in any order. `ExecutorSpec.factory` refers to such a callable.

    The caller writes the files, so an executor needs no access to the run folder. It can encode outputs where they are
    generated (`encoded`), which makes them smaller. `jobs` is the value of `--jobs`, at least 1.
    """

    def __call__(self, work: Work, batches: Iterator[Batch], *, jobs: int) -> Iterator[Outcome]: ...


class _WithFeatures:
    """Wraps a method so that each call receives the features of its pairs, from the cache or extracted on access."""

    def __init__(self, method: Any, work: Work) -> None:
        from bcd_bench.assets.store import cache_folder
        from bcd_bench.plugin.registry import Registry
        from bcd_bench.scoring.features import FeatureStore

        self._method = method
        self._names = tuple(spec.name for spec in work.extractors)
        registry = Registry(extractors={spec.name: spec for spec in work.extractors})
        self._store = FeatureStore(registry, device=work.device, root=cache_folder() / "features")

    @property
    def frame_size(self) -> tuple[int, int] | None:
        size: tuple[int, int] | None = getattr(self._method, "frame_size", None)
        return size

    def load(self, weights: Path | None, device: str) -> None:
        self._method.load(weights, device)

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterable[Clip | Failed]:
        from bcd_bench.scoring.features import BatchFeatures

        batch = BatchFeatures(self._store, pairs, ())
        features = [batch.of(index, self._names, ("content", "motion")) for index in range(len(pairs))]
        outputs: Iterable[Clip | Failed] = self._method.transfer(pairs, seed=seed, features=features)
        return outputs

    def close(self) -> None:
        close_method(self._method)


def close_method(method: Any) -> None:
    """Close a method, if it has a `close` method."""
    close = getattr(method, "close", None)
    if close is not None:
        close()


class _Isolated:
    """Wraps a method so that its code runs in its own `PluginScope`: its global settings affect no other code."""

    def __init__(self, method: Any, scope: PluginScope) -> None:
        self._method, self._scope = method, scope

    @property
    def frame_size(self) -> tuple[int, int] | None:
        with self._scope:
            size: tuple[int, int] | None = getattr(self._method, "frame_size", None)
        return size

    def load(self, weights: Path | None, device: str) -> None:
        with self._scope:
            self._method.load(weights, device)

    def transfer(self, pairs: Sequence[Pair], *, seed: int, **features: Any) -> Iterator[Clip | Failed]:
        """Yield copies of the outputs, since a method may reuse one array for all of them."""
        with self._scope:
            outputs = iter(self._method.transfer(list(pairs), seed=seed, **features))  # a copy of the list
        while True:
            with self._scope:
                output = _copied(next(outputs, _END))
            if output is _END:
                return
            yield output

    def close(self) -> None:
        with self._scope:
            close_method(self._method)


_END: Any = object()


def _copied(output: Any) -> Any:
    """A copy of an output, which the method cannot modify later."""
    if not isinstance(output, Clip):
        return output
    return Clip(np.array(output.frames), output.fps, output.id, copy.deepcopy(output.info))


def load_method(work: Work) -> Method:
    """Import, build and load the method. If it needs features, they are passed to its `transfer`.

    The method's code always runs in its own `PluginScope`. Raises `MissingDependencyError` if a package is not
    installed, and `UsageError` for any other exception of the method's own code. Errors that are already a
    `BcdBenchError` are re-raised unchanged.
    """
    scope = PluginScope()
    with plugin_code(f"method {work.method!r}", "cannot be loaded"):
        with scope:
            built = load_factory(work.factory)(copy.deepcopy(dict(work.config)))
        method: Any = _Isolated(built, scope)
        if work.extractors:
            method = _WithFeatures(method, work)
        method.load(work.weights, work.device)
    loaded: Method = method
    return loaded


def _transfer(method: Method, pairs: Sequence[Pair], seed: int) -> list[Clip | Failed]:
    results = list(method.transfer(pairs, seed=seed))
    if len(results) != len(pairs):
        raise ValueError(f"transfer returned {len(results)} outputs for {len(pairs)} pairs")
    return results


def _checked(pair: Pair, result: Any, size: tuple[int, int]) -> Clip | Failed:
    """The output if it is a valid clip with the driving clip's length and the suite's size, else `Failed`."""
    if isinstance(result, Failed):
        return Failed(printable(str(result.reason)))
    if not isinstance(result, Clip):
        return Failed(f"output is {type(result).__name__}, not a Clip")
    if result.frames.dtype != np.uint8 or result.frames.ndim != 4 or result.frames.shape[-1] != 3:
        return Failed(f"output must be uint8 [T, H, W, 3], not {result.frames.dtype} {list(result.frames.shape)}")
    if result.frames.shape[1:3] != tuple(size):
        return Failed(
            f"output is {result.frames.shape[1]}x{result.frames.shape[2]}, but the suite is {size[0]}x{size[1]}"
        )
    try:
        canonical_json(None if result.info is None else dict(result.info))
    except (BcdBenchError, TypeError, ValueError) as error:
        return Failed(f"output info is {error}")
    n_frames = pair.motion.frames if pair.motion.frames is not None else len(pair.motion.load())
    if len(result) != n_frames:
        return Failed(f"output has {len(result)} frames, but its driving clip has {n_frames}")
    if not 0 < result.fps < float("inf"):
        return Failed(f"output has an invalid frame rate: {result.fps}")
    return result


def run_batch(method: Method, batch: Batch, *, seed: int, size: tuple[int, int]) -> Outcome:
    """Transfer one batch. If the call raises, the pairs are transferred one by one, so that only the bad pairs fail."""
    started = time.perf_counter()
    results: list[Clip | Failed]
    try:
        results = _transfer(method, batch.pairs, seed)
    except BaseException as error:  # the errors of single pairs are reported below
        if not raised_by_plugin(error):
            raise
        results = []
        for pair in batch.pairs:
            if batch.wanted and pair.id not in batch.wanted:
                results.append(Failed("not requested"))
                continue
            try:
                results += _transfer(method, [pair], seed)
            except BaseException as error:
                if not raised_by_plugin(error):
                    raise
                results.append(Failed(one_line(error)))
    checked: list[Clip | Failed] = []
    for pair, result in zip(batch.pairs, results, strict=True):
        try:
            checked.append(_checked(pair, result, size))
        except BaseException as error:  # loading the driving clip runs code of the suite
            if not raised_by_plugin(error):
                raise
            checked.append(Failed(one_line(error)))
    return Outcome(batch, checked, time.perf_counter() - started)


def encoded(result: Clip | Failed) -> Encoded | Failed:
    """An output of `run_batch` as the lossless file to write; `Failed` if it cannot be encoded."""
    if isinstance(result, Failed):
        return result
    try:
        data = encode_lossless(result)
    except ValueError as error:
        return Failed(f"output cannot be encoded: {error}")
    info = None if result.info is None else dict(result.info)
    return Encoded(data, result.sha256, len(result), float(result.fps), info, size=len(data))
