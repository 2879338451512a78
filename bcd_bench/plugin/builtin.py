"""The core's own specs; they enter through the same hooks as anybody's."""

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
            summary="Anchor: the content clip itself, with its own motion; perfect content, no transfer.",
            factory=f"{module}:CopyContent",
            licence=licence,
            reference=True,
        ),
        MethodSpec(
            name="copy-motion",
            version="1",
            summary="Anchor: the motion clip itself; perfect motion, everything of the driver leaks.",
            factory=f"{module}:CopyMotion",
            licence=licence,
            reference=True,
        ),
        MethodSpec(
            name="oracle",
            version="1",
            summary="Anchor: the exact target where the suite has one; the ceiling of every metric.",
            factory=f"{module}:Oracle",
            licence=licence,
            reference=True,
        ),
    ]


@hookimpl
def bcd_bench_executors() -> list[ExecutorSpec]:
    return [ExecutorSpec("local", "One batch after the other in this process.", "bcd_bench.run.executor:run_local")]


@hookimpl
def bcd_bench_report_formats() -> list[ReportFormatSpec]:
    return [
        ReportFormatSpec("markdown", "A table to paste into a README.", "bcd_bench.results.formats.markdown:render"),
        ReportFormatSpec(
            "latex",
            "A booktabs document, best bold and second underlined.",
            "bcd_bench.results.formats.latex:render",
        ),
        ReportFormatSpec(
            "latex-table", "The tables alone, for a paper to include.", "bcd_bench.results.formats.latex:render_tables"
        ),
        ReportFormatSpec("csv", "One line per run and metric.", "bcd_bench.results.formats.csv:render"),
        ReportFormatSpec(
            "json", "Rows with intervals and provenance, for tools.", "bcd_bench.results.formats.json:render"
        ),
        ReportFormatSpec("html", "A page that stands alone.", "bcd_bench.results.formats.html:render"),
    ]
