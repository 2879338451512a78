"""The extractor `arcface`: who is in every frame, as a unit vector of an ArcFace network (Deng et al., CVPR 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets import AssetStore
from bcd_bench.clips import Clip
from bcd_bench.errors import MissingDependencyError, UsageError, one_line
from bcd_bench.plugins import load_registry
from bcd_bench_faces.alignment import CROP, aligned_crop
from bcd_bench_faces.assets import ARCFACE

__all__ = ["ArcFace", "ArcFaceModel", "find_model"]

LANDMARKS = "face-landmarks"


@dataclass(frozen=True)
class ArcFaceModel:
    """The recogniser in use: a file of the user's choice, known by its hash."""

    path: Path
    sha256: str

    def __str__(self) -> str:
        return f"{self.path.name} (sha256 {self.sha256[:8]})"


def find_model() -> ArcFaceModel:
    """The file that `BCD_BENCH_ARCFACE` names, else the first known name on the asset path.

    Raises `MissingAssetError` where there is none.
    """
    store = AssetStore(load_registry())
    return ArcFaceModel(store.find(ARCFACE.name), store.status_of(ARCFACE.name).sha256)


class ArcFace:
    """Clip -> `embeddings` float32[T, D], rows of length 1 for the face that the landmarks are of; NaN without one."""

    def __init__(self) -> None:
        self._network: Any = None

    @cached_property
    def identity(self) -> Mapping[str, Any]:
        """The hash of the model that is found, and how crops are made. "none" is nothing that can be extracted with."""
        status = AssetStore(load_registry()).status_of(ARCFACE.name)
        return {
            "weights": status.sha256 or "none",
            "preprocessing": f"similarity of 5 points of {LANDMARKS} to {CROP} x {CROP}, bilinear",
        }

    def load(self, device: str) -> None:
        """Load the model. Raises `MissingAssetError`, `MissingDependencyError`, or `UsageError` for another file."""
        self._network = load_network(find_model(), device)

    def extract(
        self, clips: Sequence[Clip], features: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]]:
        """The embeddings of every clip, in order, from the landmarks in `features`."""
        return [
            {"embeddings": self._clip(clip.frames, np.asarray(found["points"]))}
            for clip, found in zip(clips, features[LANDMARKS], strict=True)
        ]

    def _clip(self, frames: npt.NDArray[np.uint8], points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        assert self._network is not None, "load comes before extract"
        width = int(self._network.output_shape[-1])
        embeddings = np.full((len(frames), width), np.nan, np.float32)
        for index in np.flatnonzero(np.isfinite(points[:, 0, 0])):
            # One face a call: the bytes of a result must not depend on what else was in the batch.
            crop = aligned_crop(frames[index], points[index])
            vector = np.asarray(self._network.get_feat(crop[..., ::-1]), np.float64).reshape(-1)
            length = float(np.linalg.norm(vector))
            if np.isfinite(length) and length > 0:
                embeddings[index] = vector / length
        return embeddings


def load_network(model: ArcFaceModel, device: str) -> Any:
    """insightface's ArcFaceONNX over the model's file, which turns BGR crops into features by `get_feat`."""
    try:
        import onnxruntime
        from insightface.model_zoo.arcface_onnx import ArcFaceONNX
    except ImportError as error:
        raise MissingDependencyError(
            f"arcface needs insightface and onnxruntime: {error}", hint="pip install insightface onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # idle threads leave the cores alone
    wanted = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    providers = [name for name in (wanted, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(model.path), options, providers=list(dict.fromkeys(providers)))
        network = ArcFaceONNX(str(model.path), session=session)
        if tuple(network.input_size) != (CROP, CROP) or not isinstance(network.output_shape[-1], int):
            raise ValueError(f"input {network.input_shape}, output {network.output_shape}")
    except Exception as error:
        raise UsageError(
            f"{model} is no ArcFace model for {CROP} x {CROP} crops: {one_line(error, place=False)}",
            hint=f"export {ARCFACE.variable}=PATH of another ONNX file",
        ) from error
    return network
