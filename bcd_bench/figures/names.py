"""The names of the figures, and the numbers they have in the paper. Imports nothing heavy."""

from __future__ import annotations

import difflib

from bcd_bench.types.errors import UsageError

__all__ = ["ALIASES", "FIGURES", "figure_name"]

FIGURES = {
    "comparison": "one row per pair: content, driving clip, and the outputs of several runs (Figure 3)",
    "generation": "generated clips: the prompt and the frames that follow (Figure 4)",
    "motion-grid": "every content with the motion of every driving clip (Figures 5 and A6)",
    "rates": "the same pairs at every rate of an ablation (Figure A7)",
    "csim": "pairs whose CSIM contradicts another error (Figure A8)",
}
"""Figure -> one line of help."""
ALIASES = {"3": "comparison", "4": "generation", "5": "motion-grid", "a6": "motion-grid", "a7": "rates", "a8": "csim"}
"""Number of a figure of the paper -> its name."""
SCHEMES = {"1": "the scheme of the method", "2": "the architecture"}


def figure_name(name: str) -> str:
    """The name of a figure, from a name or a number of the paper, such as 3, a7 or A7.

    Raises `UsageError` with the nearest names if there is none.
    """
    key = name.lower().removeprefix("figure").strip(" -.")
    key = ALIASES.get(key, key)
    if key in SCHEMES:
        raise UsageError(f"Figure {key} of the paper is {SCHEMES[key]}, a drawing: no command makes it")
    if key not in FIGURES:
        near = difflib.get_close_matches(key, [*FIGURES, *ALIASES], n=2)
        raise UsageError(
            f"unknown figure {name!r}; nearest: {', '.join(near) or 'none'}",
            hint=f"choose one of: {', '.join(FIGURES)}, or a number of the paper: {', '.join(ALIASES)}",
        )
    return key
