"""What figures are made of: run folders with their suites, chosen pairs, and frames."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bcd_bench.run.folder import PairResult, RunFolder
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.types.clip import Clip
    from bcd_bench.types.pair import Pair
    from bcd_bench.types.suite import Suite

__all__ = ["Source", "choose_pairs", "frames_of", "method_label", "open_runs", "produced_by"]

Frames = npt.NDArray[np.uint8]


@dataclass
class Source:
    """A run, the label of its outputs, and its finished pairs."""

    label: str
    run: RunFolder
    results: dict[str, PairResult]

    def output(self, pair_id: str) -> Clip:
        """The output of a pair. Raises `UsageError` if it is missing or damaged."""
        return self.run.read_output(self.results[pair_id])


def open_runs(paths: Sequence[Path], registry: Registry, labels: Sequence[str] = ()) -> tuple[list[Source], Suite]:
    """The runs in these folders, and their suite.

    `labels` replaces the names of the methods. Raises `UsageError` for a folder without a run or without outputs, runs
    over different pairs, and another number of labels than runs.
    """
    if not paths:
        raise UsageError("no run folder given", hint="bcd-bench figure NAME runs/SUITE/METHOD/RUN_ID")
    if labels and len(labels) != len(paths):
        raise UsageError(f"{len(labels)} labels for {len(paths)} runs")
    runs = [_open(path) for path in paths]
    manifests = {run.plan.suite.manifest_sha256 for run in runs}
    if len(manifests) > 1:
        names = ", ".join(f"{run.plan.suite.name}@{run.plan.suite.version}" for run in runs)
        raise UsageError(f"the runs do not use the same pairs: {names}")
    suite = runs[0].suite(registry)
    sources = []
    for index, run in enumerate(runs):
        results = {pair: result for pair, result in run.finished().items() if result.status == "ok"}
        if not results:
            raise UsageError(
                f"{paths[index]}: has no outputs of its {len(run.plan.pairs)} pairs",
                hint="figures need the outputs; run the command of the run again",
            )
        sources.append(Source(labels[index] if labels else method_label(run, runs), run, results))
    return sources, suite


def _open(path: Path) -> RunFolder:
    if not path.exists():
        raise UsageError(f"{path}: no such run folder")
    if not (path / "plan.json").exists():
        inside = sorted(path.glob("**/plan.json"))
        hint = f"one of them: {inside[0].parent}" if inside else "bcd-bench run --method M --suite S"
        count = f"contains {len(inside)} runs" if inside else "is not a run folder"
        if len(inside) != 1:
            raise UsageError(f"{path}: {count}; specify one run folder", hint=hint)
        path = inside[0].parent
    return RunFolder(path)


def method_label(run: RunFolder, others: Sequence[RunFolder]) -> str:
    """The method's name; several runs of one method are distinguished by their weights or run ids."""
    method = run.plan.method
    name = str(method.config.get("name") or method.name)
    same = [other for other in others if other.plan.method.name == method.name and other is not run]
    if not same:
        return name
    weights = run.plan.weights.name if run.plan.weights else ""
    if weights and all(other.plan.weights and other.plan.weights.name != weights for other in same):
        return f"{name} {weights.removesuffix('.safetensors')}"
    return f"{name} {run.plan.run_id[:8]}"


def choose_pairs(
    sources: Sequence[Source], suite: Suite, *, ids: Sequence[str] = (), seed: int = 0, count: int = 4
) -> list[Pair]:
    """The pairs with these ids, or `count` random ones of different content subjects, in the order of the suite.

    Only pairs that all runs have finished are chosen. Raises `UsageError` for an unknown id, with the nearest ones, and
    for a pair that a run lacks or that failed.
    """
    by_id = {pair.id: pair for pair in suite.pairs}
    for pair_id in ids:
        if pair_id not in by_id:
            near = difflib.get_close_matches(pair_id, by_id, n=3, cutoff=0.4)
            raise UsageError(f"suite {suite.name!r} has no pair {pair_id!r}; nearest: {', '.join(near) or 'none'}")
        for source in sources:
            if pair_id in source.results:
                continue
            result = source.run.pairs().get(pair_id)
            reason = f"failed: {result.error}" if result is not None and result.status == "failed" else "is not there"
            raise UsageError(f"{source.run.path}: the output of pair {pair_id} {reason}")
    if ids:
        return [by_id[pair_id] for pair_id in ids]
    common = [pair for pair in suite.pairs if all(pair.id in source.results for source in sources)]
    if not common:
        raise UsageError("no pair is finished in all runs", hint="run the unfinished ones again")
    order = np.random.default_rng(seed).permutation(len(common))
    chosen: dict[str, int] = {}
    for index in order:  # different subjects first, so that one character does not fill the figure
        chosen.setdefault(str(common[index].content.labels.get("subject", common[index].id)), int(index))
    picked = list(chosen.values())[:count]
    picked += [int(index) for index in order if int(index) not in picked][: count - len(picked)]
    return [common[index] for index in sorted(picked)]


def frames_of(frames: Frames, count: int) -> Frames:
    """`count` frames [count, H, W, 3], evenly spaced from the first to the last; all if there are not more."""
    if count >= len(frames):
        return frames
    if count == 1:
        return frames[len(frames) // 2 : len(frames) // 2 + 1]
    shown: Frames = frames[np.linspace(0, len(frames) - 1, count).round().astype(int)]
    return shown


def produced_by(sources: Sequence[Source], pairs: Sequence[Pair] = (), *, more: str = "") -> str:
    """A sentence for the caption: suite, methods with their run ids, version, and the pairs."""
    import bcd_bench

    suite = sources[0].run.plan.suite
    runs = ", ".join(f"{source.label} (run {source.run.plan.run_id[:8]})" for source in sources)
    listed = f" Pairs, from above: {', '.join(pair.id for pair in pairs)}." if pairs else ""
    return (
        f"{suite.name}@{suite.version}; {runs}; bcd-bench {bcd_bench.__version__}.{listed}{' ' if more else ''}{more}"
    )
