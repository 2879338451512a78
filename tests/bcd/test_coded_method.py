"""The method `bcd-bitstream`: its outputs are those of `bcd`, byte for byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcd_bench.types.clip import Clip, ClipRef
from bcd_bench.types.errors import UsageError
from bcd_bench.types.pair import Pair
from bcd_bench_bcd.bitstream.method import BYTES_KEY, CodedBCD
from bcd_bench_bcd.inference.method import BCDMethod
from bcd_bench_bcd.inference.weights import save_model
from tests.bcd.conftest import BlockClips, description_of, tiny_model


class Source:
    def __init__(self, frames: Any) -> None:
        self.frames = frames

    def load(self) -> Clip:
        return Clip(self.frames, 8.0)

    def describe(self) -> dict[str, Any]:
        return {}


def test_outputs_are_those_of_bcd(tmp_path: Path) -> None:
    model = tiny_model()
    save_model(tmp_path / "bcd.safetensors", model, description_of(model), {"suite": "blocks"})
    clips = BlockClips().clips([0, 1, 2])
    pairs = [Pair(str(i), ClipRef(f"c{i}", Source(clips[i])), ClipRef(f"m{i}", Source(clips[i + 1]))) for i in range(2)]
    outputs = []
    for method in (BCDMethod({}), CodedBCD({}), CodedBCD({"model": "adaptive"})):
        method.load(tmp_path / "bcd.safetensors", "cpu")
        outputs.append([clip for pair in pairs for clip in method.transfer([pair], seed=3)])  # as coded, one by one
    for plain, *coded in zip(*outputs, strict=True):
        for clip in coded:
            assert isinstance(clip, Clip)
            assert np.array_equal(clip.frames, plain.frames)  # type: ignore[union-attr]
            assert clip.info[BYTES_KEY] > 100
    with pytest.raises(UsageError, match="choose one of: adaptive, context"):
        CodedBCD({"model": "huffman"})
