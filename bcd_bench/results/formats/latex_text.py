"""Plain text as LaTeX, and how wide it is set."""

from __future__ import annotations

import unicodedata

__all__ = ["escape", "text_width"]


def _raised(text: str) -> str:
    """A superscript of 7 pt: one of a table's type of 8 pt would have 6 pt, which is too small to read."""
    return rf"\raisebox{{0.5ex}}{{\fontsize{{7}}{{7}}\selectfont {text}}}"


_ESCAPES = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "\u2191": r"$\uparrow$",
    "\u2193": r"$\downarrow$",
    "\u2020": r"$\dagger$",
    "\u2013": "--",
    "\u2212": "$-$",
    "\u2014": "---",
    "\u2018": "`",
    "\u2019": "'",
    "\u201c": "``",
    "\u201d": "''",
    "\u2026": r"\ldots{}",
    "\u00d7": r"$\times$",
    "\u00b1": r"$\pm$",
    "\u00b7": r"$\cdot$",
    "\u00b0": _raised(r"$\circ$"),
    "\u00b2": _raised("2"),
    "\u00b3": _raised("3"),
    "\u00b5": r"$\mu$",
    "\u03bc": r"$\mu$",
    "\u00df": r"\ss{}",
    "\u00f8": r"\o{}",
    "\u00d8": r"\O{}",
    "\u00e6": r"\ae{}",
    "\u00c6": r"\AE{}",
    "\u0142": r"\l{}",
    "\u0141": r"\L{}",
    "\u00a0": "~",
}
_ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}


_WIDTHS = {
    **dict.fromkeys("ijlI|.,:;!'`[]", 0.29),
    **dict.fromkeys("frst()-/ ", 0.395),
    **dict.fromkeys("acegoz0123456789_", 0.50),
    **dict.fromkeys("bdhknpquvxyLSJ", 0.56),
    **dict.fromkeys("wABCDEFGHKNOPQRTUVXYZ<>=+&\u00b1\u2212\u2191\u00d7", 0.79),
    **dict.fromkeys("m%", 0.84),
    **dict.fromkeys("\u00b2\u00b3\u00b0\u2193\u2020\u2013", 0.53),
}
"""Advance widths in em of Computer Modern Roman at 10 pt, rounded up by groups; anything else counts 1 em."""


def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """Upper bound of the width in pt of `text`, set in Computer Modern Roman of `size` pt (7 to 12)."""
    small = 1 + max(0.0, 10 - size) * 0.047  # smaller design sizes are relatively wider
    return sum(_WIDTHS.get(char, 1.0) for char in text) * size * small * (1.16 if bold else 1.0)


def escape(text: str) -> str:
    """Escape plain text as LaTeX that compiles with the default fonts; unsupported characters become "?"."""
    return "".join(_escaped(char) for char in unicodedata.normalize("NFC", " ".join(text.split())))


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isascii():
        return char if char.isprintable() else ""
    decomposed = unicodedata.normalize("NFD", char) + " "
    base, accent = decomposed[0], decomposed[1]
    if accent in _ACCENTS and base.isascii() and base.isalpha():
        dotless = {"i": r"\i", "j": r"\j"}.get(base, base) if accent != "\u0327" else base
        return rf"\{_ACCENTS[accent]}{{{dotless}}}"
    return "?"
