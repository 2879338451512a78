"""Head poses of real people, corrected by a second landmark detector.

`landmark_motion` reads poses from dense landmarks by a network that has only seen rendered heads. On real people it
takes part of a face's proportions for pitch: each person's is off by a few degrees, in all frames alike, and a transfer
is off by the difference between two people. A detector that was trained on real people (MediaPipe's) is off less, and
independently. So the head model is fitted to both kinds of landmarks of some frames, and the mean rotation from one
pose to the other turns the pose of the whole clip before it is encoded. This is done for the driving clip and for the
content, each on its own, so that codes remain independent of the content. The positions in content frames at which
pixels are looked up are not turned.

A third detector, 3DDFA_V2, which neither the weights nor this extension use, decides by how much: on clips of 70
people, the difference between its mean pose and that of the dense landmarks is best predicted by 0.95 [0.82, 1.09]
(pitch), 1.04 [0.73, 1.31] (yaw) and 0.93 [0.64, 1.20] (roll) times that between MediaPipe's and theirs, hence the share
of 1. The standard deviation of what remains is 2.5, 2.1 and 0.9 degrees instead of 4.6, 3.3 and 1.7.

On rendered heads the dense landmarks are exact and the other detector is not, so weights for them do not have it.

The extension has no weights. It is in `faces-landmarks`, which has those of `heads-landmarks`; its measured effect is
in their model card.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from bcd_bench_bcd.extensions.base import Extension

__all__ = ["PoseCorrection"]


class PoseCorrection(Extension):
    name: ClassVar[str] = "pose_correction"
    summary: ClassVar[str] = "head poses of real people corrected by a second landmark detector"
    needs_pixels: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True
    added_to: ClassVar[str] = "landmark_motion"

    share: float = Field(default=1.0, ge=0, le=1)
    """Share of the difference that is applied: 1 takes the mean pose of the second detector."""
    frames: int = Field(default=8, ge=1)
    """Frames of a clip to which the head model is fitted, evenly spread."""
    limit: float = Field(default=15.0, gt=0)
    """Greatest correction in degrees, about any axis; more is the error of a fit."""
