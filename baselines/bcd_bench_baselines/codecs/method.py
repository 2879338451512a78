"""Video codecs as methods: the output is the driving clip after coding and decoding."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from bcd_bench.plugin.base import Method
from bcd_bench.plugin.settings import validate
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_baselines.codecs.encoders import CODECS
from bcd_bench_baselines.codecs.metric import BYTES_KEY

__all__ = ["X264", "X265", "SvtAv1"]


class CodecConfig(BaseModel):
    """Settings that `run --set` may change."""

    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)

    crf: int = Field(51, ge=0)
    """Constant rate factor: the larger, the lower the rate."""
    preset: str = "slow"
    """The encoder's preset of speed against rate."""


class _CodecMethod(Method):
    name: str

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.settings = validate(CodecConfig, config, owner=self.name)

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """Yield the coded driving clip of every pair, with the bytes of its stream in `Clip.info`."""
        del seed
        codec = CODECS[self.name]
        for pair in pairs:
            motion = pair.motion.load()
            if any(side % 2 for side in motion.frames.shape[1:3]):
                yield Failed("video codecs need frames with even sides")
                continue
            data = codec.encode(motion.frames, motion.fps, self.settings.crf, self.settings.preset)
            yield Clip(codec.decode(data), motion.fps, pair.id, {BYTES_KEY: len(data)})


class X264(_CodecMethod):
    """H.264 by x264."""

    name = "x264"


class X265(_CodecMethod):
    """H.265 by x265."""

    name = "x265"


class SvtAv1(_CodecMethod):
    """AV1 by SVT-AV1."""

    name = "svt-av1"
