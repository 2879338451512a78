"""Reports: rows from records, one file a format. Nothing here imports torch."""

from __future__ import annotations

from bcd_bench.specs import ReportFormatSpec

__all__ = ["REPORT_FORMATS"]

REPORT_FORMATS = (
    ReportFormatSpec("markdown", "tables for a README or a terminal", "bcd_bench.report.markdown:render"),
    ReportFormatSpec("latex", "a document that pdflatex compiles as it is", "bcd_bench.report.latex:render"),
    ReportFormatSpec("latex-table", "the tables alone, for \\input", "bcd_bench.report.latex:render_tables"),
    ReportFormatSpec("csv", "one line for each run and metric", "bcd_bench.report.csv_:render"),
    ReportFormatSpec("json", "rows with every value and its provenance", "bcd_bench.report.json_:render"),
    ReportFormatSpec("html", "one self-contained page", "bcd_bench.report.html:render"),
)
"""What the harness's own plugin returns from `bcd_bench_report_formats`."""
