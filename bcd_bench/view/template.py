"""Fills the template of a page with its style, script and data."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib.resources import files
from typing import Any

__all__ = ["fill_page"]


def fill_page(package: str, data: dict[str, Any]) -> str:
    """The page `page.html` of a package with its `page.css`, `page.js` and data.

    The template's Content-Security-Policy allows its own script only. `data` is inserted as JSON that cannot end the
    script element.
    """
    parts = files(package)
    template, style, script = (
        parts.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")
    )
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    # "<" ends scripts and starts comments; the two separators end lines in old JavaScript.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    filled = {"{{script-hash}}": digest, "{{style}}": style, "{{script}}": script, "{{data}}": text}
    first, *rest = template.split("{{")
    page = [first]
    for piece in rest:  # in one pass, so that nothing in the data is taken for a placeholder
        name, _, after = piece.partition("}}")
        page += [filled["{{" + name + "}}"], after]
    return "".join(page)
