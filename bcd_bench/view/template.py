"""Fills the template of a page with its style, script and data."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

__all__ = ["fill_page"]


def fill_page(
    package: str,
    data: dict[str, Any],
    *,
    template: str = "page.html",
    scripts: Sequence[str] = ("page.js",),
    markup: Mapping[str, str] | None = None,
) -> str:
    """A page of a package: `template` with its `page.css`, its scripts in one, and data.

    `markup` maps further names in the template to escaped HTML.

    The template's Content-Security-Policy allows its own script only. `data` is inserted as JSON that cannot end the
    script element.
    """
    parts = files(package)
    page, style, *codes = (parts.joinpath(name).read_text("utf-8") for name in (template, "page.css", *scripts))
    script = "\n".join(codes)
    if len(codes) > 1:  # parts of one script, which share their names and nothing else
        script = f'"use strict";\n(() => {{\n{script}}})();\n'
    text = json.dumps(data, ensure_ascii=False, allow_nan=False)
    # "<" ends scripts and starts comments; the two separators end lines in old JavaScript.
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    filled = {"{{script-hash}}": digest, "{{style}}": style, "{{script}}": script, "{{data}}": text}
    filled |= {"{{" + name + "}}": html for name, html in (markup or {}).items()}
    first, *rest = page.split("{{")
    pieces = [first]
    for piece in rest:  # in one pass, so that nothing in the data is taken for a placeholder
        name, _, after = piece.partition("}}")
        pieces += [filled["{{" + name + "}}"], after]
    return "".join(pieces)
