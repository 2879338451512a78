"""Core data types: clips, references to clips, and clip sources. NumPy only."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

from bcd_bench.plugin.isolation import PluginScope
from bcd_bench.types.errors import UsageError

if TYPE_CHECKING:  # NumPy is imported only when a clip is created, so that listing plugins stays fast
    import numpy as np
    import numpy.typing as npt


__all__ = ["Clip", "ClipRef", "ClipSource", "Generated", "ReadOnlyDict", "read_only"]


class ReadOnlyDict(dict[str, Any]):
    """A read-only mapping; a copy of it, also in another process, is a plain dict."""

    def _refuse(self, *args: object, **named: object) -> NoReturn:
        raise TypeError("this mapping is read-only: work on a copy")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


@dataclass(frozen=True, eq=False)
class Clip:
    """A short RGB video in memory.

    `frames` is `uint8[T, H, W, 3]` (RGB, 0..255) with T >= 1; `fps` is frames per second. `info` contains additional
    data that a method returns with an output (JSON values, such as motion codes), for use by metrics. Raises
    `ValueError` if the array has a different shape or dtype.
    """

    frames: npt.NDArray[np.uint8]
    fps: float
    id: str = ""
    info: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        import numpy as np

        frames = self.frames
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            actual = getattr(frames, "dtype", type(frames))
            raise ValueError(f"clip {self.id!r}: frames must be a uint8 array, not {actual}")
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            actual = list(frames.shape)
            raise ValueError(f"clip {self.id!r}: frames must be [T, H, W, 3] with no empty axis, not {actual}")

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    @cached_property
    def sha256(self) -> str:
        """Content hash over shape and pixels (the frame rate and the id are not included)."""
        import numpy as np

        digest = hashlib.sha256(json.dumps(list(self.frames.shape)).encode())
        digest.update(np.ascontiguousarray(self.frames).data)
        return digest.hexdigest()


def read_only(clip: Clip) -> Clip:
    """The same clip with read-only frames, so that no code can modify the frames that others use."""
    frames = clip.frames.view()
    frames.flags.writeable = False
    return Clip(frames, clip.fps, clip.id, clip.info)


@runtime_checkable
class ClipSource(Protocol):
    """Source of a clip's pixels. `describe` is part of the manifest hash, so it must be canonical and free of paths."""

    def load(self) -> Clip: ...

    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Generated:
    """A clip that a suite renders or composes itself: `function` is "package.module:name", called with `arguments`.

    Only suite plugins create these; a manifest read from a file is never executed. Arguments are JSON values.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    """Replaces `function` in the manifest; set it when code moves, so that the manifest hash does not change."""

    def load(self) -> Clip:
        module, _, name = self.function.partition(":")
        clip = getattr(importlib.import_module(module), name)(**self.arguments)
        if not isinstance(clip, Clip):
            raise TypeError(f"{self.function} returned {type(clip).__name__}, not a Clip")
        return clip

    def describe(self) -> dict[str, Any]:
        return {"kind": "generated", "function": self.name or self.function, "arguments": dict(self.arguments)}


@dataclass(frozen=True)
class ClipRef:
    """A reference to a clip: an id, a source that loads it lazily, its labels, and (if known) its content hash."""

    id: str
    source: ClipSource
    labels: Mapping[str, str | int] = field(default_factory=dict)
    sha256: str | None = None
    frames: int | None = None
    """Length in frames, if the suite knows it: avoids decoding the driving clip only to check an output's length."""

    def __post_init__(self) -> None:
        object.__setattr__(
            self, "labels", ReadOnlyDict(self.labels)
        )  # labels determine the clusters, so they are read-only

    def load(self) -> Clip:
        """Decode or render the clip; its frames are read-only. Raises `UsageError` if its content does not match
        `sha256`."""
        with PluginScope():  # sources run code of suite plugins
            clip = self.source.load()
        if self.sha256 is not None and clip.sha256 != self.sha256:
            actual, expected = clip.sha256[:12], self.sha256[:12]
            raise UsageError(f"clip {self.id}: its pixels differ (sha256 {actual}, expected {expected})")
        return read_only(Clip(clip.frames, clip.fps, self.id))

    def describe(self) -> dict[str, Any]:
        return {"id": self.id, "source": self.source.describe(), "labels": dict(self.labels), "sha256": self.sha256}
