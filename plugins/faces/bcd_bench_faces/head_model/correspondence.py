"""Positions of the landmarks on the head: one point of the model's surface for each of the landmarker's points."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench_faces.fitting.levenberg_marquardt import LandmarkBasis
from bcd_bench_faces.metrics.vertex_errors import FaceModel

__all__ = ["Correspondence"]

SIGMA_FLOOR = 1.0
"""mm; lower bound of sigma, which is an estimate itself."""


@dataclass(frozen=True)
class Correspondence:
    """Surface points for N of the landmarker's points, and the deviation of the landmarks from them.

    Created by `tools/fit_correspondence.py` from rendered heads; `provenance` records how many.
    """

    landmarks: npt.NDArray[np.int32]
    """int32[N]: indices of the landmarker's points"""
    vertices: npt.NDArray[np.int32]
    """int32[N, 3]: vertices of the face model"""
    barycentric: npt.NDArray[np.float64]
    """float64[N, 3]: their weights, which sum to 1"""
    sigma: npt.NDArray[np.float64]
    """float64[N]: root mean square distance along an image axis, in mm"""
    provenance: dict[str, Any]

    @classmethod
    def load(cls) -> Correspondence:
        """The correspondence shipped with the head model."""
        with resources.as_file(_file()) as path, np.load(path, allow_pickle=False) as data:
            return cls(
                landmarks=data["landmarks"].astype(np.int32),
                vertices=data["vertices"].astype(np.int32),
                barycentric=data["barycentric"].astype(np.float64),
                sigma=data["sigma"].astype(np.float64),
                provenance=json.loads(str(data["provenance"])),
            )

    @staticmethod
    def sha256() -> str:
        """Hash of the shipped file."""
        return hashlib.sha256(_file().read_bytes()).hexdigest()

    @property
    def weight(self) -> npt.NDArray[np.float64]:
        """Weights float64[N] with mean 1: one over the variance."""
        weight = 1 / np.maximum(self.sigma, SIGMA_FLOOR) ** 2
        scaled: npt.NDArray[np.float64] = weight / weight.mean()
        return scaled

    def basis(self, face: FaceModel) -> LandmarkBasis:
        """The mean and modes of the face at the landmarks."""
        return LandmarkBasis(
            mean=self._at(face.mean), identity=self._at(face.identity), expression=self._at(face.expression),
            weight=self.weight,
        )  # fmt: skip

    def _at(self, vertices: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.ascontiguousarray(np.einsum("nk,...nkd->...nd", self.barycentric, vertices[..., self.vertices, :]))


def _file() -> Any:
    return resources.files("bcd_bench_faces.head_model") / "data" / "correspondence.npz"
