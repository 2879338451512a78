"""Settings of LivePortrait that `run --set` may change."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from bcd_bench_baselines.common.frame_method import CommonConfig
from bcd_bench_baselines.liveportrait.keypoints import Region

__all__ = ["LivePortraitConfig"]


class LivePortraitConfig(CommonConfig):
    """Settings specific to LivePortrait; the defaults are those of its command line."""

    batch_frames: int = Field(4, ge=1)
    mode: Literal["relative", "absolute"] = "relative"
    """"relative" adds the driving motion since the first frame, "absolute" uses the driving pose and expression."""
    region: Region = "all"
    """Part of the relative motion that is transferred."""
    driving: Literal["expression-friendly", "pose-friendly"] = "expression-friendly"
    """Whether to scale relative motion by the ratio of the point cloud sizes of source and driving clip."""
    multiplier: float = Field(1.0, gt=0)
    """Factor on the final motion of the keypoints."""
    stitching: bool = True
    """Whether to keep shoulders and neck as in the source."""
    normalize_lip: bool = False
    """Whether to close the source's open lips before it is moved (relative motion only)."""
    crop: bool = True
    """Whether to crop the face by its landmarks, as in the training data; else whole frames are used."""
    paste_back: bool = True
    """Whether to paste the result back into the source's frame; else the crop itself is the output."""

    @field_validator("region", "normalize_lip")
    @classmethod
    def _of_relative_motion(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("mode") == "absolute" and value not in ("all", False):
            raise ValueError("requires mode=relative")
        return value

    @property
    def wants_landmarks(self) -> bool:
        """Whether any setting requires face landmarks."""
        return self.crop or self.normalize_lip
