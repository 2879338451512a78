"""What this plugin offers: specs only; everything heavy is imported by whoever uses it."""

from __future__ import annotations

from bcd_bench import AssetSpec, ReportedRow, SuiteSpec, hookimpl
from bcd_bench_faces.assets import FACE_LANDMARKER
from bcd_bench_faces.protocol import CLIPS_HELP, CLIPS_VERSION, LRS3_HELP, LRS3_VERSION, REPORTED, REPORTED_BY_CONTENT


@hookimpl
def bcd_bench_assets() -> list[AssetSpec]:
    return [FACE_LANDMARKER]


def _lrs3(name: str, factory: str, summary: str, reported: tuple[ReportedRow, ...] = ()) -> SuiteSpec:
    return SuiteSpec(
        name=name,
        version=LRS3_VERSION,
        summary=summary,
        factory=f"bcd_bench_faces.lrs3:{factory}",
        data=("lrs3",),
        data_help={"lrs3": LRS3_HELP},
        licence="that of your copy of LRS3",
        reported=reported,
    )


def _clips(name: str, factory: str, summary: str) -> SuiteSpec:
    return SuiteSpec(
        name=name,
        version=CLIPS_VERSION,
        summary=summary,
        factory=f"bcd_bench_faces.clips_folder:{factory}",
        data=("clips",),
        data_help={"clips": CLIPS_HELP},
        assets=(FACE_LANDMARKER.name,),
        licence="that of your videos",
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
        _lrs3("lrs3-self", "self_suite", "LRS3 test clips: the second half drives the first, with exact targets."),
        _clips("clips-cross", "cross_suite", "A folder of your own videos: each drives the face of somebody else."),
        _clips("clips-self", "self_suite", "A folder of your own videos: the second half drives the first."),
    ]
