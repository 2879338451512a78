"""Files that the face suites and metrics need and that users have to provide."""

from __future__ import annotations

from bcd_bench import AssetSpec

__all__ = ["ARCFACE", "FACE_LANDMARKER"]

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

ARCFACE = AssetSpec(
    name="arcface",
    filename="w600k_r50.onnx",
    sha256="",
    size=0,
    licence="that of the model you provide",
    how_to="any ArcFace model in ONNX for 112 x 112 crops, such as w600k_r50.onnx from buffalo_l.zip, release v0.7 of "
    "insightface (sha256 4c06341c…, for non-commercial research); or export BCD_BENCH_ARCFACE=PATH",
    also=("arcface_mobilefacenet.onnx",),
    variable="BCD_BENCH_ARCFACE",
    check="bcd_bench_faces.recognition.recogniser:check_arcface",
    restricted="subject to the licence of the model in use; insightface's models are for non-commercial research",
)
