"""Pairing of clips: cross-identity pairs around a ring of all clips, and clips that drive themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bcd_bench.types.clip import ClipRef, ClipSource
from bcd_bench.types.pair import Pair

__all__ = ["CROSS_MINIMUM", "DRIVER_FRAMES", "SELF_MINIMUM", "PreparedVideo", "cross_pairs", "self_pairs"]

DRIVER_FRAMES = 50
"""Frames of a driving clip: the length of the paper's clips (Sec. 4.2, "50 frames for each video clip")."""
CROSS_MINIMUM = 25
"""Minimum frames of a driving clip: one second, which the mesh metrics need to fit a head."""
SELF_MINIMUM = 2 * CROSS_MINIMUM
"""As `CROSS_MINIMUM`, for a clip that is both content and driving clip."""


@dataclass(frozen=True)
class PreparedVideo:
    """A usable clip: `part(start, stop)` is the source of a range of its frames."""

    id: str
    subject: str
    name: str
    frames: int
    part: Callable[[int, int], ClipSource]

    def ref(self, start: int, stop: int) -> ClipRef:
        complete = (start, stop) == (0, self.frames)
        name = self.id if complete else f"{self.id}@{start}-{stop}"
        return ClipRef(name, self.part(start, stop), {"subject": self.subject}, frames=stop - start)


def cross_pairs(
    videos: Sequence[PreparedVideo],
    *,
    seed: int,
    content_frames: int | None = None,
    photos: Sequence[PreparedVideo] = (),
) -> list[Pair]:
    """Pairs in which every clip drives once; its content is the next clip of another subject around a shuffled ring.

    The ring's order comes from a hash of seed and name alone, so adding or removing a clip changes only the pairs of
    its neighbours. Content clips are used about once each. Pairs follow the order of the ring, so that the first N are
    a random sample. `content_frames` is the number of leading frames of the content clip to use (None: all, as in Table
    A5 of the paper). Each of `photos` is content once as well, driven by the next video of another subject from its own
    place in the order; the pairs of the videos stay as they are. The result is empty if everything is of one subject.
    """
    ring = sorted(videos, key=lambda video: _place(video, seed))
    pairs: list[tuple[bytes, Pair]] = []

    def add(place: bytes, content: PreparedVideo | None, driver: PreparedVideo | None) -> None:
        if content is not None and driver is not None:
            content_length = min(content.frames, content_frames or content.frames)
            motion = driver.ref(0, min(driver.frames, DRIVER_FRAMES))
            pairs.append((place, Pair(f"{content.id}-from-{driver.id}", content.ref(0, content_length), motion)))

    for position, driver in enumerate(ring):
        add(_place(driver, seed), _next_of_another(ring, position), driver)
    for photo in photos:
        place = _place(photo, seed)
        later = [video for video in ring if _place(video, seed) > place]
        others = [video for video in [*later, *ring] if video.subject != photo.subject]
        add(place, photo, others[0] if others else None)
    return [pair for _, pair in sorted(pairs, key=lambda item: item[0])]


def _place(video: PreparedVideo, seed: int) -> bytes:
    """The key by which clips are ordered."""
    return hashlib.sha256(f"{seed}\0{video.subject}\0{video.name}".encode()).digest()


def _next_of_another(ring: Sequence[PreparedVideo], place: int) -> PreparedVideo | None:
    driver = ring[place]
    for step in range(1, len(ring)):
        candidate = ring[(place + step) % len(ring)]
        if candidate.subject != driver.subject:
            return candidate
    return None


def self_pairs(videos: Sequence[PreparedVideo], *, seed: int) -> list[Pair]:
    """The first half of each clip as content, its second half (at most `DRIVER_FRAMES`) as driving clip and target.

    The halves are those of the paper's cross-driven training (Sec. 3.4). Same order as in `cross_pairs`.
    """
    ring = sorted(videos, key=lambda video: _place(video, seed))
    pairs = []
    for video in ring:
        half = video.frames // 2
        motion = video.ref(half, min(video.frames, half + DRIVER_FRAMES))
        pairs.append(Pair(video.id, video.ref(0, half), motion, motion))
    return pairs
