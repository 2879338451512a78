"""Supervise both flow fields of the canonical features by keypoints, which are labels of rendered heads.

From images alone the fields stay at the mean pose for thousands of clips: a blur has a lower error than anything sharp
in the wrong place. A renderer knows the positions of head points in every frame, so both fields are trained to map
these points to the canonical map and back. LivePortrait's training is supervised by landmarks as well (Guo et al.
2024). No model uses keypoints at inference.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from bcd_bench_bcd.extensions.base import Extension, Recipe, StepState
from bcd_bench_bcd.extensions.canonical_features import keypoint_error
from bcd_bench_bcd.extensions.symmetric_halves import SymmetricHalves

__all__ = ["KeypointSupervision"]


class KeypointSupervision(Extension):
    name: ClassVar[str] = "keypoint_supervision"
    summary: ClassVar[str] = "flow fields learn from keypoints of rendered heads (labels)"
    logged: ClassVar[tuple[str, ...]] = ("keypoints",)
    labels: ClassVar[bool] = True
    needs_random_order: ClassVar[bool] = True

    weight: float = Field(default=1.0, gt=0)
    """Weight of the mean distance of both fields to the keypoints; 2 is a whole side."""

    def check(self, preset: Recipe) -> None:
        names = preset.extensions.names
        if "canonical_features" not in names:
            raise ValueError("keypoint_supervision requires canonical_features")
        if "same_identity_pairs" not in names:
            raise ValueError("keypoint_supervision requires same_identity_pairs, which provides the keypoints")
        symmetric = preset.extensions.get(SymmetricHalves)
        if symmetric is not None and not symmetric.both:
            raise ValueError("keypoint_supervision cannot be combined with symmetric_halves.mode=random")

    def after_quantizer(self, state: StepState) -> None:
        if state.keypoints is None:
            return
        frames = state.keypoints.frames
        content_points, driving_points = state.extensions.halves(frames, state.rng, state.direction)
        if state.content_subset is not None:
            content_points = content_points[:, state.content_subset]
        rest = state.keypoints.rest.repeat(state.batch // len(state.keypoints.rest), 1, 1)
        state.add("keypoints", _both_fields(state, content_points, driving_points, rest), self.weight)


def _both_fields(state: StepState, content_points: Tensor, driving_points: Tensor, rest: Tensor) -> Tensor:
    """Keypoint error of both fields: from the canonical map, `rest` [B, P, 2], to the keypoints of the content frames,
    `content_points` [B, T', P, 2], and from those of the driving frames, `driving_points` [B, T, P, 2], to `rest`.
    """
    model = state.model
    canonical_encoder, canonical_decoder = model.encoder.canonical, model.decoder.canonical
    assert canonical_decoder is not None

    def at_rest(points: Tensor) -> Tensor:
        return rest[:, None].expand(-1, points.shape[1], -1, -1).flatten(0, 1)

    to_frames = keypoint_error(
        canonical_encoder.flow(state.content_latents), at_rest(content_points), content_points.flatten(0, 1)
    )
    tokens = state.content[..., : model.content_width]
    to_canonical = keypoint_error(
        canonical_decoder.flow_of(tokens, state.quantized.motion), driving_points.flatten(0, 1), at_rest(driving_points)
    )
    return to_frames + to_canonical
