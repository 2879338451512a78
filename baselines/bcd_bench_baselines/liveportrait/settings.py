"""What `run --set` may change of LivePortrait."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bcd_bench_baselines.common.frame_method import CommonConfig
from bcd_bench_baselines.liveportrait.keypoints import Region

__all__ = ["LivePortraitConfig"]


class LivePortraitConfig(CommonConfig):
    """LivePortrait's own settings; the defaults are those of its command line."""

    batch_frames: int = Field(4, ge=1)
    mode: Literal["relative", "absolute"] = "relative"
    """"relative" adds the driver's motion since its first frame, "absolute" takes its pose and expression."""
    region: Region = "all"
    """Which part of the relative motion is carried over."""
    driving: Literal["expression-friendly", "pose-friendly"] = "expression-friendly"
    """Whether relative motion is scaled by the size of the source's cloud of keypoints over the driver's."""
    multiplier: float = Field(1.0, gt=0)
    """How much of the final motion of the keypoints is made."""
    stitching: bool = True
    """Whether shoulders and neck are kept where the source has them."""
    normalize_lip: bool = False
    """Whether the source's open lips are closed before it is moved (relative motion only)."""
    crop: bool = True
    """Whether the face is cut out by its landmarks, as the network saw faces in training; else whole frames go in."""
    paste_back: bool = True
    """Whether the moved crop is drawn into the source's frame; else the crop itself is the output."""

    @field_validator("region", "normalize_lip")
    @classmethod
    def _of_relative_motion(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("mode") == "absolute" and value not in ("all", False):
            raise ValueError("is for mode=relative")
        return value

    @property
    def wants_landmarks(self) -> bool:
        """Whether any setting needs to know where the face is."""
        return self.crop or self.normalize_lip
