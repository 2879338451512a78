"""Fixtures for the fidelity tests: seeded weights in a file, golden values, and items with features of our making."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bcd_bench.plugin.protocols import Scored
from bcd_bench.testing.synthetic import practice_pairs
from bcd_bench.types.clip import Clip
from bcd_bench.types.failed import Failed
from bcd_bench.types.pair import Pair
from tests.fidelity.make_golden import GOLDEN
from tests.fidelity.seeded import seeded_inception

MakeItem = Callable[..., Scored]


@pytest.fixture(scope="session")
def golden() -> Mapping[str, Any]:
    with np.load(GOLDEN) as data:
        return dict(data)


@pytest.fixture(scope="session")
def seeded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seeded weights under the name of the real ones."""
    path = tmp_path_factory.mktemp("weights") / "pt_inception-2015-12-05-6726825d.pth"
    torch.save(seeded_inception(), path)
    return path


@pytest.fixture(scope="session")
def make_item() -> MakeItem:
    """A pair with the given features of its output and its target, float32[T, D] or Failed."""
    practice = practice_pairs(1)[0]

    def make(number: int, extractor: str, output: Any, target: Any) -> Scored:
        pair = Pair(f"p{number:03d}", _subject(practice, number), practice.motion, practice.target)
        features = {role: _wrapped(value) for role, value in (("output", output), ("target", target))}
        return Scored(pair, Clip(np.zeros((2, 8, 8, 3), np.uint8), 8.0), {extractor: features})

    return make


def _subject(practice: Pair, number: int) -> Any:
    from dataclasses import replace

    return replace(practice.content, labels={"subject": f"s{number // 2}"})


def _wrapped(value: Any) -> Any:
    return value if isinstance(value, Failed) else {"features": value}
