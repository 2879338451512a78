"""Reference methods that bracket every table: copy the content clip, the driving clip, or the ground-truth target."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from bcd_bench.plugin.base import Method
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair

__all__ = ["CopyContent", "CopyMotion", "Oracle"]


class _Reference(Method):
    """Needs no weights and no randomness."""

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        del seed
        return (self.one(pair) for pair in pairs)

    @abstractmethod
    def one(self, pair: Pair) -> Clip | Failed:
        """The output of one pair."""


class CopyContent(_Reference):
    """The content clip at the frame rate of the driving clip, looped to its length."""

    def one(self, pair: Pair) -> Clip:
        content, motion = pair.content.load(), pair.motion.load()
        times = np.arange(len(motion)) * (content.fps / motion.fps)
        index = np.floor(times + 1e-9).astype(np.int64) % len(content)
        return Clip(content.frames[index], motion.fps, pair.id)


class CopyMotion(_Reference):
    """The driving clip, unchanged."""

    def one(self, pair: Pair) -> Clip:
        motion = pair.motion.load()
        return Clip(motion.frames, motion.fps, pair.id)


class Oracle(_Reference):
    """The ground-truth target; `Failed` if the suite has none."""

    def one(self, pair: Pair) -> Clip | Failed:
        if pair.target is None:
            return Failed("the pair has no ground-truth target")
        target = pair.target.load()
        return Clip(target.frames, target.fps, pair.id)
