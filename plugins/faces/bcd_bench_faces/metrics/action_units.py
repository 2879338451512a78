"""The metric `auh`: how many facial action units differ between output and driving clip."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.specs import Column
from bcd_bench_faces.landmarks.mediapipe import BLENDSHAPES
from bcd_bench_faces.metrics.frame_coverage import AgainstDriver

__all__ = ["ACTION_UNITS", "AUH", "ON"]

ON = 0.2
"""A blendshape at or above this weight counts as on: of thresholds 0.1 to 0.5, one at which most of them vary."""
ACTION_UNITS: Mapping[str, tuple[str, ...]] = {
    "AU1": ("browInnerUp",),
    "AU2": ("browOuterUpLeft", "browOuterUpRight"),
    "AU4": ("browDownLeft", "browDownRight"),
    "AU5": ("eyeWideLeft", "eyeWideRight"),
    "AU7": ("eyeSquintLeft", "eyeSquintRight"),
    "AU10": ("mouthUpperUpLeft", "mouthUpperUpRight"),
    "AU12": ("mouthSmileLeft", "mouthSmileRight"),
    "AU14": ("mouthDimpleLeft", "mouthDimpleRight"),
    "AU15": ("mouthFrownLeft", "mouthFrownRight"),
    "AU16": ("mouthLowerDownLeft", "mouthLowerDownRight"),
    "AU17": ("mouthShrugLower",),
    "AU18": ("mouthPucker",),
    "AU20": ("mouthStretchLeft", "mouthStretchRight"),
    "AU22": ("mouthFunnel",),
    "AU24": ("mouthPressLeft", "mouthPressRight"),
    "AU26": ("jawOpen",),
    "AU28": ("mouthRollLower", "mouthRollUpper"),
    "AU45": ("eyeBlinkLeft", "eyeBlinkRight"),
}
"""Action unit -> the blendshapes that show it. Excluded are gaze, jaw and mouth moved sideways, and blendshapes that
the model never activates (cheeks, nose, jaw forward)."""
SHAPES = tuple(BLENDSHAPES.index(name) for names in ACTION_UNITS.values() for name in names)


class AUH(AgainstDriver):
    """Average facial action unit Hamming distance (named in the paper's Appendix C, "Discussion")."""

    feature = "blendshapes"
    column = Column(
        "auh",
        "%",
        False,
        f"Share of {len(SHAPES)} blendshapes of face_landmarker.task, which stand for {len(ACTION_UNITS)} action "
        f"units of FACS, left and right apart, whose state (on from a weight of {ON:g}) differs between output and "
        "driver, averaged over frames.",
        decimals=1,
    )

    def values(self, output: npt.NDArray[np.float64], driver: npt.NDArray[np.float64]) -> Mapping[str, float]:
        """The distance in percent, for blendshapes [T, 52]."""
        differ = (output[:, SHAPES] >= ON) != (driver[:, SHAPES] >= ON)
        return {"auh": 100.0 * float(differ.mean())}
