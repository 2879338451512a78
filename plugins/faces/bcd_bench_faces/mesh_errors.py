"""The metrics `shape-error`, `motion-error` and `cross-error`: the paper's Appendix C with an open head model.

All three read the fits of the extractor `face-mesh`. Their figures are not comparable with those of the paper, whose
fitter and head model were never released: other landmarks, another head, and a unit that the paper does not state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bcd_bench.clips import Failed
from bcd_bench.specs import Column, Scored
from bcd_bench_faces.face_model import HEAD, load_face_model
from bcd_bench_faces.vertex_errors import FaceModel, MotionErrors, Track, cross_errors, shape_error

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
"""What is added to the names of extractor, metrics and columns where MediaPipe's landmarks are fitted."""

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
"""Column -> what it measures where the true error is zero, with its origin, as the end of the column's definition.

A metric cannot tell errors below its floor apart. Floors are measured on the rendered pairs of heads-cross (the exact
target as the output); a column without a measured floor claims none.
"""

UNIT = "mm²"
VERTEX = (
    f"mean over vertices of the squared distance, in mm² of the mean adult head, on {HEAD} fitted to landmarks; "
    "not comparable with the paper's figures, whose fitter is not released"
)


def _column(name: str, unit: str, definition: str, *, headline: bool = True, decimals: int = 2) -> Column:
    floor = f" Floor: {FLOORS[name]}." if name in FLOORS else ""
    return Column(name, unit, False, f"{definition}.{floor}", headline=headline, decimals=decimals)


FIT_COLUMNS = (
    _column(
        "fit-reprojection",
        "px",
        "Mean distance of the output's landmarks from those of the head fitted to them, in pixels of a 256-pixel frame",
        headline=False,
    ),
    _column(
        "fit-left-out",
        "%",
        "Share of the frames that did not enter, since a clip has no face there to fit",
        headline=False,
    ),
)


class _MeshError(ABC):
    """What the three have in common: the face model, and fits by role."""

    columns: Sequence[Column]
    references: ClassVar[tuple[str, ...]]
    """The roles that the output is compared with."""
    suffix: ClassVar[str] = ""
    """Of the extractor whose fits are compared, and of the columns."""

    def __init__(self) -> None:
        self._face: FaceModel | None = None

    def load(self, device: str) -> None:
        """Read the head model, which comes with this package; meshes are compared on the CPU."""
        del device
        self._face = load_face_model()

    def score(self, items: Sequence[Scored]) -> Sequence[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` where a clip has no fit, or the output's length is not the motion clip's."""
        return [self._row(item) for item in items]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """No column is derived."""
        del rows
        return {}

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        assert self._face is not None, "load comes before score"
        fits = {role: item.features[EXTRACTOR + self.suffix][role] for role in ("output", *self.references)}
        for role, fit in fits.items():
            if isinstance(fit, Failed):
                return Failed(f"{role}: {fit.reason}")
        row = self._compare(self._face, fits)
        return row if isinstance(row, Failed) else {name + self.suffix: value for name, value in row.items()}

    @abstractmethod
    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, Any] | Failed:
        """The row of an output whose fits, and those of `references`, are at hand by role; columns by plain names."""


def _quality(output: Mapping[str, Any], entered: npt.NDArray[np.bool_]) -> Mapping[str, float]:
    """The values of `FIT_COLUMNS`; `entered` tells for every frame whether it was compared."""
    return {
        "fit-reprojection": float(output["reprojection"][output["valid"]].mean()),
        "fit-left-out": 100.0 * float(1 - entered.mean()),
    }


def _common_frames(output: Mapping[str, Any], motion: Mapping[str, Any]) -> npt.NDArray[np.bool_] | Failed:
    """bool[T]: where both clips have a fit."""
    if len(output["valid"]) != len(motion["valid"]):
        return Failed(f"the output has {len(output['valid'])} frames, the motion clip has {len(motion['valid'])}")
    common: npt.NDArray[np.bool_] = output["valid"] & motion["valid"]
    return common if common.any() else Failed("no frame has a face in the output and in the motion clip")


def _track(fit: Mapping[str, Any], frames: npt.NDArray[np.bool_]) -> Track:
    return Track(fit["expression"], fit["rotation"]).at(frames)


class ShapeError(_MeshError):
    """Equation (15): how far the output's identity is from the content clip's."""

    references = ("content",)
    columns: Sequence[Column] = (
        _column(
            "shape-error",
            UNIT,
            f"Identity meshes (no expression, no head pose) of the output and of the content clip: {VERTEX}",
        ),
        *FIT_COLUMNS,
    )

    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, Any] | Failed:
        output, content = fits["output"], fits["content"]
        error = shape_error(face, output["identity"], content["identity"])
        return {"shape-error": error, **_quality(output, output["valid"])}


class MotionError(_MeshError):
    """Equation (17): how far the output's head pose and expression are from the motion clip's."""

    references = ("motion",)
    columns: Sequence[Column] = (
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
        *FIT_COLUMNS,
    )

    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, Any] | Failed:
        output, motion = fits["output"], fits["motion"]
        frames = _common_frames(output, motion)
        if isinstance(frames, Failed):
            return frames
        errors = MotionErrors.between(face, _track(output, frames), _track(motion, frames))
        return {
            "motion-error": errors.motion,
            "motion-rotation": errors.rotation,
            "motion-expression": errors.expression,
            **_quality(output, frames),
        }


class CrossError(_MeshError):
    """Equation (19): how far the output is from the content clip's identity with the motion clip's motion."""

    references = ("content", "motion")
    columns: Sequence[Column] = (
        _column(
            "cross-error",
            UNIT,
            "Meshes of the output and of the content clip's identity with the motion clip's expression and head pose "
            f"(turned about the centroid of the mean face, no translation), averaged over frames: {VERTEX}",
        ),
        *FIT_COLUMNS,
    )

    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, Any] | Failed:
        output, content, motion = fits["output"], fits["content"], fits["motion"]
        frames = _common_frames(output, motion)
        if isinstance(frames, Failed):
            return frames
        errors = cross_errors(
            face, content["identity"], _track(motion, frames), output["identity"], _track(output, frames)
        )
        return {"cross-error": float(errors.mean()), **_quality(output, frames)}


def _of_mediapipe(columns: Sequence[Column]) -> Sequence[Column]:
    """The same columns from MediaPipe's landmarks, under names of their own."""
    return [
        _column(
            column.name + MEDIAPIPE,
            column.unit,
            column.definition.split(" Floor: ")[0].removesuffix(".") + "; from MediaPipe's landmarks",
            headline=column.headline,
            decimals=column.decimals,
        )
        for column in columns
    ]


class MediaPipeShapeError(ShapeError):
    """`ShapeError` with the fits to MediaPipe's landmarks."""

    suffix = MEDIAPIPE
    columns = _of_mediapipe(ShapeError.columns)


class MediaPipeMotionError(MotionError):
    """`MotionError` with the fits to MediaPipe's landmarks."""

    suffix = MEDIAPIPE
    columns = _of_mediapipe(MotionError.columns)


class MediaPipeCrossError(CrossError):
    """`CrossError` with the fits to MediaPipe's landmarks."""

    suffix = MEDIAPIPE
    columns = _of_mediapipe(CrossError.columns)
