"""Specs of this plugin; heavy code is imported only where it is used."""

from __future__ import annotations

from bcd_bench import (
    AssetSpec,
    ExtractorSpec,
    MetricSpec,
    PreprocessorSpec,
    ReportedRow,
    SuiteSpec,
    TrainableSpec,
    hookimpl,
)
from bcd_bench_faces.assets import ARCFACE, FACE_LANDMARKER, TDDFA, TDDFA_SCALE
from bcd_bench_faces.suites.paper_results import (
    CLIPS_HELP,
    CLIPS_VERSION,
    FPS,
    LRS3_HELP,
    LRS3_VERSION,
    REPORTED,
    REPORTED_BY_CONTENT,
    SIZE,
)

LANDMARKS = "mediapipe-landmarks"
DENSE = "dense-landmarks"
MESH = "face-mesh"
TDDFA_V2 = "tddfa"
FACES = "faces"


@hookimpl
def bcd_bench_metrics() -> list[MetricSpec]:
    return [
        MetricSpec(
            name="csim",
            version="2",
            summary="Cosine similarity of ArcFace embeddings of output and content.",
            factory="bcd_bench_faces.metrics.csim:CSIM",
            extractors=("arcface",),
            measures=("identity",),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="csim-sface",
            version="1",
            summary="Cosine similarity of SFace embeddings of output and content; needs no files beyond pip's.",
            factory="bcd_bench_faces.metrics.csim:CSIMSFace",
            extractors=("sface",),
            measures=("identity",),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="ard",
            version="2",
            summary="Average rotation distance of the head between output and driving clip.",
            factory="bcd_bench_faces.metrics.head_rotation:ARD",
            extractors=(LANDMARKS,),
            measures=("motion",),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="auh",
            version="2",
            summary="Average action-unit Hamming distance between output and driving clip.",
            factory="bcd_bench_faces.metrics.action_units:AUH",
            extractors=(LANDMARKS,),
            measures=("motion",),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="aed-3ddfa",
            version="1",
            summary="Average expression distance between output and driving clip, by 3DDFA_V2.",
            factory="bcd_bench_faces.metrics.expression_and_pose:AED",
            extractors=(TDDFA_V2,),
            measures=("motion",),
            licence="Apache-2.0",
        ),
        MetricSpec(
            name="apd-3ddfa",
            version="1",
            summary="Average pose distance between output and driving clip, by 3DDFA_V2.",
            factory="bcd_bench_faces.metrics.expression_and_pose:APD",
            extractors=(TDDFA_V2,),
            measures=("motion",),
            licence="Apache-2.0",
        ),
        *_DYNAMICS,
        *_MESH_ERRORS,
        MetricSpec(
            name="heads-generation",
            version="1",
            summary="Distribution and speed of generated head motion against real head motion.",
            factory="bcd_bench_faces.metrics.generated_motion:HeadsGeneration",
            level="set",
            suites=("heads-generate", "heads-generate-prompt5"),
            extractors=(MESH,),
            needs_target=True,
            licence="Apache-2.0; head model CC0-1.0",
        ),
    ]


@hookimpl
def bcd_bench_extractors() -> list[ExtractorSpec]:
    return [
        ExtractorSpec(
            name=LANDMARKS,
            version="1",
            summary="478 points, 52 blendshapes and the head rotation per frame.",
            factory="bcd_bench_faces.landmarks.extractor:MediaPipeLandmarks",
            assets=(FACE_LANDMARKER.name,),
            overlay="bcd_bench_faces.overlays:mediapipe_contours",
        ),
        ExtractorSpec(
            name="arcface",
            version="2",
            summary="Unit-length ArcFace embedding of the face in each frame.",
            factory="bcd_bench_faces.recognition.arcface:ArcFace",
            assets=(ARCFACE.name,),
            extractors=(LANDMARKS,),
        ),
        ExtractorSpec(
            name=DENSE,
            version="1",
            summary="320 dense landmarks per frame with uncertainties and head-model coefficients (bundled network).",
            factory="bcd_bench_faces.dense_landmarks.extractor:DenseLandmarks",
            overlay="bcd_bench_faces.overlays:dense_points",
        ),
        ExtractorSpec(
            name="sface",
            version="1",
            summary="Unit-length SFace embedding of the face in each frame; needs no files beyond pip's.",
            factory="bcd_bench_faces.recognition.sface:SFace",
            extractors=(DENSE,),
        ),
        ExtractorSpec(
            name=MESH,
            version="2",
            summary="Head model fitted to a clip: identity per clip, expression and pose per frame; needs no files.",
            factory="bcd_bench_faces.fitting.extractor:FaceMesh",
            extractors=(DENSE,),
            overlay="bcd_bench_faces.overlays:fitted_mesh",
        ),
        ExtractorSpec(
            name=TDDFA_V2,
            version="1",
            summary="Head pose, shape and expression by 3DDFA_V2 per frame.",
            factory="bcd_bench_faces.tddfa.extractor:TDDFAParameters",
            assets=(TDDFA.name, TDDFA_SCALE.name),
            extractors=(DENSE,),
        ),
        ExtractorSpec(
            name=f"{MESH}-mediapipe",
            version="1",
            summary="The same fit to MediaPipe's landmarks.",
            factory="bcd_bench_faces.fitting.extractor:MediaPipeFaceMesh",
            extractors=(LANDMARKS,),
            overlay="bcd_bench_faces.overlays:fitted_mesh",
        ),
    ]


@hookimpl
def bcd_bench_preprocessors() -> list[PreprocessorSpec]:
    return [
        PreprocessorSpec(
            name=FACES,
            version="1",
            summary="One fixed square around the face, framed as in LRS3.",
            factory="bcd_bench_faces.preprocess.crop:FaceCropper",
            size=SIZE,
            fps=FPS,
            assets=(FACE_LANDMARKER.name,),
        )
    ]


@hookimpl
def bcd_bench_trainables() -> list[TrainableSpec]:
    return [
        TrainableSpec(
            name="dense-landmarks",
            version="1",
            summary="The network of dense face landmarks, trained on rendered heads only.",
            factory="bcd_bench_faces.dense_landmarks.train:train",
            presets={
                "small": "43,008 renders and 11,500 steps, about 90 minutes on one core; the shipped weights",
                "large": "120,000 renders and 60,000 steps of a network nearly twice as large, for a GPU and 8 cores",
                "tiny": "64 renders and 12 steps, to test the pipeline",
            },
            default_preset="small",
        )
    ]


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    return [FACE_LANDMARKER, ARCFACE, TDDFA, TDDFA_SCALE]


_ERRORS = (
    ("shape-error", "ShapeError", ("identity",), "Vertex error of the fitted identity against the content clip's"),
    ("motion-error", "MotionError", ("motion",), "Vertex error of the fitted motion against the driving clip's"),
    (
        "cross-error",
        "CrossError",
        ("identity", "motion"),
        "Vertex error of the fitted head against the content clip's identity with the driving clip's motion",
    ),
)

_MESH_ERRORS = [
    MetricSpec(
        name=name + suffix,
        version=version,
        summary=f"{summary}{by}.",
        factory=f"bcd_bench_faces.metrics.mesh_errors:{prefix}{factory}",
        extractors=(MESH + suffix,),
        measures=measures,
        licence="Apache-2.0; head model CC0-1.0",
    )
    for suffix, prefix, version, by in (
        ("", "", "3", ""),
        ("-mediapipe", "MediaPipe", "2", ", by MediaPipe's landmarks"),
    )
    for name, factory, measures, summary in _ERRORS
]

_DYNAMICS = [
    MetricSpec(
        name=f"theval-{name}-mediapipe",
        version="1",
        summary=f"THEval's {described}, by MediaPipe's landmarks.",
        factory=f"bcd_bench_faces.metrics.face_dynamics:{factory}",
        extractors=(LANDMARKS,),
        measures=("motion", "time"),
        licence="Apache-2.0",
    )
    for name, factory, described in (
        ("lips", "LipDynamics", "lip dynamics"),
        ("brows", "BrowDynamics", "eyebrow dynamics"),
        ("head", "HeadDynamics", "head motion dynamics"),
    )
]

_HEADS = [
    SuiteSpec(
        name=name,
        version="1",
        summary=f"Rendered talking heads, {size}x{size}: transfers between people, with ground-truth targets.",
        factory=f"bcd_bench_faces.suites.synthetic_heads:suite_{size}",
        training=f"bcd_bench_faces.suites.training_heads:training_{size}",
        preprocessor=FACES,
        licence="Apache-2.0; head model CC0-1.0",
    )
    for name, size in (("heads-cross", 256), ("heads-cross-128", 128), ("heads-cross-64", 64))
]


def _lrs3(name: str, factory: str, summary: str, reported: tuple[ReportedRow, ...] = ()) -> SuiteSpec:
    return SuiteSpec(
        name=name,
        version=LRS3_VERSION,
        summary=summary,
        factory=f"bcd_bench_faces.suites.lrs3:{factory}",
        data=("lrs3",),
        data_help={"lrs3": LRS3_HELP},
        preprocessor=FACES,
        licence="that of your copy of LRS3",
        reported=reported,
        training_videos="bcd_bench_faces.suites.lrs3:training_videos",
    )


def _clips(name: str, factory: str, summary: str) -> SuiteSpec:
    return SuiteSpec(
        name=name,
        version=CLIPS_VERSION,
        summary=summary,
        factory=f"bcd_bench_faces.suites.user_videos:{factory}",
        data=("clips",),
        data_help={"clips": CLIPS_HELP},
        assets=(FACE_LANDMARKER.name,),
        preprocessor=FACES,
        licence="that of your videos",
        training_videos="bcd_bench_faces.suites.user_videos:training_videos",
    )


@hookimpl
def bcd_bench_suites() -> list[SuiteSpec]:
    return [
        _lrs3("lrs3-cross", "cross_suite", "LRS3 test clips: each drives the face of another speaker.", REPORTED),
        *(
            _lrs3(
                f"lrs3-cross-content{n}",
                f"cross_content{n}",
                f"As lrs3-cross, with the first {n} {'frame' if n == 1 else 'frames'} of the content clip only.",
                reported,
            )
            for n, reported in REPORTED_BY_CONTENT.items()
        ),
        _lrs3(
            "lrs3-self", "self_suite", "LRS3 test clips: the second half drives the first, with ground-truth targets."
        ),
        _clips("clips-cross", "cross_suite", "A folder of your own videos: each drives the face of somebody else."),
        _clips("clips-self", "self_suite", "A folder of your own videos: the second half drives the first."),
        *_HEADS,
        SuiteSpec(
            name="heads-self-128",
            version="1",
            summary="Rendered talking heads, 128x128: every test clip drives itself, for self-reenactment and codecs.",
            factory="bcd_bench_faces.suites.synthetic_heads:self_suite_128",
            preprocessor=FACES,
            licence="Apache-2.0; head model CC0-1.0",
        ),
        *(
            SuiteSpec(
                name="heads-generate" if prompt == 1 else f"heads-generate-prompt{prompt}",
                version="1",
                summary=f"Continue the first {given} of rendered talking heads.",
                factory=f"bcd_bench_faces.suites.heads_generate:prompt_{prompt}",
                preprocessor=FACES,
                licence="Apache-2.0; head model CC0-1.0",
            )
            for prompt, given in ((1, "frame"), (5, "5 frames"))
        ),
    ]
