"""Draw the images of this folder that `bcd-bench figure` and `bcd-bench ablate` do not draw.

    python results/pictures.py curve results/training/NAME.jsonl results/training/NAME.png
    python results/pictures.py heads heads-cross-128 results/heads.png
    python results/pictures.py doses results/validation/heads-cross.json results/validation/heads-cross.png
    python results/pictures.py sweep results/training/heads-small-rates.json results/training/heads-small-rates.png

The sheet of heads shows content, driving clip and target of some pairs of a heads suite. Curves, doses and sweeps need
matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from bcd_bench.plugin.registry import load_registry

HEADS = 6

PANELS = (
    (
        ("keypoints missed by both fields, 2 is a side", "keypoints"),
        ("error of the output", "canonical_rgb", "diffusion"),
        ("motion, bits per frame", "bits"),
    ),
    (
        ("diffusion loss", "diffusion"),
        ("motion, bits per frame", "bits", "conditional_bits"),
        ("rise of the loss by another clip's condition", "content_contribution", "motion_contribution"),
    ),
    (
        ("points missed by both fields, 2 is a side", "guidance"),
        ("error of what is drawn", "picture", "diffusion"),
        ("motion, bits per frame", "bits"),
    ),
    (("diffusion loss", "diffusion"), ("motion, bits per frame", "bits"), ("content, bits", "content_bits")),
    (
        ("squared error of a clip", "reconstruction"),
        ("nats of a clip", "kl_f", "kl_z"),
        ("nats", "contrast_f", "contrast_z", "dependence"),
    ),
    (
        ("points, % of the face off", "error"),
        ("points, in expected deviations", "surprise"),
        ("identity and expression, squared", "shape"),
    ),
)
"""Titles and columns of the panels of a curve, for each kind of log."""
LOGARITHMIC = {"diffusion", "guidance", "picture", "content_bits", "reconstruction"}


def curve(log: Path, target: Path) -> None:
    """Over the steps of a training run: for BCD its loss and both rates (where points guide: errors and the rate of
    motion), for C-DSVAE error, rates and contrasts, for dense landmarks the errors of points and of the face that is
    told."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    steps = [line["step"] for line in lines]
    last = lines[-1]
    panels = next(
        panels
        for panels in PANELS
        if any(line.get(panels[0][1]) for line in lines) and all(key in last for _, *keys in panels for key in keys)
    )
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.2), layout="constrained")
    for axis, (title, *keys) in zip(axes, panels, strict=True):
        for key in keys:
            axis.plot(steps, [line.get(key) or np.nan for line in lines], label=key)  # 0 is what is not learned yet
        axis.set(title=title, xlabel="step", yscale="log" if keys[0] in LOGARITHMIC else "linear")
        axis.grid(alpha=0.3)
        if len(keys) > 1:
            axis.legend()
    figure.savefig(target, dpi=80, metadata={"Software": None})


def heads(suite: Path, target: Path) -> None:
    """Six pairs of a heads suite: the content, and four frames each of the motion and the target."""
    from bcd_bench.plugin.loading import load_factory

    pairs = load_factory(load_registry().get("suites", suite.name).factory)({}).pairs[:HEADS]
    strips = []
    for pair in pairs:
        content, motion, exact = (ref.load().frames for ref in (pair.content, pair.motion, pair.target))
        strips.append(np.concatenate([content[0], *motion[::8], *exact[::8]], 1))
    sheet = Image.fromarray(np.concatenate(strips))
    palette = sheet.quantize(256)
    sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(target, optimize=True)


def sweep(found: Path, target: Path) -> None:
    """What each measure is over what was varied: the rate of the motion code, or the number of content frames."""
    import matplotlib.pyplot as plt

    read = json.loads(found.read_text())
    rows, (over, label) = read["rows"], read["over"]
    columns = [name for name, value in rows[0].items() if isinstance(value, list)]
    figure, axes = plt.subplots(1, len(columns), figsize=(2.6 * len(columns), 2.6), layout="constrained")
    for axis, name in zip(axes, columns, strict=True):
        middle, low, high = zip(*(row[name] for row in rows), strict=True)
        where = [row[over] for row in rows]
        axis.errorbar(where, middle, (np.subtract(middle, low), np.subtract(high, middle)), marker="o", ms=3, capsize=2)
        axis.set(title=name, xlabel=label)
        axis.grid(alpha=0.3)
    figure.savefig(target, dpi=80, metadata={"Software": None})


def doses(found: Path, target: Path) -> None:
    """What `validate-metrics` found: a row a column, a panel a fault; side effects in grey."""
    import matplotlib.pyplot as plt

    reactions = [one for one in json.loads(found.read_text())["reactions"] if one["headline"]]
    columns = list(dict.fromkeys(one["column"] for one in reactions))
    faults = list(dict.fromkeys(one["perturbation"] for one in reactions))
    shape = {"figsize": (1.7 * len(faults), 1.3 * len(columns)), "layout": "constrained"}
    figure, axes = plt.subplots(len(columns), len(faults), squeeze=False, sharey="row", sharex="col", **shape)
    for one in reactions:
        axis = axes[columns.index(one["column"])][faults.index(one["perturbation"])]
        axis.plot(one["doses"], one["means"], "o-", ms=3, color="0.6" if one["side_effect"] else "tab:blue")
        axis.grid(alpha=0.3)
    for row, column in enumerate(columns):
        axes[row][0].set_ylabel(column, fontsize=8)
    for place, fault in enumerate(faults):
        axes[0][place].set_title(fault, fontsize=8)
    for axis in axes.flat:
        axis.tick_params(labelsize=6)
    figure.savefig(target, dpi=80, metadata={"Software": None})


if __name__ == "__main__":
    drawings = {f.__name__: f for f in (curve, heads, doses, sweep)}
    drawings[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
