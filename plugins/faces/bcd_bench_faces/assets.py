"""Files that the face suites and metrics need and that users have to provide."""

from __future__ import annotations

from bcd_bench import AssetSpec

__all__ = ["ARCFACE", "FACE_LANDMARKER", "TDDFA", "TDDFA_SCALE"]

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

TDDFA = AssetSpec(
    name="tddfa-v2",
    filename="tddfa_v2_mb05_120x120.onnx",
    sha256="",
    size=0,
    licence="MIT",
    how_to="weights/mb05_120x120.pth of the public repository cleardusk/3DDFA_V2, exported by its utils/onnx.py: "
    "any export is accepted that computes the same",
    also=("mb05_120x120.onnx",),
    check="bcd_bench_faces.tddfa.network:check_network",
)
"""Identified by its output: exports differ in their bytes. Tests use the one with sha256 7d7901cb…."""

TDDFA_SCALE = AssetSpec(
    name="tddfa-v2-scale",
    filename="tddfa_v2_param_mean_std_62.npz",
    sha256="",
    size=0,
    licence="MIT",
    how_to="the arrays mean and std of configs/param_mean_std_62d_120x120.pkl of the public repository "
    "cleardusk/3DDFA_V2, saved with numpy.savez; any file with these numbers is accepted",
    check="bcd_bench_faces.tddfa.network:check_scale",
)
"""Identified by the numbers in it, whose sha256 is e9410983…. The original is a pickle, which is never loaded."""
