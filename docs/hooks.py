"""Hooks of mkdocs: the README is the start page, and files outside docs/ that pages link to become part of the site.

Links in the Markdown files are relative to the repository, so that they work there. Here every link is followed once:
Markdown files become pages at their path in the repository, other files are copied (or, with a `repo_url` in
mkdocs.yml, linked there), and links to folders without a README become plain text.
"""

from __future__ import annotations

import os.path
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def source_of(uri: str) -> str:
    """The path in the repository of the page with this path in the site."""
    if uri == "index.md":
        return "README.md"
    return f"docs/{uri}" if (ROOT / "docs" / uri).is_file() else uri


def uri_of(source: str) -> str:
    """The path in the site of a file of the repository."""
    return "index.md" if source == "README.md" else source.removeprefix("docs/")


def target_of(source: str, link: str) -> tuple[str, str]:
    """The path in the repository that a link in the file `source` leads to, and the anchor with its #.

    A link to a folder that has a README leads to the README. The path is empty for links to other servers and within
    the page.
    """
    path, hash_mark, anchor = link.partition("#")
    if not path or re.match(r"[a-z]+:", path):
        return "", ""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if (ROOT / target / "README.md").is_file():
        target += "/README.md"
    return target, hash_mark + anchor


def linked(source: str) -> set[str]:
    """The files of the repository that the Markdown file `source` links to."""
    text = FENCE.sub("", (ROOT / source).read_text(encoding="utf-8"))
    targets = {target_of(source, link)[0] for _, _, link in LINK.findall(text)}
    return {target for target in targets if target and (ROOT / target).is_file()}


def on_files(files: Any, config: Any) -> Any:
    """Add the start page and every file outside docs/ that can be reached by links."""
    todo = ["README.md", *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    done: set[str] = set()
    while todo:
        source = todo.pop()
        if source in done:
            continue
        done.add(source)
        page = source.endswith(".md")
        if not source.startswith("docs/") and (page or not config.repo_url or source.endswith((".png", ".svg"))):
            files.append(File.generated(config, uri_of(source), abs_src_path=str(ROOT / source)))
        if page:
            todo.extend(linked(source))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Turn links that are relative to the repository into links that are relative to the site."""
    source = source_of(page.file.src_uri)

    def rewritten(match: re.Match[str]) -> str:
        mark, text, link = match.groups()
        target, anchor = target_of(source, link)
        if not target:
            return match[0]
        uri = uri_of(target)
        if files.get_file_from_path(uri):
            link = os.path.relpath(uri, posixpath.dirname(page.file.src_uri) or ".")
            return f"{mark}[{text}]({link}{anchor})"
        if config.repo_url:
            return f"{mark}[{text}]({config.repo_url.rstrip('/')}/blob/main/{target}{anchor})"
        return text if (ROOT / target).exists() else match[0]  # a link to nothing stays one, and fails the build

    parts = FENCE.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(rewritten, part) for part in parts)
