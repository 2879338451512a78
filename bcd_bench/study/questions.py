"""The three questions of the paper's user study, and its results as reported."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAPER_GROUPS", "PAPER_RATERS", "PAPER_SCORES", "QUESTIONS", "SCALE", "Question"]

SCALE = (1, 2, 3, 4, 5)
"""The answers to every question; 5 is best."""


@dataclass(frozen=True)
class Question:
    """A question: its `key` in files, the `name` in tables, and what raters read."""

    key: str
    name: str
    text: str
    lowest: str
    highest: str


QUESTIONS = (
    Question(
        "identity",
        "identity preservation",
        "Is it the same subject as in the reference?",
        "not at all",
        "exactly",
    ),
    Question(
        "motion",
        "motion consistency",
        "Does it move like the driving video?",
        "not at all",
        "exactly",
    ),
    Question(
        "quality",
        "visual quality",
        "How good does the video look?",
        "very bad",
        "very good",
    ),
)

PAPER_GROUPS, PAPER_RATERS = 15, 18
PAPER_SCORES = {
    "FOMM": (3.34, 2.63, 2.84),
    "MCNET": (3.36, 2.74, 2.94),
    "HyperReenact": (2.97, 4.01, 3.72),
    "LIA": (3.66, 2.53, 3.53),
    "BCD": (4.10, 4.30, 4.00),
}
"""Table 2 of the paper: method -> mean scores in the order of `QUESTIONS`, reported without intervals."""
