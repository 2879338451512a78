"""The metric `heads-generation`: whether generated head motion has the distribution of real head motion."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bcd_bench.plugin.base import SetMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_faces.metrics.mesh_errors import EXTRACTOR

__all__ = ["HeadsGeneration", "frechet_distance", "motion_features"]

ROLES = ("output", "target")
PARTS = ("pose", "expression", "pose-velocity", "expression-velocity")
Floats = npt.NDArray[np.float64]
Moments = dict[str, Any]


def _column(name: str, unit: str, definition: str, *, up: bool | None = False) -> Column:
    return Column(name, unit, up, definition, kind="set", decimals=3)


class HeadsGeneration(SetMetric):
    """Frechet distances between the motion statistics of outputs and real clips, and speeds over time."""

    jackknife_groups = 10
    columns: Sequence[Column] = (
        _column("frechet-pose", "deg²", "Frechet distance of the head's rotation vectors, per frame."),
        _column("frechet-expression", "", "Frechet distance of the fitted expression coefficients, per frame."),
        _column(
            "frechet-pose-velocity",
            "(deg/frame)²",
            "Frechet distance of the differences of rotation vectors between neighbouring frames.",
        ),
        _column(
            "frechet-expression-velocity",
            "",
            "Frechet distance of the differences of expression coefficients between neighbouring frames.",
        ),
        _column(
            "head-speed",
            "deg/frame",
            "Mean angular speed of the head in the first half of the outputs.",
            up=None,
        ),
        _column("head-speed-late", "deg/frame", "The same in the second half: shows whether motion dies.", up=None),
        _column("head-speed-real", "deg/frame", "The same over the whole of the real clips.", up=None),
    )

    def refuse(self, item: Scored) -> Failed | None:
        """Exclude a pair if the head of the output or of the real clip could not be fitted."""
        fits = (item.features[EXTRACTOR][role] for role in ROLES)
        return next((fit for fit in fits if isinstance(fit, Failed)), None)

    def update(self, state: Any, items: Sequence[Scored]) -> Any:
        """The state with the motion of further items added; None is the empty state."""
        states = [] if state is None else [state]
        for item in items:
            fits = [item.features[EXTRACTOR][role] for role in ROLES]
            if any(isinstance(fit, Failed) for fit in fits):
                continue
            added: dict[str, Any] = {}
            for role, fit in zip(ROLES, fits, strict=True):
                features = motion_features(fit["rotation"], fit["expression"])
                for part, rows in features.items():
                    added[f"{role}/{part}"] = _moments(rows)
                speed = np.linalg.norm(features["pose-velocity"], axis=1)
                half = len(speed) // 2
                added[f"{role}/early"], added[f"{role}/late"] = (
                    _moments(s[:, None]) for s in (speed[:half], speed[half:])
                )
            states.append(added)
        return self.merge(states) if states else None

    def merge(self, states: Sequence[Any]) -> Any:
        """The state of one pass over the items of all states."""
        present = [state for state in states if state]
        if not present:
            return None
        return {
            key: {name: sum(np.asarray(state[key][name]) for state in present) for name in ("count", "sum", "outer")}
            for key in present[0]
        }

    def compute(self, state: Any) -> Mapping[str, Any]:
        """All distances and speeds; NaN if there is no pair."""
        if not state:
            return {column.name: math.nan for column in self.columns}
        values: dict[str, Any] = {
            f"frechet-{part}": frechet_distance(
                *_gaussian(state[f"output/{part}"]), *_gaussian(state[f"target/{part}"])
            )
            for part in PARTS
        }
        values["head-speed"] = _mean(state["output/early"])
        values["head-speed-late"] = _mean(state["output/late"])
        early, late = state["target/early"], state["target/late"]
        total = float(early["sum"][0] + late["sum"][0])
        values["head-speed-real"] = total / float(early["count"] + late["count"])
        return values


def motion_features(rotation: npt.ArrayLike, expression: npt.ArrayLike) -> dict[str, Floats]:
    """Per-frame rotation vectors in degrees [T, 3] and expression coefficients [T, E], and the differences between
    neighbouring frames [T - 1, ...], of rotations [T, 3, 3] and expression [T, E]. Frames without a face (NaN) are left
    out."""
    matrices, coefficients = np.asarray(rotation, np.float64), np.asarray(expression, np.float64)
    seen = np.isfinite(matrices).all((1, 2)) & np.isfinite(coefficients).all(1)
    pose = np.degrees(Rotation.from_matrix(matrices[seen]).as_rotvec())
    coefficients = coefficients[seen]
    return {
        "pose": pose,
        "expression": coefficients,
        "pose-velocity": np.diff(pose, axis=0),
        "expression-velocity": np.diff(coefficients, axis=0),
    }


def frechet_distance(mean_1: Floats, covariance_1: Floats, mean_2: Floats, covariance_2: Floats) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of two Gaussians, with C [D, D]; 0 for equal ones."""
    values, vectors = np.linalg.eigh(covariance_1)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ covariance_2 @ root).clip(0)).sum()
    shift = mean_1 - mean_2
    return max(0.0, float(shift @ shift + np.trace(covariance_1) + np.trace(covariance_2) - 2 * shared))


def _moments(rows: Floats) -> Moments:
    return {"count": np.asarray(float(len(rows))), "sum": rows.sum(0), "outer": rows.T @ rows}


def _gaussian(moments: Moments) -> tuple[Floats, Floats]:
    count = float(moments["count"])
    mean = np.asarray(moments["sum"]) / count
    return mean, np.asarray(moments["outer"]) / count - np.outer(mean, mean)


def _mean(moments: Moments) -> float:
    return float(moments["sum"][0] / moments["count"])
