"""Links in folders of user data: links that point outside the folder are followed only if the user allows it."""

from __future__ import annotations

import os
from pathlib import Path

from bcd_bench.types.errors import UsageError

__all__ = ["FOLLOW_HINT", "FOLLOW_LINKS", "follows_links", "leads_outside"]

FOLLOW_LINKS = "BCD_BENCH_FOLLOW_LINKS"
"""Environment variable that allows links to point outside a data folder, as in a Hugging Face snapshot, a DVC cache
or git-annex."""
FOLLOW_HINT = f"export {FOLLOW_LINKS}=1 to follow links, if you trust where they lead"


def follows_links() -> bool:
    """Whether links may point outside their folder. Raises `UsageError` if the variable is neither 0 nor 1."""
    text = os.environ.get("BCD_BENCH_FOLLOW_LINKS", "0")
    if text not in ("0", "1", ""):
        raise UsageError(f"{FOLLOW_LINKS}={text} must be 0 or 1")
    return text == "1"


def leads_outside(path: Path, root: Path) -> bool:
    """Whether `path` resolves to a location outside the resolved folder `root`. Raises `OSError` for a loop of
    links."""
    try:
        return not path.resolve().is_relative_to(root)
    except RuntimeError as error:  # a symlink loop, before Python 3.13
        raise OSError(str(error)) from None
