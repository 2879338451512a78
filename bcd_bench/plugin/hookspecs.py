"""The hooks that a plugin can implement. Each returns a list of specs; implement only the ones you need.

In the module `my_package/plugin.py`:

    from bcd_bench import hookimpl, MethodSpec

    @hookimpl
    def bcd_bench_methods():
        return [MethodSpec(name="mine", version="1", summary="…", factory="my_package.method:Mine")]

and in `pyproject.toml`:

    [project.entry-points.bcd_bench]
    my-package = "my_package.plugin"
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from pathlib import Path

    from bcd_bench.plugin.specs import (
        AssetSpec,
        CommandSpec,
        ExecutorSpec,
        ExtractorSpec,
        MethodSpec,
        MetricSpec,
        PreprocessorSpec,
        ReportFormatSpec,
        SuiteSpec,
        TrainableSpec,
    )

__all__ = ["ENTRY_POINT_GROUP", "hookimpl", "hookspec"]

ENTRY_POINT_GROUP = "bcd_bench"

hookspec = pluggy.HookspecMarker("bcd_bench")
hookimpl = pluggy.HookimplMarker("bcd_bench")


@hookspec
def bcd_bench_methods() -> list[MethodSpec]:  # type: ignore[empty-body]
    """Methods that turn a (content, motion) pair into an output clip."""


@hookspec
def bcd_bench_metrics() -> list[MetricSpec]:  # type: ignore[empty-body]
    """Metrics over one output or over the whole set of outputs."""


@hookspec
def bcd_bench_suites() -> list[SuiteSpec]:  # type: ignore[empty-body]
    """Suites: deterministic, versioned lists of pairs."""


@hookspec
def bcd_bench_extractors() -> list[ExtractorSpec]:  # type: ignore[empty-body]
    """Feature extractors, shared between metrics and cached."""


@hookspec
def bcd_bench_preprocessors() -> list[PreprocessorSpec]:  # type: ignore[empty-body]
    """Preprocessors, which crop clips of any size for the methods of a domain."""


@hookspec
def bcd_bench_assets() -> list[AssetSpec]:  # type: ignore[empty-body]
    """Weights and data that users download or provide."""


@hookspec
def bcd_bench_trainables() -> list[TrainableSpec]:  # type: ignore[empty-body]
    """Methods and networks that `bcd-bench train NAME` can train."""


@hookspec
def bcd_bench_report_formats() -> list[ReportFormatSpec]:  # type: ignore[empty-body]
    """Formats of `bcd-bench report --format`."""


@hookspec
def bcd_bench_executors() -> list[ExecutorSpec]:  # type: ignore[empty-body]
    """Executors, which distribute a run over processes or machines (`run --executor`)."""


@hookspec
def bcd_bench_commands() -> list[CommandSpec]:  # type: ignore[empty-body]
    """Additional subcommands of `bcd-bench`."""


@hookspec
def bcd_bench_run_finished(run_dir: Path) -> None:
    """Called after a run's record is written, for uploads or notifications. Errors are reported and ignored."""
