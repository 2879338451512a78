"""What flows through the harness: clips, references to clips, pairs and suites. NumPy only."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, runtime_checkable

from bcd_bench.errors import UsageError
from bcd_bench.isolation import PluginScope

if TYPE_CHECKING:  # NumPy is imported where a clip is made, so that listing plugins stays fast
    import numpy as np
    import numpy.typing as npt

    from bcd_bench.perturbations import Perturbation

__all__ = [
    "READER",
    "Clip",
    "ClipRef",
    "ClipSource",
    "Failed",
    "Generated",
    "Pair",
    "ReadOnlyDict",
    "Suite",
    "VideoFile",
    "read_only",
]

READER = "2"
"""Bump with every change of the pixels that reading or resizing a video gives; part of what is made of videos."""


class ReadOnlyDict(dict[str, Any]):
    """A mapping that cannot be written to; a copy of it, or one in another process, is a plain dict."""

    def _refuse(self, *args: object, **named: object) -> NoReturn:
        raise TypeError("this mapping is read-only: work on a copy")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


@dataclass(frozen=True, eq=False)
class Clip:
    """A short RGB video in memory.

    `frames` is `uint8[T, H, W, 3]` (RGB, 0..255) with T >= 1; `fps` is frames per second. `info` holds what a method
    says of an output beside its pixels (JSON values, such as motion codes), for metrics to look at.
    Raises `ValueError` where the array is of another shape or type.
    """

    frames: npt.NDArray[np.uint8]
    fps: float
    id: str = ""
    info: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        import numpy as np

        frames = self.frames
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            found = getattr(frames, "dtype", type(frames))
            raise ValueError(f"clip {self.id!r}: frames must be a uint8 array, not {found}")
        if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
            found = list(frames.shape)
            raise ValueError(f"clip {self.id!r}: frames must be [T, H, W, 3] with no empty axis, not {found}")

    def __len__(self) -> int:
        return int(self.frames.shape[0])

    @cached_property
    def sha256(self) -> str:
        """Content hash over shape and pixels (the frame rate and the id do not enter)."""
        import numpy as np

        digest = hashlib.sha256(json.dumps(list(self.frames.shape)).encode())
        digest.update(np.ascontiguousarray(self.frames).data)
        return digest.hexdigest()


def read_only(clip: Clip) -> Clip:
    """The same clip with frames that cannot be written to, so that no code that gets it changes what others see."""
    frames = clip.frames.view()
    frames.flags.writeable = False
    return Clip(frames, clip.fps, clip.id, clip.info)


@dataclass(frozen=True)
class Failed:
    """A pair, feature or value that could not be had. Counted as missing coverage, never averaged in as 0."""

    reason: str


@runtime_checkable
class ClipSource(Protocol):
    """Where a clip's pixels come from. `describe` enters the manifest hash, so it must be canonical and path-free."""

    def load(self) -> Clip: ...

    def describe(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class VideoFile:
    """A range of frames of a video file, decoded through PyAV.

    `start`/`stop` are frame indices, `crop` is (left, top, right, bottom) in pixels of the upright frame, `size`
    is (height, width) after the resize. `content_sha256` of the file stands for the path in the manifest.
    """

    path: Path
    content_sha256: str
    start: int = 0
    stop: int | None = None
    crop: tuple[int, int, int, int] | None = None
    size: tuple[int, int] | None = None

    def load(self) -> Clip:
        from bcd_bench.video import read_video

        return read_video(self.path, start=self.start, stop=self.stop, crop=self.crop, size=self.size)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "video",
            "reader": READER,
            "sha256": self.content_sha256,
            "start": self.start,
            "stop": self.stop,
            "crop": None if self.crop is None else list(self.crop),
            "size": None if self.size is None else list(self.size),
        }


@dataclass(frozen=True)
class Generated:
    """A clip that a suite draws or composes itself: `function` is "package.module:name", called with `arguments`.

    Only suite plugins make these; a manifest read from a file is never executed. Arguments are JSON values.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> Clip:
        module, _, name = self.function.partition(":")
        clip = getattr(importlib.import_module(module), name)(**self.arguments)
        if not isinstance(clip, Clip):
            raise TypeError(f"{self.function} returned {type(clip).__name__}, not a Clip")
        return clip

    def describe(self) -> dict[str, Any]:
        return {"kind": "generated", "function": self.function, "arguments": dict(self.arguments)}


@dataclass(frozen=True)
class ClipRef:
    """A clip by reference: an id, a source that loads it lazily, its labels, and (where known) its content hash."""

    id: str
    source: ClipSource
    labels: Mapping[str, str | int] = field(default_factory=dict)
    sha256: str | None = None
    frames: int | None = None
    """Length in frames, where the suite knows it: saves decoding the driver only to check an output's length."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", ReadOnlyDict(self.labels))  # they decide clusters, so nobody changes them

    def load(self) -> Clip:
        """Decode or draw the clip; its frames are read-only. Raises `UsageError` where its content is not what `sha256`
        promised."""
        with PluginScope():  # sources are code of suites
            clip = self.source.load()
        if self.sha256 is not None and clip.sha256 != self.sha256:
            found, expected = clip.sha256[:12], self.sha256[:12]
            raise UsageError(f"clip {self.id}: its pixels have changed (sha256 {found}, expected {expected})")
        return read_only(Clip(clip.frames, clip.fps, self.id))

    def describe(self) -> dict[str, Any]:
        return {"id": self.id, "source": self.source.describe(), "labels": dict(self.labels), "sha256": self.sha256}


@dataclass(frozen=True)
class Pair:
    """One case: put the motion of `motion` onto the content of `content`; `target` is the exact answer, if known."""

    id: str
    content: ClipRef
    motion: ClipRef
    target: ClipRef | None = None
    labels: Mapping[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "labels", ReadOnlyDict(self.labels))

    @property
    def cluster(self) -> str:
        """The content identity, by which intervals are clustered (label `subject` of the content clip, else its id)."""
        return str(self.content.labels.get("subject", self.content.id))

    def describe(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "content": self.content.describe(),
            "motion": self.motion.describe(),
            "target": None if self.target is None else self.target.describe(),
            "labels": dict(self.labels),
        }


@dataclass(frozen=True)
class Suite:
    """A named, versioned list of pairs: the same everywhere, proven by `manifest_sha256`.

    `size` is (height, width) in pixels of every output, `fps` its frame rate, `default_metrics` the metrics a plain
    run scores. Pair ids are unique and safe as file names.
    """

    name: str
    version: str
    pairs: Sequence[Pair]
    size: tuple[int, int]
    fps: float
    default_metrics: tuple[str, ...] = ()
    seed: int = 0
    summary: str = ""
    notes: tuple[str, ...] = ()
    """What the user should know of how it was built, such as files left out and why; no part of the manifest."""
    perturbations: tuple[Perturbation, ...] = ()
    """Faults that only this suite can draw, for `validate-metrics`; no part of the manifest."""

    @cached_property
    def manifest_sha256(self) -> str:
        """sha256 over the canonical JSON lines of all pairs, streamed so that large suites stay small in memory."""
        digest = hashlib.sha256()
        head = {"name": self.name, "version": self.version, "size": list(self.size), "fps": self.fps, "seed": self.seed}
        for record in (head, *(pair.describe() for pair in self.pairs)):
            digest.update(json.dumps(record, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        return digest.hexdigest()
