"""bcd-bench: benchmark and evaluation harness for disentangled motion transfer in video.

This package is the harness. Methods, metrics and suites are plugins (entry-point group `bcd_bench`); ours use
the same hooks as third-party plugins. Names are imported on first use (PEP 562), so that the command line starts fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bcd_bench.api import (
        LoadedMethod,
        evaluate,
        list_methods,
        list_metrics,
        list_suites,
        load_method,
        load_results,
        load_suite,
        score,
        transfer,
    )
    from bcd_bench.io.inputs import read_clip
    from bcd_bench.io.video import VideoFile, save_video
    from bcd_bench.metric_validation.perturbations import Perturbation
    from bcd_bench.plugin.base import Extractor, Method, PairMetric, Preprocessor, SetMetric
    from bcd_bench.plugin.hookspecs import hookimpl
    from bcd_bench.plugin.protocols import Overlay, Scored
    from bcd_bench.plugin.specs import (
        AssetSpec,
        Column,
        CommandSpec,
        ExecutorSpec,
        ExtractorSpec,
        MethodSpec,
        MetricSpec,
        PreprocessorSpec,
        ReportedRow,
        ReportFormatSpec,
        SuiteSpec,
        TrainableSpec,
        TrainRequest,
        Weights,
        WeightsRecipe,
    )
    from bcd_bench.results.dataframe import pairs_frame, results_frame
    from bcd_bench.results.results import Results
    from bcd_bench.types.clip import Clip, ClipRef, Generated
    from bcd_bench.types.crop import Crop
    from bcd_bench.types.failed import Failed
    from bcd_bench.types.pair import Pair
    from bcd_bench.types.suite import Suite

__version__ = "0.1.0"

__all__ = [
    "AssetSpec",
    "Clip",
    "ClipRef",
    "Column",
    "CommandSpec",
    "Crop",
    "ExecutorSpec",
    "Extractor",
    "ExtractorSpec",
    "Failed",
    "Generated",
    "LoadedMethod",
    "Method",
    "MethodSpec",
    "MetricSpec",
    "Overlay",
    "Pair",
    "PairMetric",
    "Perturbation",
    "Preprocessor",
    "PreprocessorSpec",
    "ReportFormatSpec",
    "ReportedRow",
    "Results",
    "Scored",
    "SetMetric",
    "Suite",
    "SuiteSpec",
    "TrainRequest",
    "TrainableSpec",
    "VideoFile",
    "Weights",
    "WeightsRecipe",
    "__version__",
    "evaluate",
    "hookimpl",
    "list_methods",
    "list_metrics",
    "list_suites",
    "load_method",
    "load_results",
    "load_suite",
    "pairs_frame",
    "read_clip",
    "results_frame",
    "save_video",
    "score",
    "transfer",
]

_MODULES = {
    **dict.fromkeys(
        (
            "LoadedMethod",
            "evaluate",
            "list_methods",
            "list_metrics",
            "list_suites",
            "load_method",
            "load_results",
            "load_suite",
            "score",
            "transfer",
        ),
        "api",
    ),
    "Results": "results.results",
    "read_clip": "io.inputs",
    "save_video": "io.video",
    "Clip": "types.clip",
    "ClipRef": "types.clip",
    "Crop": "types.crop",
    "Extractor": "plugin.base",
    "Failed": "types.failed",
    "Generated": "types.clip",
    "Method": "plugin.base",
    "Overlay": "plugin.protocols",
    "Pair": "types.pair",
    "PairMetric": "plugin.base",
    "Preprocessor": "plugin.base",
    "Perturbation": "metric_validation.perturbations",
    "Scored": "plugin.protocols",
    "SetMetric": "plugin.base",
    "Suite": "types.suite",
    "VideoFile": "io.video",
    "hookimpl": "plugin.hookspecs",
    "pairs_frame": "results.dataframe",
    "results_frame": "results.dataframe",
}
"""Public name -> the module that defines it; `plugin.specs` defines the others."""


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "plugin.specs")
    value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
