"""The metrics `shape-error`, `motion-error` and `cross-error`: the paper's Appendix C with an open head model.

All three read the fits of the extractor `face-mesh`. Their figures are not comparable with those of the paper, whose
fitter and head model were never released: other landmarks, another head, and a unit that the paper does not state.
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


REPROJECTION = _column(
    "fit-reprojection",
    "px",
    "Mean distance of the output's landmarks from those of the head fitted to them, in pixels of a 256-pixel frame",
    headline=False,
)


def _columns(*columns: Column) -> Sequence[Column]:
    """The columns of a metric that is called after the first, with the share of frames that they all rest on."""
    share = frames_column(columns[0].name)
    return (*(replace(column, frames=share.name) for column in (*columns, REPROJECTION)), share)


class _MeshError(PairMetric):
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

    def _row(self, item: Scored) -> Mapping[str, Any] | Failed:
        assert self._face is not None, "load comes before score"
        features = item.features[EXTRACTOR + self.suffix]
        fits = {role: features[role] for role in ("output", *self.references)}
        for role, fit in fits.items():
            if isinstance(fit, Failed):
                return Failed(f"{role}: {fit.reason}")
        found, output = self._compare(self._face, fits), fits["output"]
        if isinstance(found, Failed):
            return found
        quality = {REPROJECTION.name: float(output["reprojection"][output["valid"]].mean())}
        row = {name + self.suffix: value for name, value in {**found, **quality}.items()}
        return row | {self.columns[0].frames: share_of_frames(output["valid"], _seen_by_driver(features, output))}

    @abstractmethod
    def _compare(self, face: FaceModel, fits: Mapping[str, Any]) -> Mapping[str, float] | Failed:
        """The errors of an output whose fits, and those of `references`, are at hand by role, by plain column names."""


def _seen_by_driver(features: Mapping[str, Any], output: Mapping[str, Any]) -> npt.NDArray[np.bool_] | None:
    """bool[T]: where the driver has a face; None where no frame is left out, so that it need not be fitted for it."""
    driver = None if output["valid"].all() else features["motion"]
    return None if driver is None or isinstance(driver, Failed) else driver["valid"]


def _common_frames(output: Mapping[str, Any], motion: Mapping[str, Any]) -> npt.NDArray[np.bool_] | Failed:
    """bool[T]: where both clips have a fit; `Failed` where that is fewer than half of the frames."""
    if len(output["valid"]) != len(motion["valid"]):
        return Failed(f"the output has {len(output['valid'])} frames, the motion clip has {len(motion['valid'])}")
    common: npt.NDArray[np.bool_] = output["valid"] & motion["valid"]
    count = int(common.sum())
    if not enough(count, len(common)):
        return Failed(f"a face in output and motion clip both in {count} of {len(common)} frames: fewer than half")
    return common


def _track(fit: Mapping[str, Any], frames: npt.NDArray[np.bool_]) -> Track:
    return Track(fit["expression"], fit["rotation"]).at(frames)


class ShapeError(_MeshError):
    """Equation (15): how far the output's identity is from the content clip's."""

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
    """Equation (17): how far the output's head pose and expression are from the motion clip's."""

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
    """Equation (19): how far the output is from the content clip's identity with the motion clip's motion."""

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
    """The same columns from MediaPipe's landmarks, under names of their own."""
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
