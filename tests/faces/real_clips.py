"""Real clips for the tests, and items made of clips in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from bcd_bench import Clip, ClipRef, Failed, Pair
from bcd_bench.assets.store import AssetStore
from bcd_bench.io.video import read_video
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.registry import Registry, load_registry
from bcd_bench.scoring.features import BatchFeatures, FeatureStore
from bcd_bench_faces.assets import ARCFACE, FACE_LANDMARKER

LRS3 = Path(os.environ.get("BCD_BENCH_TEST_LRS3") or Path(__file__).parents[3] / "shared" / "data" / "lrs3-mini")
Frames = npt.NDArray[np.uint8]


def have(asset: str) -> bool:
    return AssetStore(load_registry()).status_of(asset).state == "ok"


needs_clips = pytest.mark.skipif(not LRS3.is_dir(), reason=f"no clips at {LRS3.name}: set BCD_BENCH_TEST_LRS3")
needs_landmarker = pytest.mark.skipif(not have(FACE_LANDMARKER.name), reason=f"no {FACE_LANDMARKER.filename}")
needs_arcface = pytest.mark.skipif(not have(ARCFACE.name), reason=f"no {ARCFACE.filename}, nor another ArcFace model")


@cache
def real(person: str, clip: str = "00001", frames: int = 3) -> Frames:
    """uint8[T, 224, 224, 3], spread over a clip of the test split."""
    found = read_video(LRS3 / "test" / person / f"{clip}.mp4").frames
    return np.ascontiguousarray(found[np.linspace(0, len(found) - 1, frames).astype(int)])


def black(frames: int = 3, height: int = 224, width: int = 224) -> Frames:
    return np.zeros((frames, height, width, 3), np.uint8)


@dataclass(frozen=True)
class InMemory:
    frames: Any

    def load(self) -> Clip:
        return Clip(self.frames, 25.0)

    def describe(self) -> dict[str, Any]:
        return {"kind": "in memory"}


def pair(number: int, content: Frames, motion: Frames) -> Pair:
    return Pair(f"p{number}", ClipRef(f"c{number}", InMemory(content)), ClipRef(f"m{number}", InMemory(motion)))


def score(
    metric: Any,
    extractor: str,
    cases: Sequence[tuple[Frames, Frames, Frames]],
    root: Path,
    registry: Registry | None = None,
) -> list[Any]:
    """Rows for (content, motion, output) as a run would score them in one batch."""
    pairs = [pair(number, content, motion) for number, (content, motion, _) in enumerate(cases)]
    outputs = [Clip(output, 25.0) for _, _, output in cases]
    features = BatchFeatures(FeatureStore(registry or load_registry(), device="cpu", root=root), pairs, outputs)
    metric.load("cpu")
    items = [
        Scored(one, clip, features.of(i, [extractor])) for i, (one, clip) in enumerate(zip(pairs, outputs, strict=True))
    ]
    return list(metric.score(items))


def item(extractor: str, **roles: Any) -> Scored:
    """An item with features of our making, arrays by name or `Failed`, by role."""
    practice = pair(0, black(1), black(1))
    assert all(isinstance(one, Failed | dict) for one in roles.values())
    return Scored(practice, Clip(black(1), 25.0), {extractor: roles})
