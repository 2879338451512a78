"""Copy the results of ablations into this folder, and list their decisions in `ablations/README.md`.

    python results/collect_ablations.py ablations/bitrate-sprites-procedural-tiny…

Copies the tables, the picture and the samples of every folder that `bcd-bench ablate` wrote, without trainings and
runs. The list covers all ablations that are in `results/ablations` afterwards.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from bcd_bench.results.formats.markdown import escape

TARGET = Path(__file__).parent / "ablations"
FILES = ("table.md", "table.csv", "table.json", "table.tex", "picture.png", "samples.png")
ORDER = (
    "bitrate",
    "single-frame",
    "content-frames",
    "bitrate-loss",
    "cross-driven",
    "extensions",
    "recipes",
    "sampler",
)


def collect(folder: Path) -> None:
    """Copy the results of one ablation."""
    body = json.loads((folder / "table.json").read_text())
    target = TARGET / f"{body['ablation']}-{body['preset']}"
    target.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        if (folder / name).exists():
            shutil.copyfile(folder / name, target / name)


def section(name: str, body: dict[str, Any]) -> str:
    """The decisions of one ablation, and links to its table, picture and samples."""
    lines = [f"### {body['ablation']}: `{body['preset']}`", "", f"{escape(body['summary']).capitalize()}"]
    lines[-1] += f" ({body['source']})." if body["source"] else "."
    files = [("table", "table.md"), ("picture", "picture.png"), ("samples", "samples.png")]
    links = [f"[{text}]({name}/{file})" for text, file in files if (TARGET / name / file).exists()]
    lines += [f"{', '.join(links)}.", "", *(f"- {escape(one['sentence'])}" for one in body["verdicts"])]
    missing = [f"{one['name']}, {reason}" for one in body["variants"] for reason in one["missing"]]
    lines += [f"- Missing: {escape(reason)}." for reason in missing]
    return "\n".join(lines) + "\n"


def list_text() -> str:
    """The text of `ablations/README.md`, from the folders next to it."""
    found = {path.parent.name: json.loads(path.read_text()) for path in sorted(TARGET.glob("*/table.json"))}
    names = sorted(found, key=lambda name: (ORDER.index(found[name]["ablation"]), found[name]["preset"]))
    decisions = [verdict["decision"] for name in names for verdict in found[name]["verdicts"]]
    counts = ", ".join(f"{decisions.count(kind)} {kind}" for kind in ("agrees", "disagrees", "undecided"))
    head = (
        "# Ablations\n\nWritten by `python results/collect_ablations.py` from the results of `bcd-bench ablate`; each "
        "table names the command that made it. How claims are decided: [Tables and figures of the "
        f"paper](../../docs/paper.md#ablations). Decisions on all claims: {counts}.\n"
    )
    return "\n".join([head, *(section(name, found[name]) for name in names)])


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        collect(Path(argument))
    (TARGET / "README.md").write_text(list_text())
