"""Blocks of pairs that are decoded and scored together: fixed ranges of the plan, so that they never depend on what was
scored before or on the number of workers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bcd_bench.plugin.protocols import Scored
from bcd_bench.run.folder import output_in, read_output
from bcd_bench.scoring.features import BatchFeatures, FeatureStore, frozen
from bcd_bench.types.clip import Clip, read_only
from bcd_bench.types.errors import BcdBenchError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair

if TYPE_CHECKING:
    from bcd_bench.run.folder import PairResult
    from bcd_bench.scoring.metric_runner import MetricJob

__all__ = ["Block", "blocks_of", "decode", "score_block"]


@dataclass(frozen=True)
class Block:
    """The pairs with an output in one fixed range of the plan, and the score keys of these outputs by pair id."""

    number: int
    pairs: list[Pair]
    outputs: dict[str, str]


def blocks_of(pairs: Sequence[Pair], outputs: Mapping[str, str], size: int) -> Iterator[Block]:
    """The blocks of `size` pairs that have any output; `pairs` are those of the plan."""
    for number, start in enumerate(range(0, len(pairs), size)):
        members = [pair for pair in pairs[start : start + size] if pair.id in outputs]
        if members:
            yield Block(number, members, {pair.id: outputs[pair.id] for pair in members})


def decode(folder: Path, block: Block, results: Mapping[str, PairResult]) -> dict[str, Clip | Failed]:
    """The outputs of a block in the outputs `folder` by pair id; `Failed` for those that cannot be read."""
    clips: dict[str, Clip | Failed] = {}
    for pair in block.pairs:
        path = output_in(folder, pair.id)
        try:
            clips[pair.id] = read_output(path, results[pair.id])
        except (BcdBenchError, OSError, ValueError) as error:
            # without the path, so that equal errors are grouped and records contain no local folders
            reason = str(error).replace(str(path), "its file").replace(path.name, "its file")
            clips[pair.id] = Failed(f"output cannot be read: {reason}")
    return clips


def score_block(
    jobs: Sequence[MetricJob],
    store: FeatureStore,
    block: Block,
    clips: Mapping[str, Clip | Failed],
    results: Mapping[str, PairResult],
) -> None:
    """Score one decoded block with every job that needs it."""
    unreadable = {pair: clip for pair, clip in clips.items() if isinstance(clip, Failed)}
    readable = [pair for pair in block.pairs if pair.id not in unreadable]
    decoded = [read_only(clip) for clip in clips.values() if isinstance(clip, Clip)]
    features = BatchFeatures(store, readable, decoded)
    for job in jobs:
        if job.needs(block.outputs):
            items = [
                Scored(pair, clip, features.of(index, job.spec.extractors), frozen(results[pair.id].info or {}))
                for index, (pair, clip) in enumerate(zip(readable, decoded, strict=True))
            ]
            job.take(items, block.outputs, unreadable, features.unread)
