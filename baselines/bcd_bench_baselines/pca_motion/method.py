"""`pca-motion`: one content frame, warped so that its landmarks move as the driver's do. No weights, no training.

What such a warp can do is what first-order motion models learned to do better; what it cannot (another view of the
head, an opened mouth, wrinkles) is what they have to beat it at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.pca_motion.motion import Mode, Track, best_frame, retarget

__all__ = ["PcaMotion"]

LANDMARKS = "mediapipe-landmarks"
SEEN = 0.5
"""Share of the driver's frames that must show a face."""


class PcaMotion:
    """Settings: `mode`, absolute or relative (`motion.retarget`); `components` of the driver's linear PCA;
    `expression`, by which the driver's change of expression is multiplied."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._mode: Mode = config["mode"]
        self._components, self._gain = config["components"], config["expression"]
        if self._mode not in get_args(Mode):
            raise UsageError(f"mode={self._mode!r}: there are {' and '.join(get_args(Mode))}")
        if not isinstance(self._components, int) or isinstance(self._components, bool) or self._components < 0:
            raise UsageError(f"components={self._components!r} is no number of components", hint="components=12")
        if isinstance(self._gain, bool) or not isinstance(self._gain, int | float) or not 0 <= self._gain <= 10:
            raise UsageError(f"expression={self._gain!r} is no factor in 0..10", hint="expression=1")

    def load(self, weights: Path | None, device: str) -> None:
        """There is nothing to load; it runs on the CPU. Raises `UsageError` for weights."""
        del device
        if weights is not None:
            raise UsageError("method 'pca-motion' takes no weights")

    def transfer(
        self, pairs: Sequence[Pair], *, seed: int, features: Sequence[Mapping[str, Mapping[str, Any]]]
    ) -> Iterator[Clip | Failed]:
        """Every pair on its own; nothing is random."""
        del seed
        for pair, found in zip(pairs, features, strict=True):
            yield self._one(pair, found[LANDMARKS]["content"], found[LANDMARKS]["motion"])

    def _one(self, pair: Pair, content: Any, motion: Any) -> Clip | Failed:
        from bcd_bench_baselines.pca_motion.warp import FaceMesh, mouth_opening, newly_open

        tracks = {}
        for role, found in (("content", content), ("driver", motion)):
            if isinstance(found, Failed):
                return Failed(f"{role}: {found.reason}")
            try:
                tracks[role] = Track.of(found)
            except ValueError as error:
                return Failed(f"{role}: {error}")
        face, driver = tracks["content"], tracks["driver"]
        if driver.seen.mean() < SEEN:
            return Failed(f"driver: a face in only {driver.seen.sum()} of {len(driver)} frames")
        frame = best_frame(face, driver)
        moved = retarget(face, frame, driver, mode=self._mode, components=self._components, gain=float(self._gain))
        try:
            mesh = FaceMesh.build(
                pair.content.load().frames[frame], face.points[frame], face.rotation[frame], float(face.scale[frame])
            )
        except ValueError as error:
            return Failed(f"content: {error}")
        opened = newly_open(float(mouth_opening(face.shape[frame : frame + 1])[0]), mouth_opening(moved.shape))
        frames = mesh.bend(moved.points, moved.rotation, moved.scale, opened)
        return Clip(frames, pair.motion.load().fps, pair.id)
