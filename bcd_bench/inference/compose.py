"""What a viewer sees: the output beside its inputs, or pasted back into the frame that the content was cropped from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from bcd_bench.io.rgb import resize_frame
from bcd_bench.types.crop import Crop

__all__ = ["LONGEST_SIDE", "bounded", "held", "paste_back", "side_by_side"]

LONGEST_SIDE = 1920
"""Pixels of a pasted frame: a photo of a phone is larger than what players decode."""
BORDER = 0.1
"""Width of the seam in which the output fades into the frame, relative to the side of the crop."""
Frame = npt.NDArray[np.uint8]


def bounded(frame: Frame, crop: Crop, longest: int = LONGEST_SIDE) -> tuple[Frame, Crop]:
    """A frame uint8 [H, W, 3] no larger than `longest`, with even sides, and the crop in its pixels."""
    height, width = frame.shape[:2]
    scale = min(1.0, longest / max(height, width))
    size = [max(2, round(side * scale) // 2 * 2) for side in (height, width)]
    rows, columns = size[0] / height, size[1] / width
    top, bottom = round(crop.top * rows), max(round(crop.bottom * rows), round(crop.top * rows) + 1)
    left, right = round(crop.left * columns), max(round(crop.right * columns), round(crop.left * columns) + 1)
    return resize_frame(frame, (size[0], size[1])), Crop(left, top, right, bottom)


def paste_back(outputs: Iterable[Frame], frame: Frame, crop: Crop) -> Iterator[Frame]:
    """Yield a copy of `frame` for every output, with the output in place of `crop`.

    The output fades in over a tenth of the crop, but not where the crop ends at the border of the frame. Pixels outside
    the crop are those of `frame`.
    """
    height, width = crop.size
    weight = _weights(crop, frame.shape[0], frame.shape[1])[..., None]
    region = (slice(crop.top, crop.bottom), slice(crop.left, crop.right))
    kept = frame[region].astype(np.float32) * (1 - weight)
    for output in outputs:
        pasted = frame.copy()
        blended = kept + resize_frame(np.ascontiguousarray(output), (height, width)) * weight
        pasted[region] = np.rint(blended).astype(np.uint8)
        yield pasted


def _weights(crop: Crop, rows: int, columns: int) -> npt.NDArray[np.float32]:
    """float32 [height, width] of the crop in 0..1: the share of the output."""
    height, width = crop.size
    down = _ramp(height, crop.top > 0, crop.bottom < rows)
    across = _ramp(width, crop.left > 0, crop.right < columns)
    return np.minimum(down[:, None], across[None])


def _ramp(length: int, start: bool, end: bool) -> npt.NDArray[np.float32]:
    """1 inside, falling to nearly 0 at the start and the end if these are inside the frame."""
    border = max(1.0, BORDER * length)
    position = np.arange(length) + 0.5
    ramp = np.ones(length)
    if start:
        ramp = np.minimum(ramp, position / border)
    if end:
        ramp = np.minimum(ramp, (length - position) / border)
    smooth = np.clip(ramp, 0, 1)
    return (smooth * smooth * (3 - 2 * smooth)).astype(np.float32)


def side_by_side(*clips: Iterable[Frame], height: int) -> Iterator[Frame]:
    """Yield the frames of several clips next to each other, each scaled to `height`, until one of them ends."""
    for frames in zip(*clips, strict=False):
        yield np.concatenate([_scaled(frame, height) for frame in frames], axis=1)


def _scaled(frame: Frame, height: int) -> Frame:
    rows, columns = frame.shape[:2]
    return resize_frame(np.ascontiguousarray(frame), (height, max(2, round(columns * height / rows / 2) * 2)))


def held(frames: Sequence[Frame] | Frame, count: int) -> Iterator[Frame]:
    """The first `count` frames; the last one is repeated if there are fewer."""
    for index in range(count):
        yield frames[min(index, len(frames) - 1)]
