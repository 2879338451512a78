"""The built-in plugin: reference methods, the local executor and the report formats, through the public hooks."""

from __future__ import annotations

from bcd_bench.plugin.hookspecs import hookimpl
from bcd_bench.plugin.specs import ExecutorSpec, MethodSpec, ReportFormatSpec

__all__ = ["bcd_bench_executors", "bcd_bench_methods", "bcd_bench_report_formats"]


@hookimpl
def bcd_bench_methods() -> list[MethodSpec]:
    module, licence = "bcd_bench.plugin.reference_methods", "Apache-2.0"
    return [
        MethodSpec(
            name="copy-content",
            version="1",
            summary="Reference: the content clip, unchanged; perfect content, no transfer.",
            factory=f"{module}:CopyContent",
            licence=licence,
            reference=True,
        ),
        MethodSpec(
            name="copy-motion",
            version="1",
            summary="Reference: the driving clip, unchanged; perfect motion, everything else leaks.",
            factory=f"{module}:CopyMotion",
            licence=licence,
            reference=True,
        ),
        MethodSpec(
            name="oracle",
            version="1",
            summary="Reference: the ground-truth target if the suite has one; the ceiling of every metric.",
            factory=f"{module}:Oracle",
            licence=licence,
            reference=True,
        ),
    ]


@hookimpl
def bcd_bench_executors() -> list[ExecutorSpec]:
    return [ExecutorSpec("local", "Worker processes of this machine.", "bcd_bench.run.local:run_local", ("timeout",))]


@hookimpl
def bcd_bench_report_formats() -> list[ReportFormatSpec]:
    return [
        ReportFormatSpec("markdown", "A table for a README.", "bcd_bench.results.formats.markdown:render"),
        ReportFormatSpec(
            "latex",
            "A booktabs document, best bold and second underlined.",
            "bcd_bench.results.formats.latex:render",
        ),
        ReportFormatSpec(
            "latex-table", "The tables alone, to include in a paper.", "bcd_bench.results.formats.latex:render_tables"
        ),
        ReportFormatSpec("csv", "One line per run and metric.", "bcd_bench.results.formats.csv:render"),
        ReportFormatSpec(
            "json", "Rows with intervals and provenance, for tools.", "bcd_bench.results.formats.json:render"
        ),
        ReportFormatSpec(
            "html",
            "A page with tables to sort; with --folder, the videos of the runs too.",
            "bcd_bench.results.formats.html:render",
            folder="bcd_bench.results.formats.html:write_folder",
        ),
    ]
