"""The metric `auh`: how many facial action units are on in the output and off in the driver, or the reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bcd_bench.clips import Failed
from bcd_bench.specs import Column, Scored
from bcd_bench_faces.coverage import against_driver
from bcd_bench_faces.landmarker import BLENDSHAPES

__all__ = ["ACTION_UNITS", "AUH", "ON"]

ON = 0.2
"""A blendshape at or above this weight counts as on: of thresholds 0.1 to 0.5 one at which most of them vary."""
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
"""Action unit -> the blendshapes that show it. Left out: gaze, jaw and mouth moved sideways, and those that the model
never raises (cheeks, nose, jaw forward)."""
SHAPES = tuple(BLENDSHAPES.index(name) for names in ACTION_UNITS.values() for name in names)


class AUH:
    """Average facial action unit Hamming distance (named in the paper's Appendix C, "Discussion")."""

    columns: Sequence[Column] = (
        Column(
            "auh",
            "%",
            False,
            f"Share of {len(SHAPES)} blendshapes of face_landmarker.task, which stand for {len(ACTION_UNITS)} action "
            f"units of FACS, left and right apart, whose state (on from a weight of {ON:g}) differs between output and "
            "driver, averaged over frames.",
            decimals=1,
        ),
        Column(
            "auh-frames",
            "%",
            True,
            "Share of frames in which output and driver both have a face, which auh rests on.",
            decimals=1,
            headline=False,
        ),
    )

    def load(self, device: str) -> None:
        """Nothing to load: the landmarks hold the blendshapes."""

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` where fewer than half of the frames have a face in output and driver."""
        return [_score(item) for item in items]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """No column is derived."""
        del rows
        return {}


def _score(item: Scored) -> Mapping[str, Any] | Failed:
    found = against_driver(item, "blendshapes")
    if isinstance(found, Failed):
        return found
    output, driver, frames = found
    differ = (output[:, SHAPES] >= ON) != (driver[:, SHAPES] >= ON)
    return {"auh": 100.0 * float(differ.mean()), "auh-frames": 100.0 * len(output) / frames}
