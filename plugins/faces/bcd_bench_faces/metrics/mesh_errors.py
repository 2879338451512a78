"""The metrics `shape-error`, `motion-error` and `cross-error`: the paper's Appendix C with an open head model.

All three use the fits of the extractor `face-mesh`. Their values are not comparable with those of the paper, whose
fitter and head model were never released: the landmarks and the head differ, and the paper does not state the unit.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_faces.head_model.face_region import HEAD, load_face_model
from bcd_bench_faces.metrics.frame_coverage import enough, frames_column, share_of_frames
from bcd_bench_faces.metrics.vertex_errors import FaceModel, MotionErrors, Track, cross_errors, shape_error

__all__ = [
    "EXTRACTOR",
    "FLOORS",
    "MEDIAPIPE",
    "CrossError",
    "MediaPipeCrossError",
    "MediaPipeMotionError",
    "MediaPipeShapeError",
    "MotionError",
    "ShapeError",
]

EXTRACTOR = "face-mesh"
MEDIAPIPE = "-mediapipe"
"""Suffix of extractor, metrics and columns that use MediaPipe's landmarks."""

FLOORS: Mapping[str, str] = {
    "shape-error": "1.4 mm² (targets of heads-cross; results/validation)",
    "motion-error": "3.2 mm² (as for shape-error)",
    "motion-rotation": "1.9° (as for shape-error)",
    "motion-expression": "0.9 mm² (as for shape-error)",
    "cross-error": "4.7 mm² (as for shape-error)",
    "shape-error-mediapipe": "0.9 mm² (targets of heads-cross; results/validation)",
    "motion-error-mediapipe": "8.0 mm² (as for shape-error-mediapipe)",
    "motion-rotation-mediapipe": "3.1° (as for shape-error-mediapipe)",
    "motion-expression-mediapipe": "3.2 mm² (as for shape-error-mediapipe)",
    "cross-error-mediapipe": "9.7 mm² (as for shape-error-mediapipe)",
}
"""Column -> its measured value when the true error is zero, with its origin; appended to the column's definition.

A metric cannot distinguish errors below its floor. Floors are measured on the rendered pairs of heads-cross (with the
ground-truth target as the output); columns without a measured floor have no entry.
"""

UNIT = "mm²"
VERTEX = (
    f"mean over vertices of the squared distance, in mm² of the mean adult head, on {HEAD} fitted to landmarks; "
    "not comparable with the paper's figures, whose fitter is not released"
)


def _column(name: str, unit: str, definition: str, *, headline: bool = True, decimals: int = 2) -> Column:
    floor = f" Floor: {FLOORS[name]}." if name in FLOORS else ""
    return Column(name, unit, False, f"{definition}.{floor}", headline=headline, decimals=decimals)


REPROJECTION = _column(
    "fit-reprojection",
    "px",
    "Mean distance of the output's landmarks from those of the head fitted to them, in pixels of a 256-pixel frame",
    headline=False,
)


def _columns(*columns: Column) -> Sequence[Column]:
    """The columns of a metric named after the first, with the fraction of frames that they all use."""
    share = frames_column(columns[0].name)
    return (*(replace(column, frames=share.name) for column in (*columns, REPROJECTION)), share)


class _MeshError(PairMetric):
    """Common parts of the three metrics: the face model, and the fits by role."""

    columns: Sequence[Column]
    references: ClassVar[tuple[str, ...]]
    """Roles that the output is compared with."""
    suffix: ClassVar[str] = ""
    """Suffix of the extractor whose fits are compared, and of the columns."""

    def __init__(self) -> None:
        self._face: FaceModel | None = None

    def load(self, device: str) -> None:
        """Read the head model, which is in this package; meshes are compared on the CPU."""
        del device
        self._face = load_face_model()

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` if a clip has no fit, or the output's length is not the motion clip's."""
        return [self._row(item) for item in items]

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        assert self._face is not None, "load comes before score"
        features = item.features[EXTRACTOR + self.suffix]
        fits = {role: features[role] for role in ("output", *self.references)}
        for role, fit in fits.items():
            if isinstance(fit, Failed):
                return Failed(f"{role}: {fit.reason}")
        errors, output = self._compare(self._face, fits), fits["output"]
        if isinstance(errors, Failed):
            return errors
        quality = {REPROJECTION.name: float(output["reprojection"][output["valid"]].mean())}
        row = {name + self.suffix: value for name, value in {**errors, **quality}.items()}
        return row | {self.columns[0].frames: share_of_frames(output["valid"], _seen_by_driver(features, output))}

    @abstractmethod
    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, float] | Failed:
        """The errors by plain column name, from the fits of the output and of `references` by role."""


def _seen_by_driver(features: Mapping[str, Any], output: Mapping[str, Any]) -> npt.NDArray[np.bool_] | None:
    """bool[T]: frames of the driving clip with a face; None if no output frame lacks one, so that no fit is needed."""
    driver = None if output["valid"].all() else features["motion"]
    return None if driver is None or isinstance(driver, Failed) else driver["valid"]


def _common_frames(output: Mapping[str, Any], motion: Mapping[str, Any]) -> npt.NDArray[np.bool_] | Failed:
    """bool[T]: frames in which both clips have a fit; `Failed` if these are fewer than half."""
    if len(output["valid"]) != len(motion["valid"]):
        return Failed(f"the output has {len(output['valid'])} frames, the motion clip has {len(motion['valid'])}")
    common: npt.NDArray[np.bool_] = output["valid"] & motion["valid"]
    count = int(common.sum())
    if not enough(count, len(common)):
        return Failed(f"{count} of {len(common)} frames have a face in both output and motion clip: fewer than half")
    return common


def _track(fit: Mapping[str, Any], frames: npt.NDArray[np.bool_]) -> Track:
    return Track(fit["expression"], fit["rotation"]).at(frames)


class ShapeError(_MeshError):
    """Equation (15): distance of the output's identity from the content clip's."""

    references = ("content",)
    columns: Sequence[Column] = _columns(
        _column(
            "shape-error",
            UNIT,
            f"Identity meshes (no expression, no head pose) of the output and of the content clip: {VERTEX}",
        ),
    )

    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, float] | Failed:
        output, content = fits["output"], fits["content"]
        return {"shape-error": shape_error(face, output["identity"], content["identity"])}


class MotionError(_MeshError):
    """Equation (17): distance of the output's head pose and expression from the motion clip's."""

    references = ("motion",)
    columns: Sequence[Column] = _columns(
        _column(
            "motion-error",
            UNIT,
            "Motion meshes (mean identity, expression, head turned about the centroid of the face, no translation) of "
            f"the output and of the motion clip, averaged over frames: {VERTEX}",
        ),
        _column(
            "motion-rotation",
            "°",
            "The head pose alone: angle of the rotation from the motion clip's head pose to the output's, averaged "
            "over frames",
        ),
        _column(
            "motion-expression",
            UNIT,
            "The expression alone: the motion error with both heads held straight",
        ),
    )

    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, float] | Failed:
        output, motion = fits["output"], fits["motion"]
        frames = _common_frames(output, motion)
        if isinstance(frames, Failed):
            return frames
        errors = MotionErrors.between(face, _track(output, frames), _track(motion, frames))
        return {
            "motion-error": errors.motion,
            "motion-rotation": errors.rotation,
            "motion-expression": errors.expression,
        }


class CrossError(_MeshError):
    """Equation (19): distance of the output from the content clip's identity with the motion clip's motion."""

    references = ("content", "motion")
    columns: Sequence[Column] = _columns(
        _column(
            "cross-error",
            UNIT,
            "Meshes of the output and of the content clip's identity with the motion clip's expression and head pose "
            f"(turned about the centroid of the mean face, no translation), averaged over frames: {VERTEX}",
        ),
    )

    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, float] | Failed:
        output, content, motion = fits["output"], fits["content"], fits["motion"]
        frames = _common_frames(output, motion)
        if isinstance(frames, Failed):
            return frames
        errors = cross_errors(
            face, content["identity"], _track(motion, frames), output["identity"], _track(output, frames)
        )
        return {"cross-error": float(errors.mean())}


def _of_mediapipe(columns: Sequence[Column]) -> Sequence[Column]:
    """The same columns from MediaPipe's landmarks, under separate names."""
    share = frames_column(columns[0].name + MEDIAPIPE)
    return [
        *(
            replace(
                _column(
                    column.name + MEDIAPIPE,
                    column.unit,
                    column.definition.split(" Floor: ")[0].removesuffix(".") + "; from MediaPipe's landmarks",
                    headline=column.headline,
                    decimals=column.decimals,
                ),
                frames=share.name if column.frames else "",
            )
            for column in columns[:-1]
        ),
        share,
    ]


class MediaPipeShapeError(ShapeError):
    """`ShapeError` with fits to MediaPipe's landmarks."""

    suffix = MEDIAPIPE
    columns = _of_mediapipe(ShapeError.columns)


class MediaPipeMotionError(MotionError):
    """`MotionError` with fits to MediaPipe's landmarks."""

    suffix = MEDIAPIPE
    columns = _of_mediapipe(MotionError.columns)


class MediaPipeCrossError(CrossError):
    """`CrossError` with fits to MediaPipe's landmarks."""

    suffix = MEDIAPIPE
    columns = _of_mediapipe(CrossError.columns)
