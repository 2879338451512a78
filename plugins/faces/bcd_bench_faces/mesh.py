"""The extractor `face-mesh`: the head model fitted to the landmarks of a clip, once for all metrics that measure it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.clips import Clip, Failed
from bcd_bench_faces.correspondence import Correspondence
from bcd_bench_faces.face_model import head_model_sha256, load_face_model
from bcd_bench_faces.fit import FitOptions, HeadFit, LandmarkBasis, fit_clip

__all__ = ["LANDMARKS", "MAX_REPROJECTION", "MIN_VALID", "FaceMesh", "fit_or_fail"]

LANDMARKS = "face-landmarks"
"""The extractor whose points are fitted."""
MIN_VALID = 0.5
"""Share of frames with a face under which a clip has no fit."""
MAX_REPROJECTION = 3.0
"""Mean reprojection error, in pixels of a 256-pixel frame, above which a fit says nothing about the face."""


def fit_or_fail(
    basis: LandmarkBasis, points: npt.NDArray[np.floating], size: tuple[int, int], options: FitOptions | None = None
) -> HeadFit | Failed:
    """The fit of `points` [T, N, 2 or 3], or why there is none: too few frames with a face, or too far off."""
    with_face = int(np.isfinite(points[:, :, :2]).all(axis=(1, 2)).sum())
    if with_face == 0 or with_face < MIN_VALID * len(points):
        return Failed(f"a face was found in {with_face} of {len(points)} frames; a fit needs {MIN_VALID:.0%}")
    fit = fit_clip(basis, points, size, options)
    off = float(fit.reprojection[fit.valid].mean())
    if not off <= MAX_REPROJECTION:
        return Failed(f"the head fitted to the landmarks is {off:.1f} px off; the gate is {MAX_REPROJECTION:g} px")
    return fit


class FaceMesh:
    """Identity, expression and pose of the head in a clip.

    Arrays: `identity` float64[K] (unit variance over people), `expression` float64[T, E] in 0..1, `rotation`
    float64[T, 3, 3] and `translation` float64[T, 3] in mm (camera = rotation @ model + translation; x right, y down, z
    away), `reprojection` float64[T] in pixels of a 256-pixel frame, `valid` bool[T]; NaN where a frame is not valid.
    """

    def __init__(self) -> None:
        self._basis: LandmarkBasis | None = None
        self._landmarks: npt.NDArray[np.int32] | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """The head model, the correspondence, and how they are fitted; the landmarks have an identity of their own."""
        return {
            "head": head_model_sha256(),
            "correspondence": Correspondence.sha256(),
            "fit": asdict(FitOptions()),
            "gates": [MIN_VALID, MAX_REPROJECTION],
        }

    def load(self, device: str) -> None:
        """Read head model and correspondence, which come with this package; the fit runs on the CPU."""
        del device
        correspondence = Correspondence.load()
        self._basis, self._landmarks = correspondence.basis(load_face_model()), correspondence.landmarks

    def extract(
        self, clips: Sequence[Clip], features: Mapping[str, Sequence[Mapping[str, Any]]], /
    ) -> list[Mapping[str, Any] | Failed]:
        """The fit of every clip, from `features["face-landmarks"]`; `Failed` as `fit_or_fail` says."""
        return [self._fit(clip, row["points"]) for clip, row in zip(clips, features[LANDMARKS], strict=True)]

    def _fit(self, clip: Clip, points: npt.NDArray[np.float32]) -> Mapping[str, Any] | Failed:
        assert self._basis is not None, "load comes before extract"
        assert self._landmarks is not None
        height, width = clip.frames.shape[1:3]
        fit = fit_or_fail(self._basis, points[:, self._landmarks], (height, width))
        if isinstance(fit, Failed):
            return fit
        return {
            "identity": fit.identity,
            "expression": fit.expression,
            "rotation": fit.rotation,
            "translation": fit.translation,
            "reprojection": fit.reprojection,
            "valid": fit.valid,
        }
