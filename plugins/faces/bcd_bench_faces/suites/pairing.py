"""Which clip drives which: cross-identity pairs around a ring of all clips, and clips that drive themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bcd_bench.types.clip import ClipRef, ClipSource
from bcd_bench.types.pair import Pair

__all__ = ["CROSS_MINIMUM", "DRIVER_FRAMES", "SELF_MINIMUM", "PreparedVideo", "cross_pairs", "self_pairs"]

DRIVER_FRAMES = 50
"""Frames of a driver: the length of the paper's clips (Sec. 4.2, "50 frames for each video clip")."""
CROSS_MINIMUM = 25
"""Frames below which a clip drives nothing: one second, which the mesh metrics need to fit a head."""
SELF_MINIMUM = 2 * CROSS_MINIMUM
"""As `CROSS_MINIMUM`, for a clip that is content and driver."""


@dataclass(frozen=True)
class PreparedVideo:
    """A clip that can be used: `part(start, stop)` is the source of some of its frames."""

    id: str
    subject: str
    name: str
    frames: int
    part: Callable[[int, int], ClipSource]

    def ref(self, start: int, stop: int) -> ClipRef:
        whole = (start, stop) == (0, self.frames)
        name = self.id if whole else f"{self.id}@{start}-{stop}"
        return ClipRef(name, self.part(start, stop), {"subject": self.subject}, frames=stop - start)


def cross_pairs(videos: Sequence[PreparedVideo], *, seed: int, content_frames: int | None = None) -> list[Pair]:
    """Every clip drives once; its content is the next clip of another subject around a ring in seeded order.

    The ring's order comes from a hash of seed and name alone, so a clip that is added or gone changes the pairs of
    its neighbours and no others. Content clips are used about once each. Pairs come in the order of the ring, so that
    the first N are a random sample. `content_frames` keeps the first frames of the content clip (None: all, as
    in Table A5 of the paper). No pairs where all clips are of one subject.
    """
    ring = sorted(videos, key=lambda video: hashlib.sha256(f"{seed}\0{video.subject}\0{video.name}".encode()).digest())
    pairs = []
    for place, driver in enumerate(ring):
        content = _next_of_another(ring, place)
        if content is not None:
            kept = min(content.frames, content_frames or content.frames)
            motion = driver.ref(0, min(driver.frames, DRIVER_FRAMES))
            pairs.append(Pair(f"{content.id}-from-{driver.id}", content.ref(0, kept), motion))
    return pairs


def _next_of_another(ring: Sequence[PreparedVideo], place: int) -> PreparedVideo | None:
    driver = ring[place]
    for step in range(1, len(ring)):
        other = ring[(place + step) % len(ring)]
        if other.subject != driver.subject:
            return other
    return None


def self_pairs(videos: Sequence[PreparedVideo], *, seed: int) -> list[Pair]:
    """The first half of each clip as content, its second half (at most `DRIVER_FRAMES`) as driver and exact target.

    The halves are those of the paper's cross-driven training (Sec. 3.4). Order as in `cross_pairs`.
    """
    ring = sorted(videos, key=lambda video: hashlib.sha256(f"{seed}\0{video.subject}\0{video.name}".encode()).digest())
    pairs = []
    for video in ring:
        half = video.frames // 2
        motion = video.ref(half, min(video.frames, half + DRIVER_FRAMES))
        pairs.append(Pair(video.id, video.ref(0, half), motion, motion))
    return pairs
