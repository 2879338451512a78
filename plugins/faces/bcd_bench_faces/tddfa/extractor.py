"""The extractor `tddfa`: head pose, shape and expression by 3DDFA_V2 per frame, around the face of
`dense-landmarks`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.clip import Clip
from bcd_bench_faces.assets import TDDFA
from bcd_bench_faces.dense_landmarks.crops import Square, take
from bcd_bench_faces.tddfa.network import CROP, EXPRESSION, PARAMETERS, TDDFANetwork, rotation_of

__all__ = ["TDDFA_EXTRACTOR", "TDDFAParameters", "square_of"]

TDDFA_EXTRACTOR: Final = "tddfa"
DENSE: Final = "dense-landmarks"
BROWS: Final = -22.0
"""Height of the brows in mm on the mean head, y down, with the eyes at 1.5 and the chin at 120. The points from there
down cover the same area as the 68 landmarks that 3DDFA_V2 crops around; the forehead would move the face down."""
ENLARGED: Final = float(np.sqrt(2))
"""Side of 3DDFA_V2's square relative to the longer side of the box around its landmarks."""


class TDDFAParameters:
    """Clip -> arrays with one row per frame; NaN without a face. Frames are processed independently.

    - `parameters` float32[T, 62]: 12 of the pose, 40 of the shape and 10 of the expression, each in standard deviations
      of 3DDFA_V2's training data from their mean
    - `rotation` float32[T, 3, 3]: the head rotation; x to the right, y up, z towards the camera
    - `expression` float32[T, 10]: the last ten parameters
    """

    def __init__(self) -> None:
        self._network: TDDFANetwork | None = None

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Cache key: the hash of the network in use, and the cropping. "none" means that there is no network."""
        status = AssetStore(load_registry()).status_of(TDDFA.name)
        return {
            "weights": status.sha256 or "none",
            "preprocessing": f"square of {DENSE} below {BROWS:g} mm, enlarged {ENLARGED:.4f}, {CROP} x {CROP}",
        }

    def load(self, device: str) -> None:
        """Load the network and check it. Raises as `TDDFANetwork`."""
        self._network = TDDFANetwork(device)

    def extract(
        self, clips: Sequence[Clip], features: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]]:
        """The arrays of every clip, in order, for the faces of the landmarks in `features`."""
        return [
            self._clip(clip, np.asarray(landmarks["points"]))
            for clip, landmarks in zip(clips, features[DENSE], strict=True)
        ]

    def _clip(self, clip: Clip, points: npt.NDArray[np.float32]) -> Mapping[str, Any]:
        network = self._network
        assert network is not None, "load comes before extract"
        parameters = np.full((len(clip), PARAMETERS), np.nan, np.float32)
        rotation = np.full((len(clip), 3, 3), np.nan, np.float32)
        for index, (frame, landmarks) in enumerate(zip(clip.frames, points, strict=True)):
            if np.isfinite(landmarks).all():
                found = network(take(frame, square_of(landmarks[_below_the_brows()]), CROP))
                parameters[index] = found
                rotation[index] = rotation_of(network.pose(found[None]))[0]
        return {"parameters": parameters, "rotation": rotation, "expression": parameters[:, EXPRESSION].copy()}


def square_of(points: npt.NDArray[np.floating]) -> Square:
    """The square that 3DDFA_V2 crops around landmarks [N, 2]: about the centre of their box, sqrt(2) times as long as
    its longer side."""
    low, high = points.min(axis=0).astype(np.float64), points.max(axis=0).astype(np.float64)
    x, y = (low + high) / 2
    return Square(float(x), float(y), ENLARGED * float((high - low).max()))


@lru_cache(maxsize=1)
def _below_the_brows() -> npt.NDArray[np.bool_]:
    """bool[N]: the dense landmarks from the brows down."""
    from bcd_bench_faces.dense_landmarks.detector import network_vertices
    from bcd_bench_faces.head_model.face_region import load_face_model

    return np.asarray(load_face_model().mean[network_vertices(), 1] >= BROWS)
