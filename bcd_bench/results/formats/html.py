"""Tables as one self-contained HTML page without scripts, fonts or external requests."""

from __future__ import annotations

from collections.abc import Sequence

from bcd_bench.results.layout import Layout
from bcd_bench.results.rows import ReportRow
from bcd_bench.results.table import Table, build_tables

__all__ = ["render", "render_tables"]

_PAGE = """<!doctype html>
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
{% for table in tables %}
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
</body>
</html>
"""


def render(rows: Sequence[ReportRow], *, suite: str | None = None, layout: Layout | None = None) -> str:
    """Render a page that opens from a local file; names and messages provided by plugins are escaped."""
    return render_tables(build_tables(rows, suite=suite, layout=layout), "bcd-bench report")


def render_tables(tables: Sequence[Table], title: str) -> str:
    """Render tables as such a page."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    return environment.from_string(_PAGE).render(tables=tables, title=title)
