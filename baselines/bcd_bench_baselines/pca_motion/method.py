"""`pca-motion`: one content frame, warped so that its landmarks follow the driving clip's. No weights, no training.

First-order motion models learned to improve on such a warp; its limits (another view of the head, an opened mouth,
wrinkles) are where they should outperform it.
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
"""Minimum fraction of driving frames that show a face."""


class PcaMotion:
    """Settings: `mode`, absolute or relative (`motion.retarget`); `components` of the linear PCA of the driving clip;
    `expression`, a factor on its change of expression."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._mode: Mode = config["mode"]
        self._components, self._gain = config["components"], config["expression"]
        if self._mode not in get_args(Mode):
            raise UsageError(f"mode={self._mode!r}: must be {' or '.join(get_args(Mode))}")
        if not isinstance(self._components, int) or isinstance(self._components, bool) or self._components < 0:
            raise UsageError(f"components={self._components!r} must be a non-negative integer", hint="components=12")
        if isinstance(self._gain, bool) or not isinstance(self._gain, int | float) or not 0 <= self._gain <= 10:
            raise UsageError(f"expression={self._gain!r} must be a number between 0 and 10", hint="expression=1")

    def load(self, weights: Path | None, device: str) -> None:
        """Do nothing; the method has no weights and runs on the CPU. Raises `UsageError` if weights are passed."""
        del device
        if weights is not None:
            raise UsageError("method 'pca-motion' does not accept weights")

    def transfer(
        self, pairs: Sequence[Pair], *, seed: int, features: Sequence[Mapping[str, Mapping[str, Any]]]
    ) -> Iterator[Clip | Failed]:
        """Process pairs one by one; the method is deterministic."""
        del seed
        for pair, pair_features in zip(pairs, features, strict=True):
            yield self._one(pair, pair_features[LANDMARKS]["content"], pair_features[LANDMARKS]["motion"])

    def _one(self, pair: Pair, content: Any, motion: Any) -> Clip | Failed:
        from bcd_bench_baselines.pca_motion.warp import FaceMesh, mouth_opening, newly_open

        tracks = {}
        for role, role_features in (("content", content), ("driving clip", motion)):
            if isinstance(role_features, Failed):
                return Failed(f"{role}: {role_features.reason}")
            try:
                tracks[role] = Track.of(role_features)
            except ValueError as error:
                return Failed(f"{role}: {error}")
        face, driver = tracks["content"], tracks["driving clip"]
        if driver.seen.mean() < SEEN:
            return Failed(f"driving clip: only {driver.seen.sum()} of {len(driver)} frames show a face")
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
