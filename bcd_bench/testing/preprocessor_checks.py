"""Checks of preprocessors: crops within the frame, reproducible, and a clear refusal of clips without the subject."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import AssetStore
from bcd_bench.plugin.loading import load_factory
from bcd_bench.types.crop import Crop
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.testing.check import Subject

__all__ = ["CHECKS"]

SIZES = ((64, 64), (200, 120))


@dataclass(frozen=True)
class _Frame:
    rgb: npt.NDArray[np.uint8]


def _loaded(subject: Subject) -> Any:
    store = AssetStore(subject.registry)
    preprocessor = load_factory(subject.spec.factory)()
    preprocessor.load({asset: store.find(asset) for asset in subject.spec.assets})
    return preprocessor


def _find(preprocessor: Any, frames: npt.NDArray[np.uint8]) -> Crop | str:
    """The crop, or the reason for refusing the clip."""
    try:
        crop = preprocessor.find([_Frame(frame) for frame in frames])
    except UsageError as error:
        return str(error)
    assert isinstance(crop, Crop), f"find returned {type(crop).__name__}, not a Crop"
    return crop


def size_and_rate_are_usable(subject: Subject) -> None:
    """`size` and `fps` are positive."""
    assert all(side > 0 for side in subject.spec.size)
    assert 0 < subject.spec.fps < 1000


def crops_lie_within_the_frame(subject: Subject) -> None:
    """Noise and blank frames of any size give a crop within the frame, or a `UsageError` with a reason; no other
    exception."""
    preprocessor = _loaded(subject)
    rng = np.random.default_rng(0)
    for height, width in SIZES:
        for frames in (
            np.zeros((2, height, width, 3), np.uint8),
            rng.integers(0, 256, (1, height, width, 3), dtype=np.uint8),
        ):
            crop = _find(preprocessor, frames)
            if isinstance(crop, str):
                assert crop.strip(), "the reason is empty"
                continue
            assert 0 <= crop.left < crop.right <= width, f"{crop} exceeds the width of {width} pixels"
            assert 0 <= crop.top < crop.bottom <= height, f"{crop} exceeds the height of {height} pixels"


def crops_are_reproducible(subject: Subject) -> None:
    """The same clip gives the same crop, whatever was seen before."""
    preprocessor = _loaded(subject)
    frames = np.random.default_rng(1).integers(0, 256, (3, *SIZES[1], 3), dtype=np.uint8)
    first = _find(preprocessor, frames)
    _find(preprocessor, frames[:, ::-1])
    assert _find(preprocessor, frames) == first


CHECKS = (size_and_rate_are_usable, crops_lie_within_the_frame, crops_are_reproducible)
