"""The metrics `csim` and `csim-sface`: similarity of the person in the output to the person of the content clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from bcd_bench.plugin.base import PairMetric
from bcd_bench.plugin.protocols import Scored
from bcd_bench.plugin.specs import Column
from bcd_bench.types.failed import Failed
from bcd_bench_faces.metrics.frame_coverage import enough, frames_column, share_of_frames
from bcd_bench_faces.recognition.recogniser import find_model
from bcd_bench_faces.recognition.sface import SFACE_SHA256, sface_weights

__all__ = ["CSIM", "CSIMSFace", "reference"]


def _columns(name: str, embedding: str) -> Sequence[Column]:
    share = frames_column(name)
    return (
        Column(
            name,
            "",
            True,
            f"Mean over the output's frames of the cosine between the frame's {embedding} and that of the content "
            "clip, which for several frames is the mean of their unit vectors, made a unit vector.",
            decimals=3,
            frames=share.name,
        ),
        share,
    )


class _Similarity(PairMetric):
    """Cosine similarity of embeddings to the content reference (paper, Sec. 4.2 and Appendix C)."""

    name: ClassVar[str]
    extractor: ClassVar[str]
    columns: Sequence[Column]

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` if a face is in fewer than half of its frames, or in none of the content
        frames."""
        return [_score(self.name, item.features[self.extractor]) for item in items]


class CSIM(_Similarity):
    """Similarity by an ArcFace network of the user's choice."""

    name = "csim"
    extractor = "arcface"

    def __init__(self) -> None:
        self._name_model("the model that the record names")

    def load(self, device: str) -> None:
        """Insert the model into the definition; the extractor runs it. Raises `MissingAssetError`."""
        del device
        self._name_model(str(find_model()))

    def _name_model(self, model: str) -> None:
        self.columns = _columns(self.name, f"ArcFace embedding ({model}; faces aligned by MediaPipe's landmarks)")


class CSIMSFace(_Similarity):
    """Similarity by SFace, whose weights are installed by pip."""

    name = "csim-sface"
    extractor = "sface"
    columns = _columns(
        "csim-sface",
        f"SFace embedding (int8 weights, sha256 {SFACE_SHA256[:8]}; faces aligned by our own dense landmarks)",
    )

    def load(self, device: str) -> None:
        """Check for the weights, which the extractor runs. Raises `MissingDependencyError`, `MissingAssetError`."""
        del device
        sface_weights()


def reference(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
    """The mean direction float64[D] of a clip's embeddings float32[T, D]; None if no frame has one."""
    valid = embeddings[np.isfinite(embeddings).all(1)].astype(np.float64)
    total = valid.sum(0)
    length = float(np.linalg.norm(total))
    return total / length if length > 0 else None


def _score(name: str, features: Mapping[str, Any]) -> Mapping[str, Any] | Failed:
    output, content = features["output"], features["content"]
    for clip_features in (output, content):
        if isinstance(clip_features, Failed):
            return clip_features
    person = reference(np.asarray(content["embeddings"]))
    if person is None:
        return Failed(f"none of the {len(content['embeddings'])} content frames shows a face")
    embeddings = np.asarray(output["embeddings"], np.float64)
    has_face = np.asarray(np.isfinite(embeddings).all(1))
    if not enough(int(has_face.sum()), len(has_face)):
        return Failed(f"{has_face.sum()} of {len(has_face)} output frames show a face: fewer than half")
    share = share_of_frames(has_face, _seen_by_driver(features, has_face))
    return {name: float((embeddings[has_face] @ person).mean()), f"{name}-frames": share}


def _seen_by_driver(features: Mapping[str, Any], seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """bool[T]: frames of the driving clip with a face; None if no output frame lacks one, so that it is not needed."""
    driver = None if seen.all() else features["motion"]
    if driver is None or isinstance(driver, Failed):
        return None
    return np.asarray(np.isfinite(driver["embeddings"]).all(1))
