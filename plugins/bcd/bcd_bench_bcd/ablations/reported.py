"""The paper's own numbers of the ablations, to be shown beside ours and never mixed with them."""

from __future__ import annotations

__all__ = ["COLUMNS", "REPORTED"]

COLUMNS = ("FID", "CSIM", "identity error", "motion error (10^-2)", "cross error (10^-2)")
"""Columns of Tables 3, A5 and A6: talking heads of LRS3, whose test pairs and mesh fitter are not published."""

_FULL = (86.0, 0.69, 0.41, 3.13, 3.67)
REPORTED: dict[str, tuple[tuple[str, tuple[float, ...]], ...]] = {
    "Table 3": (
        ("2 kbit/s", (88.5, 0.71, 0.34, 5.26, 5.68)),
        ("6 kbit/s", (87.6, 0.68, 0.56, 3.23, 4.13)),
        ("8 kbit/s", (89.3, 0.66, 0.49, 3.04, 3.74)),
        ("4 kbit/s", _FULL),
        ("4 kbit/s, one content frame", (87.9, 0.69, 0.47, 3.13, 3.81)),
        ("4 kbit/s, without cross-driven training", (120.1, 0.64, 0.58, 41.5, 40.4)),
    ),
    "Table A5": (
        ("1 content frame", (87.9, 0.692, 0.47, 3.13, 3.81)),
        ("5 content frames", (86.0, 0.685, 0.43, 3.50, 4.21)),
        ("15 content frames", (85.6, 0.685, 0.43, 3.47, 4.14)),
        ("20 content frames", (86.6, 0.688, 0.44, 3.20, 3.78)),
        ("all content frames", (86.0, 0.692, 0.41, 3.13, 3.67)),
    ),
    "Table A6": (
        ("without bitrate loss", (92.7, 0.70, 0.59, 4.81, 6.21)),
        ("with bitrate loss", _FULL),
    ),
}
"""Table of the paper -> its rows: a label and the values of `COLUMNS`."""
