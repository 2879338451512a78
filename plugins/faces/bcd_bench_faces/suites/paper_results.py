"""Common constants of the real-face suites, and the results reported in the paper. Lightweight: imported by specs."""

from __future__ import annotations

from bcd_bench import ReportedRow

__all__ = [
    "CLIPS_HELP",
    "CLIPS_VERSION",
    "DEFAULT_METRICS",
    "FPS",
    "LRS3_HELP",
    "LRS3_VERSION",
    "REPORTED",
    "REPORTED_BY_CONTENT",
    "SEED",
    "SIZE",
]

LRS3_VERSION = "2"
"""Bump when the pairs or the pixels of an LRS3 suite change."""
CLIPS_VERSION = "2"
"""As `LRS3_VERSION`, for the suites over folders of videos."""
SEED = 423
SIZE = (256, 256)
"""Height and width in pixels (paper, Sec. 4.1)."""
FPS = 25.0
DEFAULT_METRICS = (
    "fid",
    "fd-efficientnet-lite0",
    "csim",
    "csim-sface",
    "shape-error",
    "motion-error",
    "cross-error",
    "ard",
    "auh",
    "flicker",
)
"""Default metrics of all talking-head suites: the columns of the paper's Table 1, a distance and a recogniser that work
offline, and the companions that Appendix C discusses."""

LRS3_HELP = (
    "LRS3 is no longer distributed by its authors. If you have a copy, pass its folder and use it under its licence; "
    "otherwise, heads-cross and sprites-procedural need no data, and clips-cross runs on a folder of your own videos, "
    "<identity>/*.mp4"
)
CLIPS_HELP = (
    "a folder of talking-head videos, <identity>/*.mp4 (.mkv, .mov, .avi, .webm), of any size and frame rate; "
    "sprites-procedural and heads-cross need no data"
)

_NOTE = (
    "the paper's test clips, pairs, Inception frames and face recogniser are not published; its mesh errors come from "
    "an unreleased fitter, and those of motion and cross are in hundredths"
)


def _row(method: str, table: str, fid: float, csim: float, shape: float, motion: float, cross: float) -> ReportedRow:
    figures = {
        "fid": fid,
        "csim": csim,
        "shape-error (paper)": shape,
        "motion-error (paper)": motion,
        "cross-error (paper)": cross,
    }
    return ReportedRow(method, f"Bitrate-Controlled Diffusion paper, {table}", figures, _NOTE)


REPORTED = (
    _row("FOMM", "Table 1", 98.5, 0.76, 0.75, 24.3, 24.1),
    _row("MCNET", "Table 1", 98.6, 0.76, 0.85, 23.9, 23.6),
    _row("HyperReenact", "Table 1", 106.8, 0.58, 0.57, 3.94, 4.68),
    _row("LIA", "Table 1", 104.4, 0.71, 0.57, 36.1, 34.1),
    _row("LivePortrait", "Table 1", 100.3, 0.69, 0.66, 24.6, 23.7),
    _row("BCD", "Table 1", 86.0, 0.69, 0.41, 3.13, 3.67),
    _row("BCD, 2 kbps", "Table 3", 88.5, 0.71, 0.34, 5.26, 5.68),
    _row("BCD, 6 kbps", "Table 3", 87.6, 0.68, 0.56, 3.23, 4.13),
    _row("BCD, 8 kbps", "Table 3", 89.3, 0.66, 0.49, 3.04, 3.74),
    _row("BCD, no cross-driven training", "Table 3", 120.1, 0.64, 0.58, 41.5, 40.4),
    _row("BCD, no bitrate loss", "Table A6", 92.7, 0.70, 0.59, 4.81, 6.21),
)
REPORTED_BY_CONTENT = {
    1: (_row("BCD", "Table A5", 87.9, 0.692, 0.47, 3.13, 3.81),),
    5: (_row("BCD", "Table A5", 86.0, 0.685, 0.43, 3.50, 4.21),),
    15: (_row("BCD", "Table A5", 85.6, 0.685, 0.43, 3.47, 4.14),),
    20: (_row("BCD", "Table A5", 86.6, 0.688, 0.44, 3.20, 3.78),),
}
"""By the number of content frames; using all frames is the paper's default and therefore in `REPORTED`."""
