"""bcd-bench: benchmark and evaluation harness for disentangled motion transfer in video.

This package is the harness. Methods, metrics and suites are plugins (entry-point group `bcd_bench`); ours enter
through the same door as anybody's. Names are imported on first use (PEP 562), so that the command line starts fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bcd_bench.clips import Clip, ClipRef, Failed, Generated, Pair, Suite, VideoFile
    from bcd_bench.dataframes import pairs_frame, results_frame
    from bcd_bench.hookspecs import hookimpl
    from bcd_bench.perturbations import Perturbation
    from bcd_bench.specs import (
        AssetSpec,
        Column,
        CommandSpec,
        ExecutorSpec,
        ExtractorSpec,
        MethodSpec,
        MetricSpec,
        ReportedRow,
        ReportFormatSpec,
        Scored,
        SuiteSpec,
        TrainableSpec,
        TrainRequest,
        Weights,
        WeightsRecipe,
    )

__version__ = "0.1.0"

__all__ = [
    "AssetSpec",
    "Clip",
    "ClipRef",
    "Column",
    "CommandSpec",
    "ExecutorSpec",
    "ExtractorSpec",
    "Failed",
    "Generated",
    "MethodSpec",
    "MetricSpec",
    "Pair",
    "Perturbation",
    "ReportFormatSpec",
    "ReportedRow",
    "Scored",
    "Suite",
    "SuiteSpec",
    "TrainRequest",
    "TrainableSpec",
    "VideoFile",
    "Weights",
    "WeightsRecipe",
    "__version__",
    "hookimpl",
    "pairs_frame",
    "results_frame",
]

_CLIPS = frozenset({"Clip", "ClipRef", "Failed", "Generated", "Pair", "Suite", "VideoFile"})
_ROOMS = {
    "hookimpl": "hookspecs",
    "Perturbation": "perturbations",
    "pairs_frame": "dataframes",
    "results_frame": "dataframes",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "clips" if name in _CLIPS else _ROOMS.get(name, "specs")
    value = getattr(importlib.import_module(f"{__name__}.{room}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
