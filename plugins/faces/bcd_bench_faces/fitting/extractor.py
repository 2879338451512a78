"""The extractors `face-mesh` and `face-mesh-mediapipe`: the head model fitted to a clip, once for all metrics that use
it.

They differ in the landmarks: those of our own network, or MediaPipe's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench_faces.fitting.levenberg_marquardt import SIDE, Expected, FitOptions, HeadFit, LandmarkBasis, fit_clip
from bcd_bench_faces.head_model.correspondence import Correspondence
from bcd_bench_faces.head_model.face_region import head_model_sha256, load_face_model
from bcd_bench_faces.metrics.vertex_errors import FaceModel

__all__ = [
    "DENSE_FIT",
    "MAX_REPROJECTION",
    "MIN_VALID",
    "FaceMesh",
    "MediaPipeFaceMesh",
    "dense_basis",
    "dense_expected",
    "dense_weight",
    "fit_or_fail",
]

DENSE_FIT: Final = FitOptions(identity_prior=1.0, expression_l1=0.0, expression_l2=200.0)
"""Options for fitting dense landmarks, with priors towards the network's predictions. On 14 people of the training
split, identity priors of 0.3 to 5 and expression priors of 80 to 600 rank errors alike; without the latter, expressions
rank worse (0.72 instead of 0.84)."""
TRUST: Final = 1.0
"""Weight of a point whose variance, including `NUGGET`, is one squared pixel of a 256-pixel frame."""
NUGGET: Final = 0.25
"""Squared pixels added to every predicted variance, so that the weight of a point is bounded."""
MIN_VALID = 0.5
"""Minimum fraction of frames with a face; clips with fewer are not fitted."""
MAX_REPROJECTION = 3.0
"""Maximum mean reprojection error, in pixels of a 256-pixel frame; a fit above it is not informative."""


def fit_or_fail(
    basis: LandmarkBasis,
    points: npt.NDArray[np.floating],
    size: tuple[int, int],
    options: FitOptions | None = None,
    weight: npt.NDArray[np.floating] | None = None,
    expected: Expected | None = None,
) -> HeadFit | Failed:
    """The fit of `points` [T, N, 2 or 3]; `Failed` if too few frames have a face or the fit is too inaccurate."""
    with_face = int(np.isfinite(points[:, :, :2]).all(axis=(1, 2)).sum())
    if with_face == 0 or with_face < MIN_VALID * len(points):
        return Failed(f"a face was found in {with_face} of {len(points)} frames; a fit requires {MIN_VALID:.0%}")
    fit = fit_clip(basis, points, size, options, weight, expected)
    error = float(fit.reprojection[fit.valid].mean())
    if not error <= MAX_REPROJECTION:
        return Failed(f"the fitted head is {error:.1f} px from the landmarks; the limit is {MAX_REPROJECTION:g} px")
    return fit


def dense_basis(face: FaceModel, vertices: npt.NDArray[np.int32]) -> LandmarkBasis:
    """The head model's modes at the points of dense landmarks, which are vertices of it."""
    return LandmarkBasis(
        mean=np.ascontiguousarray(face.mean[vertices]),
        identity=np.ascontiguousarray(face.identity[:, vertices]),
        expression=np.ascontiguousarray(face.expression[:, vertices]),
        weight=np.ones(len(vertices)),
    )


def dense_weight(sigma: npt.NDArray[np.floating], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Weights float64[T, N]: one over the variance, from sigma [T, N] in pixels of frames of `size` (height, width)."""
    variance = (sigma.astype(np.float64) * (SIDE / max(size))) ** 2
    return np.asarray(TRUST / (variance + NUGGET))


def dense_expected(face: FaceModel, coefficients: npt.NDArray[np.floating]) -> Expected:
    """Prior means of a dense fit: the predicted identity and expressions, from `coefficients` [T, K' + E].

    The identity is the mean over the frames with a face, of those components that `face` has.
    """
    count = len(face.expression)
    finite = coefficients[np.isfinite(coefficients).all(axis=1)].astype(np.float64)
    mean = finite.mean(axis=0) if len(finite) else np.zeros(coefficients.shape[1])
    expression = coefficients[:, -count:].astype(np.float64).clip(0, 1)
    return Expected(mean[: len(face.identity)], expression)


class _Mesh(ABC):
    """Identity, expression and pose of the head in a clip.

    Arrays: `identity` float64[K] (unit variance over people), `expression` float64[T, E] in 0..1, `rotation`
    float64[T, 3, 3] and `translation` float64[T, 3] in mm (camera = rotation @ model + translation; x right, y down, z
    away), `reprojection` float64[T] in pixels of a 256-pixel frame, `valid` bool[T]; NaN in frames that are not valid.
    """

    landmarks: ClassVar[str]
    """The extractor that provides the points."""
    options: ClassVar[FitOptions]

    def __init__(self) -> None:
        self._basis: LandmarkBasis | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Cache key: the head model, its landmarks, and the fit options; the landmarks have their own cache key."""
        return {
            "head": head_model_sha256(),
            "fit": asdict(self.options),
            "gates": [MIN_VALID, MAX_REPROJECTION],
            **self._points_identity(),
        }

    def load(self, device: str) -> None:
        """Read the data in this package; the fit runs on the CPU."""
        del device
        self._basis = self._load_basis()

    def extract(
        self, clips: Sequence[Clip], features: Mapping[str, Sequence[Mapping[str, Any]]], /
    ) -> list[Mapping[str, Any] | Failed]:
        """The fit of every clip, from the features of `landmarks`; `Failed` as in `fit_or_fail`."""
        return [self._fit(clip, row) for clip, row in zip(clips, features[self.landmarks], strict=True)]

    def _fit(self, clip: Clip, row: Mapping[str, Any]) -> Mapping[str, Any] | Failed:
        assert self._basis is not None, "load comes before extract"
        size = (clip.frames.shape[1], clip.frames.shape[2])
        points, weight, expected = self._points(row, size)
        fit = fit_or_fail(self._basis, points, size, self.options, weight, expected)
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

    @abstractmethod
    def _points_identity(self) -> Mapping[str, Any]:
        """Cache key of the points on the head that the landmarks correspond to, and their weights."""

    @abstractmethod
    def _load_basis(self) -> LandmarkBasis: ...

    @abstractmethod
    def _points(
        self, row: Mapping[str, Any], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating] | None, Expected | None]:
        """The points to fit [T, N, 2 or 3], their weights [T, N] (None: those of the basis), and the prior means."""


class FaceMesh(_Mesh):
    """The fit to our own dense landmarks, weighted by their predicted uncertainty."""

    landmarks = "dense-landmarks"
    options = DENSE_FIT

    def _points_identity(self) -> Mapping[str, Any]:
        return {"weight": [TRUST, NUGGET]}

    def _load_basis(self) -> LandmarkBasis:
        from bcd_bench_faces.dense_landmarks.detector import network_vertices

        self._face = load_face_model()
        return dense_basis(self._face, network_vertices())

    def _points(
        self, row: Mapping[str, Any], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating] | None, Expected | None]:
        expected = dense_expected(self._face, row["coefficients"])
        return row["points"], dense_weight(row["sigma"], size), expected


class MediaPipeFaceMesh(_Mesh):
    """The fit to MediaPipe's landmarks, weighted by their measured error on rendered heads."""

    landmarks = "mediapipe-landmarks"
    options = FitOptions()

    def _points_identity(self) -> Mapping[str, Any]:
        return {"correspondence": Correspondence.sha256()}

    def _load_basis(self) -> LandmarkBasis:
        correspondence = Correspondence.load()
        self._landmarks = correspondence.landmarks
        return correspondence.basis(load_face_model())

    def _points(
        self, row: Mapping[str, Any], size: tuple[int, int]
    ) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating] | None, Expected | None]:
        del size
        return row["points"][:, self._landmarks], None, None
