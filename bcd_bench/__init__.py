"""bcd-bench: benchmark and evaluation harness for disentangled motion transfer in video.

This package is the harness. Methods, metrics and suites are plugins (entry-point group `bcd_bench`); ours enter
through the same door as anybody's.
"""

from bcd_bench.clips import Clip, ClipRef, Failed, Generated, Pair, Suite, VideoFile
from bcd_bench.hookspecs import hookimpl
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
    "ReportFormatSpec",
    "ReportedRow",
    "Scored",
    "Suite",
    "SuiteSpec",
    "TrainRequest",
    "TrainableSpec",
    "VideoFile",
    "Weights",
    "__version__",
    "hookimpl",
]
