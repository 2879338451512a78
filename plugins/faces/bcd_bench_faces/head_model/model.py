"""The parametric head: a mean adult face, principal components of identity, and ARKit-like facial actions.

Built by `tools/build_head_model.py` from MakeHuman's data (CC0); see the README next to the model file. The *region* is
the front of the face, on which mesh-fit errors are measured; the *bust* is everything that is rendered (head, neck,
shoulders, eyes, teeth, tongue, lashes). Both share one set of coefficients, and the region's vertices are a subset of
the bust's. NumPy only.

Units are millimetres of the mean adult head, with x right, y down, z away from the camera, and the origin between the
eyeballs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["GAZE", "PIVOT", "HeadModel"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int32]

PIVOT: Final = np.array([0.0, 75.0, 75.0], np.float32)
"""The joint of head and neck, in mm: `pose` rotates about this point."""
GAZE: Final = "eyeLook"
"""Prefix of actions that only move the eyeballs; they and tongueOut are not part of the fit region's actions."""
_FORMAT = 1


@dataclass(frozen=True, eq=False)
class HeadModel:
    """Arrays of the model; V vertices in the region, N in the bust, K identity components.

    `mean` float32[V, 3], `identity` float32[K, V, 3] (coefficient 1 = one standard deviation of random adults),
    `expression` float32[E, V, 3] (each action in 0..1, by `expression_names`), `triangles` int32[F, 3].
    `region` int32[V] holds the region's vertices as indices into the bust.
    """

    bust_mean: Floats
    bust_identity: Floats
    bust_expression: Floats
    bust_expression_names: tuple[str, ...]
    faces: Ints
    """int32[G, 3]: triangles of the whole bust; those of the fit region are `triangles`."""
    labels: npt.NDArray[np.uint8]
    """uint8[G]: part of the head a triangle belongs to, as an index into `label_names`."""
    label_names: tuple[str, ...]
    texture: Floats
    """float32[M, 2]: points of the texture plane, u right and v up in 0..1"""
    corners: Ints
    """int32[G, 3]: indices of the texture points of every triangle's corners"""
    masks: Floats
    """float32[M, 3] in 0..1: membership of a texture point in the lips, the eyelids and the ears."""
    skinning: Floats
    """float32[N, 2]: the fractions of a vertex that follow the head and the neck; the remainder stays with the
    shoulders."""
    region: Ints
    triangles: Ints

    @classmethod
    def load(cls, path: Path | None = None) -> HeadModel:
        """The model of this package (read once per process), or of a file. Raises ValueError for another format."""
        return _shipped() if path is None else _read(path)

    @cached_property
    def edges(self) -> Ints:
        """The edges of the region's triangles, each once: int32[E, 2], the lower vertex first."""
        sides = np.concatenate([self.triangles[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        return np.unique(np.sort(sides, axis=1), axis=0)

    @cached_property
    def mean(self) -> Floats:
        return self.bust_mean[self.region]

    @cached_property
    def identity(self) -> Floats:
        return np.ascontiguousarray(self.bust_identity[:, self.region])

    @cached_property
    def expression_index(self) -> Ints:
        """int32[E]: the index of each of `expression_names` in `bust_expression_names`."""
        indices = [i for i, n in enumerate(self.bust_expression_names) if not n.startswith(GAZE) and n != "tongueOut"]
        return np.array(indices, np.int32)

    @cached_property
    def expression_names(self) -> tuple[str, ...]:
        return tuple(self.bust_expression_names[i] for i in self.expression_index)

    @cached_property
    def expression(self) -> Floats:
        return np.ascontiguousarray(self.bust_expression[self.expression_index][:, self.region])

    def vertices(self, identity: npt.ArrayLike, expression: npt.ArrayLike) -> Floats:
        """The region float32[T, V, 3], unposed, from identity [K] and expression [T, E] (by `expression_names`).

        Fewer identity components than K are the first ones. Raises ValueError for other shapes.
        """
        return _blend(self.mean, self.identity, self.expression, identity, expression)

    def bust(self, identity: npt.ArrayLike, expression: npt.ArrayLike) -> Floats:
        """The bust float32[T, N, 3], unposed, from identity [K] and expression [T, 52] (`bust_expression_names`)."""
        return _blend(self.bust_mean, self.bust_identity, self.bust_expression, identity, expression)

    def pose(
        self, bust: Floats, rotation: npt.ArrayLike, translation: npt.ArrayLike, skinning: Floats | None = None
    ) -> Floats:
        """The bust [T, N, 3] in the camera's frame, from rotations [T, 3, 3] and translations [T, 3] in mm.

        A vertex v of the head moves to R (v - PIVOT) + PIVOT + t; the neck takes half the rotation, the shoulders none.
        `skinning` [N, 2] replaces that of the model if more than the bust is posed.
        """
        turn = np.asarray(rotation, np.float32)
        half = _half_turn(turn)
        head, neck = (self.skinning if skinning is None else skinning).T
        centred = bust - PIVOT
        out = np.einsum("tij,tnj->tni", turn, centred) * head[:, None]
        out += np.einsum("tij,tnj->tni", half, centred) * neck[:, None]
        out += centred * (1 - head - neck)[:, None]
        out += (PIVOT + np.asarray(translation, np.float32))[:, None]
        return np.asarray(out, np.float32)


def _blend(mean: Floats, identity: Floats, expression: Floats, who: npt.ArrayLike, what: npt.ArrayLike) -> Floats:
    a, w = np.asarray(who, np.float32), np.asarray(what, np.float32)
    if a.ndim != 1 or len(a) > len(identity):
        raise ValueError(f"identity must be [K] with K <= {len(identity)}, not {list(a.shape)}")
    if w.ndim != 2 or w.shape[1] != len(expression):
        raise ValueError(f"expression must be [T, {len(expression)}], not {list(w.shape)}")
    # einsum sums in a fixed order; a threaded matrix product may not, and the bytes must not depend on the cores.
    person = mean + np.einsum("k,knd->nd", a, identity[: len(a)])
    moves = np.einsum("te,ef->tf", w, expression.reshape(len(expression), -1))
    return np.asarray(person + moves.reshape(len(w), *mean.shape), np.float32)


def _half_turn(rotation: Floats) -> Floats:
    """The rotations [T, 3, 3] by half the angle about the same axes (angles below 180 degrees)."""
    # R + I is the half rotation times a symmetric factor, so the nearest rotation to it is the half rotation.
    u, _, vt = np.linalg.svd(rotation.astype(np.float64) + np.eye(3))
    return np.asarray(u @ vt, np.float32)


@lru_cache(maxsize=1)
def _shipped() -> HeadModel:
    with resources.as_file(resources.files("bcd_bench_faces.head_model") / "data" / "head_model.npz") as path:
        return _read(path)


def _read(path: Path) -> HeadModel:
    with np.load(path, allow_pickle=False) as file:
        arrays: dict[str, Any] = {name: file[name] for name in file.files}
    if int(arrays.get("format", 0)) != _FORMAT:
        raise ValueError(f"{path} is not a head model of format {_FORMAT}")
    return HeadModel(
        bust_mean=arrays["mean"],
        bust_identity=arrays["identity"].astype(np.float32),
        bust_expression=arrays["expression"].astype(np.float32),
        bust_expression_names=tuple(arrays["expression_names"].tolist()),
        faces=arrays["faces"].astype(np.int32),
        labels=arrays["labels"],
        label_names=tuple(arrays["label_names"].tolist()),
        texture=arrays["texture"].astype(np.float32) / 65535,
        corners=arrays["corners"].astype(np.int32),
        masks=arrays["masks"].astype(np.float32) / 255,
        skinning=arrays["skinning"].astype(np.float32),
        region=arrays["region"].astype(np.int32),
        triangles=arrays["region_faces"].astype(np.int32),
    )
