"""The metric `csim`: whether an output shows the person of the content clip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bcd_bench.clips import Failed
from bcd_bench.specs import Column, Scored
from bcd_bench_faces.arcface import find_model
from bcd_bench_faces.coverage import enough, frames_column, share_of_frames

__all__ = ["CSIM", "reference"]

ARCFACE = "arcface"


def _columns(model: str) -> Sequence[Column]:
    return (
        Column(
            "csim",
            "",
            True,
            f"Mean over the output's frames of the cosine between the frame's ArcFace embedding ({model}; faces "
            "aligned by MediaPipe's landmarks) and that of the content clip, which for several frames is the mean of "
            "their unit vectors, made a unit vector.",
            decimals=3,
            frames="csim-frames",
        ),
        frames_column("csim"),
    )


class CSIM:
    """Cosine similarity of ArcFace embeddings to the content reference (paper, Sec. 4.2 and Appendix C)."""

    def __init__(self) -> None:
        self.columns = _columns("the model that the record names")

    def load(self, device: str) -> None:
        """Name the model in the definition; the extractor runs it. Raises `MissingAssetError`."""
        del device
        self.columns = _columns(str(find_model()))

    def score(self, items: Sequence[Scored]) -> list[Mapping[str, Any] | Failed]:
        """One row per output; `Failed` where a face is in fewer than half of its frames, or in no content frame."""
        return [_score(item) for item in items]

    def derive(self, rows: Sequence[Mapping[str, Any]]) -> Mapping[str, float]:
        """No column is derived."""
        del rows
        return {}


def reference(embeddings: npt.NDArray[np.float32]) -> npt.NDArray[np.float64] | None:
    """The unit vector float64[D] that stands for a clip's embeddings float32[T, D]; None where no frame has one."""
    seen = embeddings[np.isfinite(embeddings).all(1)].astype(np.float64)
    total = seen.sum(0)
    length = float(np.linalg.norm(total))
    return total / length if length > 0 else None


def _score(item: Scored) -> Mapping[str, Any] | Failed:
    features = item.features[ARCFACE]
    output, content = features["output"], features["content"]
    for one in (output, content):
        if isinstance(one, Failed):
            return one
    person = reference(np.asarray(content["embeddings"]))
    if person is None:
        return Failed(f"no face in any of the {len(content['embeddings'])} content frames")
    embeddings = np.asarray(output["embeddings"], np.float64)
    seen = np.isfinite(embeddings).all(1)
    if not enough(int(seen.sum()), len(seen)):
        return Failed(f"a face in {seen.sum()} of {len(seen)} output frames: fewer than half")
    share = share_of_frames(seen, _seen_by_driver(features, seen))
    return {"csim": float((embeddings[seen] @ person).mean()), "csim-frames": share}


def _seen_by_driver(features: Mapping[str, Any], seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_] | None:
    """bool[T]: where the driver has a face; None where no frame is left out, so that it need not be looked at."""
    driver = None if seen.all() else features["motion"]
    if driver is None or isinstance(driver, Failed):
        return None
    return np.asarray(np.isfinite(driver["embeddings"]).all(1))
