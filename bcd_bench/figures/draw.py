"""Draws each figure from what the user passes: run folders, an ablation folder, or videos."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bcd_bench.figures import sheets
from bcd_bench.figures.canvas import Canvas
from bcd_bench.figures.sources import Frames, Source, choose_pairs, frames_of, open_runs, produced_by
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.types.suite import Suite

__all__ = ["Options", "draw_figure", "write_video"]

ABLATION = "ablation.json"
"""Written by `bcd-bench ablate`: the variants of an ablation and their runs."""
EXAMPLES_PER_SIDE = 3


@dataclass(frozen=True)
class Options:
    """What to draw, and from what."""

    paths: tuple[Path, ...]
    """Run folders, one ablation folder, or videos."""
    pairs: tuple[str, ...] = ()
    seed: int = 0
    count: int | None = None
    """Number of pairs, or of contents and driving clips; None: a number that suits the figure."""
    frames: int | None = None
    """Frames per clip; None: a number that suits the figure."""
    labels: tuple[str, ...] = ()
    weights: str | None = None
    """Weights for the motion grid, if those of the run are not shipped."""
    error: str = "motion-error"
    """The column that CSIM is compared with."""
    prompt_frames: int = 1
    device: str = "cpu"
    settings: dict[str, Any] = field(default_factory=dict)


def draw_figure(name: str, options: Options, registry: Registry) -> Canvas:
    """Draw a figure by its name. Raises `UsageError` for paths, pairs and columns that do not fit it."""
    drawers = {
        "comparison": _comparison,
        "generation": _generation,
        "motion-grid": _motion_grid,
        "rates": _rates,
        "csim": _csim,
    }
    return drawers[name](options, registry)


def _comparison(options: Options, registry: Registry) -> Canvas:
    sources, suite = open_runs(options.paths, registry, options.labels)
    pairs = choose_pairs(sources, suite, ids=options.pairs, seed=options.seed, count=options.count or 4)
    canvas = sheets.comparison(sources, pairs, frames=options.frames or 2)
    canvas.caption(produced_by(sources, pairs))
    return canvas


def write_video(path: Path, options: Options, registry: Registry) -> None:
    """Write the figure "comparison" as a video (.mp4). Raises `UsageError` as `draw_figure` does."""
    from bcd_bench.figures.video import comparison_video
    from bcd_bench.io.video import save_frames

    sources, suite = open_runs(options.paths, registry, options.labels)
    pairs = choose_pairs(sources, suite, ids=options.pairs, seed=options.seed, count=options.count or 4)
    frames, fps = comparison_video(sources, pairs)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_frames(path, frames, fps)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None


def _motion_grid(options: Options, registry: Registry) -> Canvas:
    """A run scores few combinations of its clips, so the grid's outputs are generated with the run's method."""
    sources, suite = open_runs(options.paths, registry, options.labels)
    if len(sources) > 1:
        raise UsageError(f"a motion grid shows one run, not {len(sources)}")
    pairs = choose_pairs(sources, suite, ids=options.pairs, seed=options.seed, count=options.count or 4)
    frames = options.frames or 3
    contents = [pair.content.load() for pair in pairs]
    motions = [pair.motion.load() for pair in pairs]
    outputs: list[list[Frames]] = []
    with _method_of(sources[0], suite, options) as method:
        for content in contents:
            outputs.append([])
            for motion in motions:
                clip = method.transfer(content, motion, seed=sources[0].run.plan.seed)
                outputs[-1].append(frames_of(clip.frames, frames))
    shown = [frames_of(motion.frames, frames) for motion in motions]
    canvas = sheets.motion_grid([content.frames[:1] for content in contents], shown, outputs)
    more = "Content and driving clip of each pair; all combinations generated with the method and weights of the run."
    canvas.caption(produced_by(sources, pairs, more=more))
    return canvas


def _method_of(source: Source, suite: Suite, options: Options) -> Any:
    """The method of a run, loaded with the same settings and weights."""
    from bcd_bench.api import load_method
    from bcd_bench.assets.hashing import sha256_path

    plan = source.run.plan
    weights = options.weights
    if plan.weights is not None and weights is None:
        weights = plan.weights.name
    try:
        method = load_method(
            plan.method.name, weights=weights, suite=suite.name, device=options.device, settings=plan.method.config
        )
    except UsageError as error:
        if plan.weights is None or options.weights is not None:
            raise
        raise UsageError(
            f"{source.run.path}: its weights {plan.weights.name} are not shipped ({error})", hint="--weights PATH"
        ) from None
    given = None if options.weights is None else Path(options.weights)
    if plan.weights is not None and given is not None and given.exists() and sha256_path(given) != plan.weights.sha256:
        raise UsageError(f"--weights {given}: are not the weights of the run {source.run.path}")
    return method


def _rates(options: Options, registry: Registry) -> Canvas:
    paths, labels = list(options.paths), list(options.labels)
    caption = ""
    if len(paths) == 1 and not (paths[0] / "plan.json").exists():
        variants, caption = _variants_of(paths[0])
        paths = [path for _, path in variants]
        labels = labels or [label for label, _ in variants]
    sources, suite = open_runs(paths, registry, labels)
    pairs = choose_pairs(sources, suite, ids=options.pairs, seed=options.seed, count=options.count or 2)
    frames = options.frames or 4
    rows = [("driving clip", [frames_of(pair.motion.load().frames, frames) for pair in pairs])]
    rates = [_measured_rate(source) for source in sources]
    for source, rate in zip(sources, rates, strict=True):
        label = source.label if len(set(rates)) == 1 else f"{source.label}\n{rate}"
        rows.append((label, [frames_of(source.output(pair.id).frames, frames) for pair in pairs]))
    targets = [pair.target.load().frames for pair in pairs if pair.target is not None]
    if len(targets) == len(pairs):
        rows.append(("ground truth", [frames_of(target, frames) for target in targets]))
    canvas = sheets.strips(rows, [pair.content.load().frames[:1] for pair in pairs])
    canvas.caption(produced_by(sources, more=f"{caption}Pairs, from the left: {', '.join(p.id for p in pairs)}."))
    return canvas


def _variants_of(folder: Path) -> tuple[list[tuple[str, Path]], str]:
    """Label and run folder of every variant of an ablation that has a run, in order of `x`, and the caption."""
    path = folder / ABLATION
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        found = []
        for index, variant in enumerate(state["variants"]):
            runs = [run for run in variant["runs"].values() if run]
            # Numbers in their order, then everything else, such as all content frames.
            position = (True, float(index)) if variant["x"] is None else (False, float(variant["x"]))
            if runs:
                found.append((str(variant["name"]), folder / runs[0], position))
        name, preset = str(state["ablation"]), str(state["preset"])
    except OSError:
        raise UsageError(
            f"{folder}: neither a run folder nor the folder of an ablation", hint="bcd-bench ablate bitrate"
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(f"{path}: is damaged", hint="run bcd-bench ablate again with its --out") from None
    if not found:
        raise UsageError(f"{folder}: no variant of this ablation has a run yet", hint="run bcd-bench ablate again")
    found.sort(key=lambda item: item[2])
    return [(label, path) for label, path, _ in found], f"Ablation {name} of preset {preset}, first seed. "


def _measured_rate(source: Source) -> str:
    values = (source.run.record() or {}).get("values", {})
    rate = values.get("motion-bits", {}).get("value") if isinstance(values, dict) else None
    return f"measured {rate:.1f} bits" if isinstance(rate, int | float) else ""


def _generation(options: Options, registry: Registry) -> Canvas:
    if not options.paths:
        raise UsageError("no video or run folder given", hint="bcd-bench figure generation a.mp4 b.mp4")
    frames = options.frames or 8
    if all(path.is_dir() for path in options.paths):
        sources, suite = open_runs(options.paths, registry, options.labels)
        pairs = choose_pairs(sources, suite, ids=options.pairs, seed=options.seed, count=options.count or 4)
        rows = []
        for pair in pairs:
            prompt = pair.content.load().frames[: options.prompt_frames]
            for source in sources:
                label = pair.id if len(sources) == 1 else f"{pair.id} {source.label}"
                rows.append((label, prompt, frames_of(source.output(pair.id).frames, frames)))
        canvas = sheets.generation(rows)
        canvas.caption(produced_by(sources))
        return canvas
    return _generated_videos(options, frames)


def _generated_videos(options: Options, frames: int) -> Canvas:
    """Videos whose first frames are the prompt."""
    from bcd_bench.io.video import read_video

    if options.pairs:
        raise UsageError("--pair selects pairs of run folders, not videos")
    if options.labels and len(options.labels) != len(options.paths):
        raise UsageError(f"{len(options.labels)} labels for {len(options.paths)} videos")
    rows = []
    for index, path in enumerate(options.paths):
        if not path.is_file():
            raise UsageError(f"{path}: {'is a folder among videos' if path.is_dir() else 'no such file'}")
        clip = read_video(path).frames
        if len(clip) <= options.prompt_frames:
            raise UsageError(f"{path}: has {len(clip)} frames, all of them in the prompt of {options.prompt_frames}")
        label = options.labels[index] if options.labels else path.stem
        generated = frames_of(clip[options.prompt_frames :], frames)
        rows.append((label, clip[: options.prompt_frames], generated))
    canvas = sheets.generation(rows)
    names = ", ".join(path.name for path in options.paths)
    canvas.caption(f"Files, from above: {names}. Up to {frames} frames of each, evenly spaced.")
    return canvas


def _csim(options: Options, registry: Registry) -> Canvas:
    from bcd_bench.results.schema import PairValues

    sources, suite = open_runs(options.paths, registry, options.labels)
    if len(sources) > 1:
        raise UsageError(f"the figure csim shows one run, not {len(sources)}")
    [source] = sources
    values = PairValues.load(source.run.path)
    hint = f"bcd-bench score {source.run.path} --metric csim,{options.error}"
    if values is None:
        raise UsageError(f"{source.run.path}: has no values per pair", hint=hint)
    for column in ("csim", options.error):
        if not values.by_pair(column):
            present = ", ".join(values.columns) or "none"
            raise UsageError(f"{source.run.path}: has no column {column!r} per pair; it has: {present}", hint=hint)
    csim, errors = values.by_pair("csim"), values.by_pair(options.error)
    both = [pair for pair in csim if pair in errors and pair in source.results]
    if options.pairs:
        chosen = choose_pairs(sources, suite, ids=options.pairs)
        groups = {"chosen pairs": [pair.id for pair in chosen if pair.id in both]}
    else:
        count = options.count or EXAMPLES_PER_SIDE
        high, low = misleading(csim, errors, both, count)
        groups = {f"high CSIM, high {options.error}": high, f"low CSIM, low {options.error}": low}
    canvas = Canvas()
    by_id = {pair.id: pair for pair in suite.pairs}
    for title, ids in groups.items():
        rows = []
        for pair_id in ids:
            pair = by_id[pair_id]
            motion, output = pair.motion.load().frames, source.output(pair_id).frames
            middle = len(output) // 2
            text = f"CSIM {csim[pair_id]:.3f}, {options.error} {errors[pair_id]:.1f}\n{pair_id}"
            rows.append(
                (pair.content.load().frames[:1], motion[middle : middle + 1], output[middle : middle + 1], text)
            )
        sheets.examples(title, rows, canvas)
    more = f"{_correlation(csim, errors, both, values.cluster_by_pair(), options.error)} Shown: middle frames."
    canvas.caption(produced_by(sources, more=more))
    return canvas


def misleading(
    csim: dict[str, float], errors: dict[str, float], pairs: Sequence[str], count: int
) -> tuple[list[str], list[str]]:
    """Pairs at which CSIM misleads: the `count` with the largest sum of both ranks (high CSIM, high error), and the
    `count` with the smallest one (low CSIM, low error). CSIM is higher, an error lower, for better outputs.
    """
    ranks = _ranks([csim[pair] for pair in pairs]) + _ranks([errors[pair] for pair in pairs])
    order = sorted(range(len(pairs)), key=lambda index: (-ranks[index], pairs[index]))
    high = order[:count]
    low = [index for index in reversed(order) if index not in high][:count]
    return [pairs[index] for index in high], [pairs[index] for index in low]


def _ranks(values: Sequence[float]) -> np.ndarray[Any, np.dtype[np.float64]]:
    from scipy.stats import rankdata

    ranks: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(rankdata(values), dtype=np.float64)
    return ranks


def _correlation(
    csim: dict[str, float], errors: dict[str, float], pairs: Sequence[str], clusters: dict[str, str], error: str
) -> str:
    """A sentence on the rank correlation of CSIM and an error, with its interval."""
    from bcd_bench.statistics.intervals import bootstrap_statistics

    rows = [{"csim": csim[pair], "error": errors[pair]} for pair in pairs]

    def statistic(sample: Sequence[Any]) -> dict[str, float]:
        return {"rho": _spearman([row["csim"] for row in sample], [row["error"] for row in sample])}

    interval = bootstrap_statistics(rows, [clusters[pair] for pair in pairs], statistic).get("rho")
    text = f"Rank correlation of CSIM and {error} over {len(pairs)} pairs: {statistic(rows)['rho']:+.2f}"
    if interval is not None:
        text += f", 95 % interval {interval.low:+.2f} to {interval.high:+.2f}"
    return f"{text} (-1 if both always agreed)."


def _spearman(a: Sequence[float], b: Sequence[float]) -> float:
    x, y = _ranks(a), _ranks(b)
    if len(x) < 2 or x.std() == 0 or y.std() == 0:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])
