"""Vertex errors between fitted heads, on plain arrays: equations (14) to (19) of the paper's Appendix C.

A mesh is `R (mean + B beta + E psi - c)`: the face of a head model with identity `beta`, expression `psi` and head pose
`R`, turned about the centroid `c` of the mean face. The mean squared error of two meshes is the mean over vertices of
the squared Euclidean distance, in mm^2 of the mean adult head. Translation is excluded: from one camera, the distance
of a head cannot be separated from its size, and its position in the picture depends on the cropping.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.metrics.head_rotation import angle_between

__all__ = [
    "FaceModel",
    "MotionErrors",
    "Track",
    "cross_errors",
    "expression_errors",
    "motion_errors",
    "rotation_angles",
    "shape_error",
]

Floats = npt.NDArray[np.float64]

CHUNK = 64
"""Frames whose meshes are in memory at once."""


@dataclass(frozen=True)
class FaceModel:
    """The part of a head model that the errors are measured on. Millimetres."""

    mean: Floats
    """float64[V, 3]"""
    identity: Floats
    """float64[K, V, 3]"""
    expression: Floats
    """float64[E, V, 3]"""
    expression_names: tuple[str, ...]

    @property
    def centre(self) -> Floats:
        """float64[3]: the centroid of the mean face, about which heads are rotated."""
        centre: Floats = self.mean.mean(axis=0)
        return centre

    def meshes(self, identity: Floats | None, expression: Floats, rotation: Floats) -> Floats:
        """float64[T, V, 3] for expression [T, E] and rotation [T, 3, 3]; `identity` [K], or None for the mean face."""
        face = self.mean - self.centre
        if identity is not None:
            face = face + np.tensordot(identity, self.identity, 1)
        moved = face + (expression @ self.expression.reshape(len(self.expression), -1)).reshape(-1, *face.shape)
        turned: Floats = moved @ rotation.transpose(0, 2, 1)
        return turned


@dataclass(frozen=True)
class Track:
    """The motion of a clip of T frames: expression float64[T, E] in 0..1 and rotation float64[T, 3, 3]."""

    expression: Floats
    rotation: Floats

    def __len__(self) -> int:
        return len(self.expression)

    def at(self, frames: npt.NDArray[np.bool_] | slice) -> Track:
        """The given frames of the track."""
        return Track(self.expression[frames], self.rotation[frames])


def shape_error(face: FaceModel, one: Floats, other: Floats) -> float:
    """Equation (15): mm^2 between the identity meshes (no expression, no pose) of two identities float64[K]."""
    return _mean_square(np.tensordot(one - other, face.identity, 1))


def motion_errors(face: FaceModel, one: Track, other: Track) -> Floats:
    """Equation (17) frame by frame: float64[T] in mm^2 between the motion meshes (mean identity)."""
    return cross_errors(face, None, one, None, other)


def cross_errors(
    face: FaceModel, identity: Floats | None, one: Track, other_identity: Floats | None, other: Track
) -> Floats:
    """Equation (19) frame by frame: float64[T] in mm^2 between the meshes of identities and motions."""
    errors = [
        _mean_square_each(
            face.meshes(identity, one.expression[frames], one.rotation[frames])
            - face.meshes(other_identity, other.expression[frames], other.rotation[frames])
        )
        for frames in _chunks(len(one))
    ]
    return np.concatenate(errors)


def expression_errors(face: FaceModel, one: Track, other: Track) -> Floats:
    """The motion error of the expressions alone, without head rotation: float64[T] in mm^2."""
    flat = face.expression.reshape(len(face.expression), -1)
    errors = [
        _mean_square_each(((one.expression[frames] - other.expression[frames]) @ flat).reshape(-1, *face.mean.shape))
        for frames in _chunks(len(one))
    ]
    return np.concatenate(errors)


def rotation_angles(one: Track, other: Track) -> Floats:
    """Angle float64[T] in degrees of the rotation between the two head poses."""
    return angle_between(one.rotation, other.rotation)


@dataclass(frozen=True)
class MotionErrors:
    """The motion error of a clip and its two parts, averaged over frames."""

    motion: float
    """mm^2"""
    rotation: float
    """degrees"""
    expression: float
    """mm^2"""

    @classmethod
    def between(cls, face: FaceModel, one: Track, other: Track) -> MotionErrors:
        """The errors between two tracks of equal length."""
        return cls(
            motion=float(motion_errors(face, one, other).mean()),
            rotation=float(rotation_angles(one, other).mean()),
            expression=float(expression_errors(face, one, other).mean()),
        )


def _chunks(length: int) -> Iterator[slice]:
    for start in range(0, length, CHUNK):
        yield slice(start, start + CHUNK)


def _mean_square(offsets: Floats) -> float:
    return float((offsets**2).sum(axis=-1).mean())


def _mean_square_each(offsets: Floats) -> Floats:
    squares: Floats = (offsets**2).sum(axis=-1).mean(axis=-1)
    return squares
