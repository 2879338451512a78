"""Files that the face suites and metrics need and that users bring."""

from __future__ import annotations

from bcd_bench import AssetSpec

__all__ = ["FACE_LANDMARKER"]

FACE_LANDMARKER = AssetSpec(
    name="face-landmarker",
    filename="face_landmarker.task",
    sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
    size=3758596,
    licence="Apache-2.0",
    how_to="MediaPipe's face landmarker bundle (float16, version 1)",
    urls=(
        "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    ),
)
