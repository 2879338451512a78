"""Links in folders of the user's data: those that lead out of the folder are followed only if the user says so."""

from __future__ import annotations

import os
from pathlib import Path

from bcd_bench.types.errors import UsageError

__all__ = ["FOLLOW_HINT", "FOLLOW_LINKS", "follows_links", "leads_outside"]

FOLLOW_LINKS = "BCD_BENCH_FOLLOW_LINKS"
"""The environment variable that allows links to lead out of a folder of data, as those of a Hugging Face snapshot, a
DVC cache or a git-annex do."""
FOLLOW_HINT = f"export {FOLLOW_LINKS}=1 to follow links, if you trust where they lead"


def follows_links() -> bool:
    """Whether links may lead out of the folder they are in. Raises `UsageError` for a setting that is neither."""
    text = os.environ.get("BCD_BENCH_FOLLOW_LINKS", "0")
    if text not in ("0", "1", ""):
        raise UsageError(f"{FOLLOW_LINKS}={text} is neither 0 nor 1")
    return text == "1"


def leads_outside(path: Path, root: Path) -> bool:
    """Whether following `path` ends outside of the resolved folder `root`. Raises `OSError` for a loop of links."""
    try:
        return not path.resolve().is_relative_to(root)
    except RuntimeError as error:  # a loop, before Python 3.13
        raise OSError(str(error)) from None
