"""The extractor `arcface`: per-frame unit-length face embeddings by an ArcFace network (Deng et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.clip import Clip
from bcd_bench_faces.assets import ARCFACE
from bcd_bench_faces.landmarks.alignment import CROP, aligned_crop, five_points
from bcd_bench_faces.recognition.recogniser import ArcFaceNetwork, Embed, find_model, unit

__all__ = ["ArcFace", "embeddings_of"]

LANDMARKS = "mediapipe-landmarks"


class ArcFace:
    """Clip -> `embeddings` float32[T, D], rows of length 1 for the face with landmarks; NaN without one."""

    def __init__(self) -> None:
        self._network: ArcFaceNetwork | None = None

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """Cache key: the hash of the model in use, and the cropping. "none" means that there is no model to extract
        with."""
        status = AssetStore(load_registry()).status_of(ARCFACE.name)
        return {
            "weights": status.sha256 or "none",
            "preprocessing": f"similarity of 5 points of {LANDMARKS} to {CROP} x {CROP}, bilinear",
        }

    def load(self, device: str) -> None:
        """Load the model and check it. Raises `MissingAssetError`, and as `ArcFaceNetwork`."""
        self._network = ArcFaceNetwork(find_model(), device)

    def extract(
        self, clips: Sequence[Clip], features: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]]:
        """The embeddings of every clip, in order, from the landmarks in `features`."""
        network = self._network
        assert network is not None, "load comes before extract"
        return [
            {"embeddings": embeddings_of(network, network.width, clip.frames, _five(np.asarray(landmarks["points"])))}
            for clip, landmarks in zip(clips, features[LANDMARKS], strict=True)
        ]


def _five(points: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float64] | None]:
    return [five_points(landmarks) if np.isfinite(landmarks[0, 0]) else None for landmarks in points]


def embeddings_of(
    embed: Embed,
    width: int,
    frames: npt.NDArray[np.uint8],
    points: Sequence[npt.NDArray[np.float64] | None],
) -> npt.NDArray[np.float32]:
    """Unit vectors float32[T, width] of the faces with the given five points, float64[5, 2]; NaN for None."""
    embeddings = np.full((len(frames), width), np.nan, np.float32)
    for index, (frame, five) in enumerate(zip(frames, points, strict=True)):
        vector = None if five is None else unit(embed(aligned_crop(frame, five)))
        if vector is not None:
            embeddings[index] = vector
    return embeddings
