"""Tables as one self-contained HTML page, or as a folder with the videos of the runs; no external requests."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bcd_bench.results.layout import Layout
from bcd_bench.results.rows import ReportRow
from bcd_bench.results.table import Table, build_tables
from bcd_bench.types.errors import BcdBenchError
from bcd_bench.view.tables import tables_json
from bcd_bench.view.template import fill_page

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.util.progress import Progress

__all__ = ["render", "render_tables", "write_folder"]

_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem; padding: 0 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .5rem 0; }
th, td { padding: .3rem .8rem; text-align: right; vertical-align: top; }
th:first-child { text-align: left; }
thead th { border-top: 2px solid; border-bottom: 1px solid; }
tbody tr:last-child > * { border-bottom: 2px solid; }
tbody th { font-weight: 400; }
.unranked { opacity: .75; font-style: italic; }
small { display: block; opacity: .75; white-space: nowrap; }
ul { padding-left: 1.2rem; font-size: .85rem; }
</style>
</head>
<body>
<h1>{{ title }}</h1>
"""
_TABLES = """{% for table in tables %}
<section>
<div class="scroll">
<table>
<caption>{{ table.title }}</caption>
<thead><tr><th scope="col">{{ table.corner }}</th>
{%- for header in table.headers %}
<th scope="col" title="{{ table.definitions[loop.index0] }}">{{ header }}</th>
{%- endfor %}</tr></thead>
<tbody>
{%- for line in table.lines %}
<tr{% if line.status %} class="unranked"{% endif %}>
<th scope="row"{% if line.definition %} title="{{ line.definition }}"{% endif %}>{{ line.label }}
{%- if line.status %}<small>{{ line.status }}</small>{% endif %}</th>
{%- for cell in line.cells %}
<td>
{%- if cell.mark == "best" %}<strong>{{ cell.text }}</strong>
{%- elif cell.mark == "second" %}<u>{{ cell.text }}</u>
{%- else %}{{ cell.text }}{% endif %}
{%- if cell.dagger %}<sup>†</sup>{% endif %}
{%- if cell.interval %}<small>{{ cell.interval }}</small>{% endif %}</td>
{%- endfor %}
</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- if table.notes %}
<ul>
{%- for note in table.notes %}
<li>{{ note }}</li>
{%- endfor %}
</ul>
{%- endif %}
</section>
{% else %}
<p>No records to report.</p>
{% endfor %}
"""


def render(rows: Sequence[ReportRow], *, suite: str | None = None, layout: Layout | None = None) -> str:
    """Render a page that opens from a local file, with tables that can be sorted and intervals as bars.

    Names and messages provided by plugins are escaped. Without JavaScript, the page shows the same tables as they are.
    """
    return _page(build_tables(rows, suite=suite, layout=layout))


def render_tables(tables: Sequence[Table], title: str) -> str:
    """Render tables as a page without scripts."""
    return _filled(f"{_HEAD}{_TABLES}</body>\n</html>\n", tables=tables, title=title)


def write_folder(
    rows: Sequence[ReportRow],
    folder: Path,
    *,
    suite: str | None = None,
    layout: Layout | None = None,
    registry: Registry,
    progress: Progress | None = None,
) -> Path:
    """Write `index.html` to a folder, and a gallery (`bcd_bench.view`) for each table whose runs have outputs.

    Returns the page. A gallery that cannot be made, such as for a suite whose data is missing, is replaced by a note.
    Raises `UsageError` if the folder is something else than a report, or cannot be written.
    """
    from bcd_bench.io.atomic import write_text_atomic
    from bcd_bench.run.folder import writing
    from bcd_bench.view.gallery import build_gallery, open_folder

    open_folder(folder, "--folder")
    tables = build_tables(rows, suite=suite, layout=layout)
    galleries: dict[Any, tuple[str, str]] = {}
    for table in tables:
        runs = [
            row.folder
            for row in rows
            if row.group == table.group and row.folder is not None and (row.folder / "outputs").is_dir()
        ]
        if not runs:
            continue
        name = _folder_name(table, [name for name, _ in galleries.values()])
        try:
            build_gallery(runs, folder / name, registry, progress=progress)
        except BcdBenchError as error:
            galleries[table.group] = (name, f"No videos: {error}.")
        else:
            galleries[table.group] = (name, "")
    page = folder / "index.html"
    with writing(folder):
        write_text_atomic(page, _page(tables, galleries))
    return page


def _folder_name(table: Table, taken: Sequence[str]) -> str:
    """A name for a gallery without a path in it, whatever the record says; different for every table."""
    name = re.sub(r"[^A-Za-z0-9@_-]", "-", table.suite) or "gallery"
    candidates = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
    return next(candidate for candidate in candidates if candidate not in taken)


def _page(tables: Sequence[Table], galleries: Mapping[Any, tuple[str, str]] | None = None) -> str:
    import bcd_bench

    body: list[dict[str, Any]] = []
    for table, data in zip(tables, tables_json(tables), strict=True):
        name, note = (galleries or {}).get(table.group, ("", ""))
        if note:
            data["notes"].append(note)
        elif name:
            data["gallery"] = f"{name}/index.html"
        body.append(data)
    title = "bcd-bench report"
    data = {"title": title, "tables": body, "bcd_bench": bcd_bench.__version__}
    static = _filled(_TABLES, tables=tables, title=title)
    return fill_page(
        "bcd_bench.view",
        data,
        template="report.html",
        scripts=("leaderboard.js", "report.js"),
        markup={"static": static},
    )


def _filled(template: str, **values: Any) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(template).render(**values)
