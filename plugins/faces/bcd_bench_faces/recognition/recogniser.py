"""Face recognisers: aligned crop -> vector, and a check that their cosines distinguish people."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.registry import load_registry
from bcd_bench.types.errors import MissingDependencyError, UsageError, one_line
from bcd_bench.util.pool import worker_threads
from bcd_bench_faces.assets import ARCFACE
from bcd_bench_faces.landmarks.alignment import CROP

__all__ = [
    "LEAST_MARGIN",
    "ArcFaceNetwork",
    "Model",
    "Separation",
    "check_arcface",
    "check_crops",
    "find_model",
    "separation",
    "session_of",
    "unit",
]

Crop = npt.NDArray[np.uint8]
Vector = npt.NDArray[np.float64]
Embed = Callable[[Crop], Vector]
"""uint8[112, 112, 3] RGB -> float64[D], of any length."""

PEOPLE: Final = 8
LEAST_MARGIN: Final = 0.1
"""Minimum difference between the cosines of crops of one person and of two people. A MobileFaceNet and SFace have 0.28
and 0.23; with inputs scaled wrongly, upside down or transposed, or with random weights, they have at most 0.07."""
SCALINGS: Final = {"0 to 255": (0.0, 1.0), "0 to 1": (0.0, 255.0), "-1 to 1": (127.5, 127.5)}
"""Pixel range that a network may expect -> insightface's mean and divisor."""


@dataclass(frozen=True)
class Model:
    """The recogniser in use: a file of the user's choice, identified by its hash."""

    path: Path
    sha256: str

    def __str__(self) -> str:
        return f"{self.path.name} (sha256 {self.sha256[:8]})"


def find_model() -> Model:
    """The file named in `BCD_BENCH_ARCFACE`, else the first known name on the asset path.

    Raises `MissingAssetError` if there is none.
    """
    store = AssetStore(load_registry())
    return Model(store.find(ARCFACE.name), store.status_of(ARCFACE.name).sha256)


def unit(vector: npt.ArrayLike) -> Vector | None:
    """The vector float64[D] scaled to length 1; None if it has no direction."""
    flat = np.asarray(vector, np.float64).reshape(-1)
    length = float(np.linalg.norm(flat))
    return flat / length if np.isfinite(length) and length > 0 else None


@lru_cache(maxsize=1)
def check_crops() -> npt.NDArray[np.uint8]:
    """uint8[8, 2, 112, 112, 3] RGB: two aligned crops of each of eight rendered people.

    Created by `tools/draw_check_crops.py`; no real people are shown.
    """
    import cv2

    file = resources.files("bcd_bench_faces.recognition") / "data" / "check_crops.png"
    stored = np.frombuffer(file.read_bytes(), np.uint8)
    picture = np.asarray(cv2.imdecode(stored, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    return np.ascontiguousarray(picture.reshape(2, CROP, PEOPLE, CROP, 3).transpose(2, 0, 1, 3, 4))


@dataclass(frozen=True)
class Separation:
    """Cosines of a recogniser on the stored crops: of one person, and of two people; NaN without vectors."""

    same: float
    same_least: float
    other: float
    other_most: float

    @property
    def enough(self) -> bool:
        """Whether all pairs of crops of one person are closer than all pairs of two people, by `LEAST_MARGIN`."""
        return self.same_least - self.other_most >= LEAST_MARGIN

    def __str__(self) -> str:
        return (
            f"cosine of two people {self.other:.2f} on average and {self.other_most:.2f} at most, of one person "
            f"{self.same:.2f} on average and {self.same_least:.2f} at least"
        )


def separation(embed: Embed) -> Separation:
    """Measure how well `embed` distinguishes the people of `check_crops`. Raises what `embed` raises."""
    vectors_by_person = [[unit(embed(crop)) for crop in person] for person in check_crops()]
    if any(vector is None for person in vectors_by_person for vector in person):
        return Separation(np.nan, np.nan, np.nan, np.nan)
    vectors = np.array(vectors_by_person)
    cosines = np.einsum("pid,qjd->pqij", vectors, vectors)
    different = ~np.eye(PEOPLE, dtype=bool)
    same, different_people = cosines[~different][:, 0, 1], cosines[different]
    return Separation(
        float(same.mean()), float(same.min()), float(different_people.mean()), float(different_people.max())
    )


def session_of(model: Path | bytes, device: str) -> Any:
    """A quiet onnxruntime session on `device`, whose idle threads do not spin.

    Raises `MissingDependencyError`, and what onnxruntime raises for a model that it cannot run.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise MissingDependencyError(
            f"face recognisers need onnxruntime: {error}", hint="pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = worker_threads() if "OMP_NUM_THREADS" in os.environ else 0  # 0: one per core
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    preferred = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
    providers = [name for name in (preferred, "CPUExecutionProvider") if name in onnxruntime.get_available_providers()]
    source = model if isinstance(model, bytes) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=list(dict.fromkeys(providers)))


class ArcFaceNetwork:
    """insightface's ArcFaceONNX for a model file that has passed the check.

    Raises `UsageError` for a file that is not a recogniser of 112 x 112 crops, or that does not distinguish people when
    run by insightface, and `MissingDependencyError`.
    """

    def __init__(self, model: Model, device: str) -> None:
        self._model = model
        hint = f"export {ARCFACE.variable}=PATH with the path of another ONNX file"
        try:
            from insightface.model_zoo.arcface_onnx import ArcFaceONNX
        except ImportError as error:
            raise MissingDependencyError(
                f"arcface needs insightface: {error}", hint="pip install insightface"
            ) from error
        try:
            self._network = ArcFaceONNX(str(model.path), session=session_of(model.path, device))
            if tuple(self._network.input_size) != (CROP, CROP) or not isinstance(self._network.output_shape[-1], int):
                raise ValueError(f"input {self._network.input_shape}, output {self._network.output_shape}")
            result = separation(self)
        except MissingDependencyError:
            raise
        except Exception as error:
            raise UsageError(
                f"{model} is not an ArcFace model for {CROP} x {CROP} crops: {one_line(error, place=False)}", hint=hint
            ) from error
        if not result.enough:
            raise UsageError(
                f"{model} does not distinguish people on {PEOPLE} rendered faces: {result}. {self._cause()}", hint=hint
            )

    @property
    def width(self) -> int:
        """Length of a vector."""
        return int(self._network.output_shape[-1])

    def __call__(self, crop: Crop) -> Vector:
        # One face per call: the bytes of a result must not depend on the rest of the batch.
        return np.asarray(self._network.get_feat(crop[..., ::-1]), np.float64).reshape(-1)

    def _cause(self) -> str:
        """The likely cause for a network that failed the check: the scaling with which it would pass, if any."""
        current = (self._network.input_mean, self._network.input_std)
        for name, scaling in SCALINGS.items():
            if scaling == current:
                continue
            with self._scaled(*scaling):
                passes = separation(self).enough
            if passes:
                return (
                    f"It passes with pixels scaled to {name}: insightface scales them to -1..1, or leaves them at 0 to "
                    "255 if names of the first 8 nodes begin with Sub and with Mul; export the network including its "
                    "scaling"
                )
        return "Its output may not be an embedding, its weights may be untrained, or its cropping or scaling may differ"

    @contextmanager
    def _scaled(self, mean: float, divisor: float) -> Iterator[None]:
        before = self._network.input_mean, self._network.input_std
        self._network.input_mean, self._network.input_std = mean, divisor
        try:
            yield
        finally:
            self._network.input_mean, self._network.input_std = before


def check_arcface(path: Path) -> None:
    """Check for `assets add` and `assets verify`. Raises as `ArcFaceNetwork`."""
    ArcFaceNetwork(Model(path, sha256_file(path)), "cpu")
