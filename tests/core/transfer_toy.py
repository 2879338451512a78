"""A preprocessor that finds the red square of a clip, and methods that show what they were given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from bcd_bench import Clip, Crop, Failed, Method, MethodSpec, Pair, Preprocessor, PreprocessorSpec, Weights, hookimpl
from bcd_bench.plugin.base import LazyFrame
from bcd_bench.types.errors import UsageError

FPS = 10.0


class RedSquare(Preprocessor):
    def find(self, frames: Iterable[LazyFrame]) -> Crop:
        frame = next(iter(frames)).rgb.astype(int)
        rows, columns = np.nonzero((frame[..., 0] > 180) & (frame[..., 1] < 80))
        if not len(rows):
            raise UsageError("no red square was found")
        return Crop(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1, ("it is red",))


class Half(Method):
    """Half content, half driving clip."""

    frame_size = (32, 32)  # type: ignore[assignment]

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            frames = (content.frames[:1].astype(int) + motion.frames) // 2
            yield Clip(frames.astype(np.uint8), motion.fps, pair.id)


class Broken(Half):
    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        raise RuntimeError("the network\nis down")


@hookimpl
def bcd_bench_preprocessors() -> list[PreprocessorSpec]:
    return [PreprocessorSpec("squares", "1", "The red square.", "transfer_toy:RedSquare", (32, 32), FPS)]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    return [
        MethodSpec("half", "3", "Half of both.", "transfer_toy:Half", preprocessor="squares"),
        MethodSpec("broken", "1", "Fails.", "transfer_toy:Broken", preprocessor="squares"),
        MethodSpec("whole", "1", "Half of both, uncropped.", "transfer_toy:Half"),
        MethodSpec(
            "weighted",
            "1",
            "With weights.",
            "transfer_toy:Half",
            weights=(Weights("toy", ("*",), "transfer_toy", "transfer_toy.py"),),
        ),
        MethodSpec("missing", "1", "Needs what is not there.", "transfer_toy:Half", preprocessor="circles"),
        MethodSpec(
            "assetless", "1", "Needs weights.", "transfer_toy:Half", weights=(Weights("w", ("*",), asset="gone"),)
        ),
    ]
