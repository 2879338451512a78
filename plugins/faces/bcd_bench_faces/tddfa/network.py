"""3DDFA_V2 (Guo et al., ECCV 2020): a face crop -> pose, shape and expression; the pose as rotation and angles."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.errors import UsageError, one_line
from bcd_bench_faces.assets import TDDFA, TDDFA_SCALE
from bcd_bench_faces.recognition.recogniser import session_of

__all__ = [
    "CROP",
    "EXPRESSION",
    "PARAMETERS",
    "POSE",
    "TDDFANetwork",
    "angles_of",
    "check_network",
    "check_scale",
    "rotation_of",
]

Floats = npt.NDArray[np.float64]

CROP: Final = 120
"""Side of the network's input in pixels."""
PARAMETERS: Final = 62
POSE: Final = slice(0, 12)
"""The pose among the parameters: a scaled rotation and a translation, float[3, 4] row by row."""
EXPRESSION: Final = slice(52, 62)
"""The ten expression coefficients; the 40 between pose and expression are those of the shape."""

SCALE_SHA256: Final = "e9410983af75ed1cbc341fe9867715806dd1efd62da5efb2d9eef0898b822015"
"""Hash of the means and deviations as bytes: a file made from the same numbers is accepted whatever made it."""
PROBE_POSE: Final = (-2.034, 1.085, -0.173, 0.324, -0.996, -7.238, 1.907, -2.412, -0.322, -1.391, -0.107, 0.000)
PROBE_EXPRESSION: Final = (0.280, -0.869, 0.217, -0.177, 0.055, 0.629, 0.538, 0.274, 0.223, 0.517)
"""Pose and expression that the network of `mb05_120x120.pth` gives for `_probe`."""
PROBE_TOLERANCE: Final = 0.01


class TDDFANetwork:
    """The network in onnxruntime, with the means and deviations that its output is scaled by.

    Raises `UsageError` for files that are not 3DDFA_V2's, `MissingAssetError` and `MissingDependencyError`.
    """

    def __init__(self, device: str, network: Path | None = None, scale: Path | None = None) -> None:
        store = AssetStore(load_registry())
        self.mean, self.deviation = _read_scale(store.find(TDDFA_SCALE.name) if scale is None else scale)
        path = store.find(TDDFA.name) if network is None else network
        try:
            self._session = session_of(path, device)
            self._input = str(self._session.get_inputs()[0].name)
            probe = self(_probe())
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{path} is not 3DDFA_V2: {one_line(error, place=False)}") from error
        expected = np.array([*PROBE_POSE, *PROBE_EXPRESSION])
        if not np.allclose(probe[np.r_[POSE, EXPRESSION]], expected, rtol=0, atol=PROBE_TOLERANCE):
            raise UsageError(
                f"{path} does not have the weights of 3DDFA_V2's mb05_120x120.pth: its output for a known input differs"
            )

    def __call__(self, crop: npt.NDArray[np.floating] | npt.NDArray[np.uint8]) -> Floats:
        """The 62 standardised parameters float64[62] of a crop [120, 120, 3] RGB in 0..255."""
        # One face per call: the bytes of a result must not depend on the rest of the batch.
        scaled = (crop[..., ::-1].astype(np.float32) - 127.5) / 128
        batch = np.ascontiguousarray(scaled.transpose(2, 0, 1)[None])
        (parameters,) = self._session.run(None, {self._input: batch})
        if parameters.shape != (1, PARAMETERS):
            raise ValueError(f"its output has shape {list(parameters.shape)}, not [1, {PARAMETERS}]")
        return np.asarray(parameters[0], np.float64)

    def pose(self, parameters: npt.NDArray[np.floating]) -> Floats:
        """The pose matrices float64[T, 3, 4] of standardised parameters [T, 62]."""
        scaled = parameters[:, POSE] * self.deviation[POSE] + self.mean[POSE]
        return np.asarray(scaled.reshape(-1, 3, 4), np.float64)


def rotation_of(pose: npt.NDArray[np.floating]) -> Floats:
    """The rotations float64[T, 3, 3] in pose matrices [T, 3, 4]: the first two rows at length 1, and their cross
    product, as 3DDFA_V2 does it. Axes: x to the right, y up, z towards the camera."""
    rows = pose[:, :2, :3] / np.linalg.norm(pose[:, :2, :3], axis=2, keepdims=True)
    third: Floats = np.cross(rows[:, 0], rows[:, 1])
    rotation: Floats = np.concatenate([rows, third[:, None]], axis=1)
    return rotation


def angles_of(rotation: npt.NDArray[np.floating]) -> Floats:
    """Yaw, pitch and roll float64[T, 3] in degrees, -180..180, of rotations [T, 3, 3], as 3DDFA_V2 defines them."""
    yaw = np.arcsin(rotation[:, 2, 0].clip(-1, 1))
    pitch = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    roll = np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])
    return np.asarray(np.degrees(np.stack([yaw, pitch, roll], axis=1)), np.float64)


def check_network(path: Path) -> None:
    """Check for `assets add` and `assets verify` of the network. Raises as `TDDFANetwork`; needs the other asset."""
    TDDFANetwork("cpu", network=path)


def check_scale(path: Path) -> None:
    """Check for `assets add` and `assets verify` of the means and deviations. Raises `UsageError`."""
    _read_scale(path)


def _read_scale(path: Path) -> tuple[Floats, Floats]:
    """Means and deviations float64[62]; the file is read as data only."""
    try:
        with np.load(path, allow_pickle=False) as data:
            arrays = [np.asarray(data[name], np.float32).reshape(PARAMETERS) for name in ("mean", "std")]
    except Exception as error:
        raise UsageError(f"{path} does not hold the arrays mean and std: {one_line(error, place=False)}") from error
    if hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest() != SCALE_SHA256:
        raise UsageError(f"{path} does not hold the numbers of 3DDFA_V2's param_mean_std_62d_120x120.pkl")
    return arrays[0].astype(np.float64), arrays[1].astype(np.float64)


def _probe() -> npt.NDArray[np.float32]:
    """A fixed smooth picture float32[120, 120, 3] in 0..255."""
    y, x, channel = np.meshgrid(np.arange(CROP), np.arange(CROP), np.arange(3), indexing="ij")
    waves: Any = np.sin(x / (9 + 4 * channel)) * np.cos(y / (13 - 3 * channel))
    return np.asarray(127.5 + 96 * waves, np.float32)
