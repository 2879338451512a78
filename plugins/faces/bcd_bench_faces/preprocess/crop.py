"""One fixed square crop around the face of a video, framed as in LRS3."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from bcd_bench import Crop, Preprocessor
from bcd_bench.types.errors import UsageError
from bcd_bench_faces.assets import FACE_LANDMARKER

if TYPE_CHECKING:
    from bcd_bench.plugin.base import LazyFrame
    from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker

__all__ = ["FaceCropper", "FaceFollower", "NoCropError", "square_crop"]

MARGIN = 1.7
"""Side of the crop relative to the longer side of the box of the face landmarks (forehead to chin), as in LRS3."""
RAISED = 0.1
"""Offset of the crop's centre above the face's, in the same unit: hair needs more room than the neck."""
SMALLEST = 64
"""Minimum side of a crop in pixels; with fewer, a face of 256 x 256 would be mostly interpolated."""
WIDEST = 2.0
"""A moving head whose crop would be more than this many times wider than for a still head needs a moving crop."""
LOOK_EVERY = 8
"""The face is detected in every eighth frame."""
CROWDED = "a second face was detected; the largest one is used"
NEEDED = 0.5
"""Minimum fraction of the inspected frames in which the face must be found."""


class NoCropError(ValueError):
    """No fixed crop fits; the message is the reason."""


@dataclass(frozen=True)
class Box:
    """A face in pixels: left, top, right, bottom."""

    edges: npt.NDArray[np.float64]

    @property
    def middle(self) -> npt.NDArray[np.float64]:
        return (self.edges[:2] + self.edges[2:]) / 2

    @property
    def side(self) -> float:
        return float(max(self.edges[2:] - self.edges[:2]))


class FaceFollower:
    """Follows one face through frames: the largest of the first frame that has one, then the closest to it."""

    def __init__(self, landmarker: FaceLandmarker) -> None:
        self._landmarker = landmarker
        self.boxes: list[Box] = []
        self.looked_at = 0
        self.crowded = False
        """Whether a second face was detected."""

    def look(self, frame: npt.NDArray[np.uint8]) -> None:
        """Add a frame uint8[H, W, 3] RGB."""
        self.looked_at += 1
        last = self.boxes[-1] if self.boxes else None
        for windows in _windows(frame.shape[0], frame.shape[1], last):
            faces = self._faces(frame, windows)
            if faces:
                self.crowded |= len(faces) > 1
                if last is None:
                    self.boxes.append(max(faces, key=lambda box: box.side))
                else:
                    self.boxes.append(min(faces, key=lambda box: float(np.linalg.norm(box.middle - last.middle))))
                return

    def follow(self, frames: Iterable[LazyFrame]) -> tuple[int, tuple[int, int]]:
        """Look at every eighth of the frames, from the first. Returns their number, and (height, width) in pixels."""
        length, size = 0, (0, 0)
        for frame in frames:
            if length % LOOK_EVERY == 0:
                size = frame.rgb.shape[0], frame.rgb.shape[1]
                self.look(frame.rgb)
            length += 1
        return length, size

    def _faces(self, frame: npt.NDArray[np.uint8], windows: list[tuple[int, int, int, int]]) -> list[Box]:
        """The faces in some windows of the frame, without duplicates."""
        boxes: list[Box] = []
        for left, top, right, bottom in windows:
            for face in self._landmarker.detect(frame[top:bottom, left:right]):
                points = face.points[:, :2].astype(np.float64) + np.array((left, top))
                box = Box(np.concatenate([points.min(axis=0), points.max(axis=0)]))
                if all(
                    np.linalg.norm(box.middle - box_before.middle) > max(box.side, box_before.side) / 2
                    for box_before in boxes
                ):
                    boxes.append(box)
        return boxes


def _windows(height: int, width: int, last: Box | None) -> Iterator[list[tuple[int, int, int, int]]]:
    """Sets of windows to search, in order: the detector misses faces much smaller than its frame.

    Around the last face, the whole frame, squares as high as the frame, squares of half that side.
    """
    if last is not None:
        reach = 1.5 * last.side
        left, top = (int(max(0, edge)) for edge in last.middle - reach)
        right, bottom = (int(edge) for edge in np.minimum(last.middle + reach, (width, height)))
        if right > left and bottom > top:
            yield [(left, top, right, bottom)]
    yield [(0, 0, width, height)]
    short = min(height, width)
    for side in (short, short // 2):
        if side >= 2 * SMALLEST and side < max(height, width):
            yield [
                (left, top, left + side, top + side) for top in _starts(height, side) for left in _starts(width, side)
            ]


def _starts(length: int, side: int) -> list[int]:
    """Evenly spread starts of windows that overlap by at least half."""
    count = -(-(length - side) // (side // 2)) + 1
    return [round(start) for start in np.linspace(0, length - side, count)]


def square_crop(follower: FaceFollower, height: int, width: int) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) of the crop in frames of this size. Raises `NoCropError` with the reason.

    Its centre and side are based on medians over the inspected frames; it is widened until it contains every detected
    face, then moved, and finally shrunk, to lie within the frame, so that no border has to be filled.
    """
    boxes = follower.boxes
    if not boxes:
        raise NoCropError("no face was found")
    if len(boxes) < NEEDED * follower.looked_at:
        raise NoCropError(f"a face was found in only {len(boxes)} of {follower.looked_at} inspected frames")
    size = float(np.median([box.side for box in boxes]))
    middle = np.median([box.middle for box in boxes], axis=0) - (0, RAISED * size)
    edges = np.array([box.edges for box in boxes])
    low, high = edges[:, :2].min(axis=0), edges[:, 2:].max(axis=0)
    contained = 2 * float(np.max(np.maximum(middle - low, high - middle)))
    side = max(MARGIN * size, contained)
    if side > WIDEST * MARGIN * size:
        raise NoCropError("the head moves too far for one fixed crop")
    crop_side = min(round(side), height, width)
    if crop_side < SMALLEST:
        raise NoCropError(f"the face is too small (the crop has {crop_side} pixels, at least {SMALLEST} are required)")
    left, top = (
        int(np.clip(round(centre - crop_side / 2), 0, length - crop_side))
        for centre, length in zip(middle, (width, height), strict=True)
    )
    return left, top, left + crop_side, top + crop_side


class FaceCropper(Preprocessor):
    """The preprocessor `faces`: the crop of `clips-cross` and `clips-self`, for clips of any length and photos."""

    def load(self, assets: Mapping[str, Path]) -> None:
        from bcd_bench_faces.landmarks.mediapipe import FaceLandmarker

        self._landmarker = FaceLandmarker(assets[FACE_LANDMARKER.name])

    def find(self, frames: Iterable[LazyFrame]) -> Crop:
        """One fixed square around the face. Raises `UsageError` as `square_crop` raises `NoCropError`."""
        follower = FaceFollower(self._landmarker)
        _, size = follower.follow(frames)
        try:
            return Crop(*square_crop(follower, *size), notes=(CROWDED,) if follower.crowded else ())
        except NoCropError as error:
            raise UsageError(str(error)) from None
