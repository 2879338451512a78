"""BCD as a video codec: every output is decoded from the bitstream that the pair was encoded into."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcd_bench.plugin.base import Method
from bcd_bench.run.fingerprint import pair_seed
from bcd_bench.types.clip import Clip
from bcd_bench.types.errors import UsageError
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.bitstream.codec import decode_clip, encode_clip
from bcd_bench_bcd.bitstream.opening import motion_model
from bcd_bench_bcd.inference.method import BCDMethod

__all__ = ["BYTES_KEY", "CodedBCD"]

BYTES_KEY = "coded_bytes"
"""Key in `Clip.info` of the size of the whole file, for the metric `coded-size`."""
MODELS = ("adaptive", "context", "static", "autoregressive")


class CodedBCD(Method):
    """Encodes and decodes every pair as `bcd-bench encode` and `decode` do.

    Without `content_crf`, the outputs are those of `bcd`. The size of the file, content and header included, is in
    `Clip.info`.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        """`config` has the settings of `bcd`, `model`, the probability model of the motion codes, and `content_crf`."""
        super().__init__(config)
        settings = dict(config)
        self.model = str(settings.pop("model", "context"))
        if self.model not in MODELS:
            raise UsageError(f"bcd-bitstream: --set model={self.model}: choose one of: {', '.join(MODELS)}")
        self.content_crf: int | None = settings.pop("content_crf", None)
        if self.content_crf is not None and self.content_crf not in range(64):
            raise UsageError(f"bcd-bitstream: --set content_crf={self.content_crf}: a whole number from 0 to 63")
        self.method = BCDMethod(settings)

    def load(self, weights: Path | None, device: str) -> None:
        """Load BCD weights, and their motion model if `model` needs one. Raises `UsageError` if there is none."""
        self.method.load(weights, device)
        needs = self.model in ("static", "autoregressive")
        self.motion_model = motion_model(None, self.method.loaded.codes_sha256) if needs else None

    @property
    def frame_size(self) -> tuple[int, int] | None:
        """Height and width in pixels that the weights were trained at."""
        return self.method.frame_size

    def transfer(self, pairs: Sequence[Pair], *, seed: int) -> Iterator[Clip | Failed]:
        """Yield one decoded clip per pair."""
        for pair in pairs:
            content, motion = pair.content.load(), pair.motion.load()
            try:
                encoded = encode_clip(
                    self.method,
                    content.frames,
                    motion.frames,
                    motion.fps,
                    seed=pair_seed(seed, pair.id),
                    model=self.model,
                    motion_model=self.motion_model,
                    content_crf=self.content_crf,
                )
            except UsageError as error:
                yield Failed(str(error))
                continue
            decoded = decode_clip(self.method, encoded.data, motion_model=self.motion_model)
            yield Clip(decoded.frames, motion.fps, pair.id, {BYTES_KEY: len(encoded.data)})
