"""Clips of any size and rate, made what a method expects: cropped as its suites are, or around the centre; resized."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from bcd_bench.assets.store import AssetStore
from bcd_bench.inference.source import Source
from bcd_bench.io.inputs import central_crop
from bcd_bench.io.rgb import resize_frame
from bcd_bench.plugin.base import LazyFrame
from bcd_bench.plugin.loading import load_factory, plugin_code
from bcd_bench.types.clip import Clip
from bcd_bench.types.crop import Crop
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:
    from bcd_bench.plugin.registry import Registry
    from bcd_bench.plugin.specs import MethodSpec, PreprocessorSpec

__all__ = ["Cropper", "PreparedClip", "prepare", "preprocessor_of"]

LARGEST = 4 << 30
"""Bytes of the frames of one clip: a method gets all of them at once."""
Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class PreparedClip:
    """A clip as a method gets it, and where it was cut from."""

    clip: Clip
    source: Source
    crop: Crop
    """In pixels of the source's frames."""
    found: bool
    """Whether a preprocessor found the crop; False if it is the centre of the frame."""


class Cropper:
    """A preprocessor, loaded when it is first needed."""

    def __init__(self, registry: Registry, spec: PreprocessorSpec) -> None:
        self.spec = spec
        self._registry = registry
        self._loaded: Any = None

    def find(self, frames: Iterable[LazyFrame], name: str) -> Crop:
        """The crop of a clip. Raises `UsageError` with the name and the reason, `MissingAssetError` for a missing
        asset."""
        what = f"preprocessor {self.spec.name!r}"
        if self._loaded is None:
            store = AssetStore(self._registry)
            assets = {asset: store.find(asset) for asset in self.spec.assets}
            with plugin_code(what, "cannot be loaded"):
                self._loaded = load_factory(self.spec.factory)()
                self._loaded.load(assets)
        read = _Reading(frames)
        try:
            with plugin_code(what, "failed"):
                crop: Crop = self._loaded.find(read)
                return crop
        except UsageError as error:
            if read.error is not None:
                raise read.error from None
            hint = error.hint or "use --no-crop (crop=False) for clips that are cropped already"
            raise UsageError(f"{name}: {error}", hint=hint) from error


class _Reading:
    """Frames that remember if reading them failed, so that the preprocessor is not blamed for it."""

    def __init__(self, frames: Iterable[LazyFrame]) -> None:
        self._frames = frames
        self.error: UsageError | None = None

    def __iter__(self) -> Iterator[LazyFrame]:
        try:
            yield from self._frames
        except UsageError as error:
            self.error = error
            raise


def preprocessor_of(
    registry: Registry, spec: MethodSpec, *, suites: Iterable[str] = ()
) -> tuple[PreprocessorSpec | None, str]:
    """The preprocessor for clips of a method whose weights are for `suites`, and a note for the user (or "").

    Weights for all suites ("*") and methods without weights use that of the method. Raises `UsageError` if the method
    names one that no installed plugin provides.
    """
    suites = list(suites)
    named = [name for name in suites if name != "*"]
    if not named:
        if not spec.preprocessor:
            return None, ""
        if spec.preprocessor not in registry.preprocessors:
            raise UsageError(
                f"no installed plugin provides {spec.preprocessor!r}, the preprocessor of method {spec.name!r}",
                hint=f"pip install bcd-bench-{spec.preprocessor}, or use --no-crop (crop=False)",
            )
        return registry.preprocessor(spec.preprocessor), ""
    known = [registry.suites[name] for name in named if name in registry.suites]
    for suite in known:
        if suite.preprocessor:
            return registry.preprocessor(suite.preprocessor), ""
    if not known:
        return None, f"clips are not cropped: no installed plugin provides the suite {named[0]!r} of the weights"
    return None, ""


def prepare(
    source: Source, size: tuple[int, int], fps: float, *, cropper: Cropper | None, limit: int | None = None
) -> PreparedClip:
    """Crop, resize and resample a source to `size` (height, width) and `fps`; only its small frames are in memory.

    Without a `cropper` the centre is used. Raises `UsageError` for a source that cannot be read, has no frame, or has
    more frames than fit into memory.
    """
    crop = None if cropper is None else cropper.find(source.frames(fps, limit), source.name)
    small: list[Frame] = []
    last: LazyFrame | None = None
    for frame in source.frames(fps, limit):
        if frame is not last:
            rgb = frame.rgb
            if crop is None:
                crop = central_crop(rgb.shape[0], rgb.shape[1], size)
            part = rgb[crop.top : crop.bottom, crop.left : crop.right]
            resized = resize_frame(np.ascontiguousarray(part), size)
            last = frame
        small.append(resized)
        if len(small) * resized.nbytes > LARGEST:
            raise UsageError(
                f"{source.name} is too long: {len(small)} frames of {size[1]}x{size[0]} pixels do not fit into memory",
                hint=f"--frames {len(small) // 2} uses only its start",
            )
    if not small or crop is None:
        raise UsageError(f"{source.name} has no frame")
    clip = Clip(
        np.stack(small), fps if source.is_video else source.fps, "" if source.path is None else source.path.stem
    )
    return PreparedClip(clip, source, crop, cropper is not None)
