"""The motion code read from dense landmarks of the frames, instead of from their pixels.

An encoder that has only seen rendered heads reads the pose of real people badly. Landmarks look alike in both: a
network that was trained to find them on faces of all kinds (the extractor `dense-landmarks`) is the eye, and the code
is learned from positions alone, of which the head model gives any number exactly, also for one person with another's
motion. Everything about the motion still passes through the paper's quantiser: by default 16 groups of 16 entries, so
at most 64 bits per frame.

The decoder is a small head model that is learned: a shape for every person (from the content's landmarks), changed by
the expression in the code, turned and moved by the pose in the code, and projected. It gives the positions of the
face's landmarks, and of more points on scalp, ears, neck and shoulders, in the frame to draw. From there to their
positions in a content frame, the field for `pixel_path` is interpolated by affine moving least squares (Schaefer et al.
2006). The diffusion transformer, which was trained with another code, gets an estimate of that code.

The extension is added to trained weights by `bcd-bench train bcd-landmarks`, with labels of rendered heads.

Measured together with `pixel_path`, beside the same weights without both: on the 120 pairs of heads-cross-128, motion
error 4.4 instead of 13.4 mm^2, cross error 6.4 instead of 17.8, expressions 1.6 instead of 3.8; on 30 pairs of real
people, motion error 13.5 instead of 112 (37.6 by MediaPipe's landmarks, which these weights do not read).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from bcd_bench_bcd.extensions.base import Extension, Recipe
from bcd_bench_bcd.extensions.expression_gain import enlarged
from bcd_bench_bcd.extensions.head_pose import half_turn, projected, rigid_pose, rotation_of
from bcd_bench_bcd.extensions.landmark_fields import interpolated_fields
from bcd_bench_bcd.extensions.pixel_path import Geometry, PixelPath, grid_positions, select_frames
from bcd_bench_bcd.extensions.steady_sources import averaged_over_time
from bcd_bench_bcd.paper.config import QuantizerConfig

__all__ = ["COMPONENTS", "EXPRESSIONS", "EXTRACTOR", "SCALE", "Head", "LandmarkMotion", "LandmarkNetwork"]

EXTRACTOR = "dense-landmarks"
"""The extractor whose points are read."""
HIDDEN = 384
"""Units of the layers of the encoder."""
DECODER_HIDDEN = 256
EXPRESSIONS = 48
"""Directions in which expressions change the shape."""
SCALE = 100.0
"""Millimetres per unit of the decoder's space."""
POSE_SIZE = 0.3
"""Typical deviation of an entry of a rotation from that of the identity."""
MOVE_SCALE = (5.0, 5.0, 1.0)
"""Factors that bring the typical translation of a head to 1."""
REACH = 1.5
"""Points of a drawn frame beyond this are ignored; 1 is its border."""
HEAD_MARGIN = 0.12
"""Distance from the nearest point of a head at which its influence is halved; 2 is a whole side."""
COMPONENTS = 112
"""Principal components of the landmarks that the encoder sees, without pose."""


class LandmarkMotion(Extension):
    name: ClassVar[str] = "landmark_motion"
    summary: ClassVar[str] = "motion codes read from dense landmarks of the frames, instead of from their pixels"
    labels: ClassVar[bool] = True
    needs_pixels: ClassVar[bool] = True
    changes_model: ClassVar[bool] = True

    landmarks: int = Field(default=320, ge=3)
    """Points of the extractor."""
    points: int = Field(default=416, ge=3)
    """Points whose positions are decoded; the landmarks come first."""
    subject: int = Field(default=48, ge=1)
    """Channels of what is known about a person's shape."""
    groups: int = Field(default=16, ge=1)
    entries: int = Field(default=16, ge=2)
    dim: int = Field(default=4, ge=1)
    """Groups, entries per group, and channels per entry of the motion code."""
    focal: float = Field(default=7.03125, gt=0)
    """Focal length, in half sides of the frame."""
    network: str = ""
    """Hash of the weights of the extractor that the code was learned with; others are not accepted."""

    def check(self, preset: Recipe) -> None:
        raise ValueError("landmark_motion is added to trained weights, by bcd-bench train bcd-landmarks")

    @property
    def quantizer(self) -> QuantizerConfig:
        """The configuration of the motion code."""
        return QuantizerConfig(groups=self.groups, entries=self.entries, dim=self.dim)


@dataclass
class Head:
    """Positions of P points in N frames."""

    points: Tensor
    """float [N, P, 2]: x and y in -1..1 from border to border."""
    facing: Tensor
    """Logits [N, P] that a point is turned towards the camera."""


class _Encoder(nn.Module):
    """Pose and landmarks of a clip -> motion latents of its frames, and the shape of its person."""

    def __init__(self, settings: LandmarkMotion) -> None:
        super().__init__()
        inputs, motion = 9 + COMPONENTS, settings.groups * settings.dim
        self.frame = nn.Sequential(nn.Linear(inputs, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU())
        self.motion = nn.Sequential(nn.Linear(2 * HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, motion))
        self.direct = nn.Linear(inputs, motion)
        self.subject = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, settings.subject))
        self.subject_direct = nn.Linear(inputs, settings.subject)

    def forward(self, offsets: Tensor) -> tuple[Tensor, Tensor]:
        """`offsets` [B, T, 9 + COMPONENTS] -> latents [B, T, groups * dim], subjects [B, C]."""
        frames = self.frame(offsets)
        mean = frames.mean(1, keepdim=True)
        latents = self.motion(torch.cat([frames, mean.expand_as(frames)], -1)) + self.direct(offsets)
        return latents, self.subject(mean[:, 0]) + self.subject_direct(offsets.mean(1))


class _Decoder(nn.Module):
    """Motion and a subject -> positions of the points: a learned head model, posed and projected."""

    mean: Tensor
    rest: Tensor

    def __init__(self, settings: LandmarkMotion) -> None:
        super().__init__()
        motion, subject, points = settings.groups * settings.dim, settings.subject, settings.points
        self.focal = settings.focal
        self.register_buffer("mean", torch.zeros(points, 3))
        """The mean head, relative to the joint of head and neck."""
        self.register_buffer("rest", torch.tensor([0.0, 0.0, 10.0]))
        """Position of the joint at rest, relative to the camera."""
        self.expression = nn.Sequential(nn.Linear(motion, DECODER_HIDDEN), nn.SiLU())
        self.expression_out = nn.Linear(DECODER_HIDDEN, EXPRESSIONS)
        self.expression_direct = nn.Linear(motion, EXPRESSIONS, bias=False)
        self.pose = nn.Sequential(nn.Linear(motion, DECODER_HIDDEN), nn.SiLU(), nn.Linear(DECODER_HIDDEN, 9))
        self.pose_direct = nn.Linear(motion, 9, bias=False)
        self.expression_shapes = nn.Parameter(0.01 * torch.randn(EXPRESSIONS, 3 * points))
        self.subject_shapes = nn.Parameter(0.01 * torch.randn(subject, 3 * points))
        self.follows = nn.Parameter(torch.tensor([3.0, 0.0, 0.0]).repeat(points, 1))
        """Logits of the shares by which a point follows the head, the neck and the shoulders."""
        self.detail = nn.Sequential(nn.Linear(motion + subject, DECODER_HIDDEN), nn.SiLU())
        self.detail_out = nn.Linear(DECODER_HIDDEN, 3 * points)
        self.facing = nn.Linear(DECODER_HIDDEN, points)
        for layer in (self.detail_out, self.facing):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, motion: Tensor, subject: Tensor) -> Head:
        """`motion` [N, groups * dim], `subject` [N, C]."""
        expression = self.expression_out(self.expression(motion)) + self.expression_direct(motion)
        pose = POSE_SIZE * (self.pose(motion) + self.pose_direct(motion))
        whole = rotation_of(pose[:, :6])
        hidden = self.detail(torch.cat([motion, subject], -1))
        change = expression @ self.expression_shapes + subject @ self.subject_shapes + 0.1 * self.detail_out(hidden)
        shape = self.mean + change.unflatten(-1, (-1, 3))
        head, neck, shoulders = self.follows.softmax(-1)[..., None].unbind(1)
        posed = (shape @ whole.mT) * head + (shape @ half_turn(whole).mT) * neck + shape * shoulders
        posed = posed + self.rest + pose[:, None, 6:]
        return Head(posed[..., :2] / posed[..., 2:].clamp_min(1.0) * self.focal, self.facing(hidden))


class LandmarkNetwork(nn.Module):
    """Encoder and decoder of motion in landmarks, and the translation for the transformer.

    The quantiser between encoder and decoder is that of the model.
    """

    components: Tensor
    spread: Tensor

    def __init__(
        self, settings: LandmarkMotion, *, transformer: int, expression_gain: float = 1.0, steady_window: int = 1
    ) -> None:
        """`transformer` is the number of channels of motion that the transformer was trained with, `expression_gain`
        the factor of the extension of this name, `steady_window` the window of `steady_sources`."""
        super().__init__()
        self.settings, self.expression_gain, self.steady_window = settings, expression_gain, steady_window
        width = settings.groups * settings.dim
        self.encoder, self.decoder = _Encoder(settings), _Decoder(settings)
        self.translation = nn.Sequential(nn.Linear(width, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, transformer))
        self.register_buffer("components", torch.zeros(COMPONENTS, 2 * settings.landmarks))
        """Principal components of what a pose leaves, scaled to a standard deviation of 1."""
        self.register_buffer("spread", torch.ones(width))
        """Standard deviation of the latents."""

    def encode(self, landmarks: Tensor, turns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Landmarks [B, T, landmarks, 2] in -1..1 -> motion latents [B, T, groups * dim], about in pixels of
        a frame of 128, and subjects [B, C].

        `turns` [B, 3, 3] are rotations in the axes of the head that correct the poses of the clips.
        """
        if turns is not None:
            turns = turns.to(landmarks).repeat_interleave(landmarks.shape[1], 0)
        offsets = self.offsets(landmarks.flatten(0, 1), turns).unflatten(0, landmarks.shape[:2])
        if self.expression_gain != 1:
            pose, rest = offsets[..., :9], offsets[..., 9:]
            offsets = torch.cat([pose, enlarged(rest, self.expression_gain)], -1)
        latents, subject = self.encoder(offsets)
        return latents, subject

    def pose_and_rest(self, landmarks: Tensor, turns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The pose of landmarks [N, landmarks, 2] as that of the mean head, [N, 9], and what it leaves of the
        positions, [N, 2 * landmarks]. The pose, not what it leaves, is then turned by `turns` [N, 3, 3] about the
        centre of the face."""
        shape, rest, focal = self.decoder.mean[: landmarks.shape[1]], self.decoder.rest, self.settings.focal
        rotation, position = rigid_pose(landmarks, shape, rest, focal)
        left = (landmarks - projected(shape, rotation, position, focal)).flatten(1)
        if turns is not None:
            centre, before = shape.mean(0), rotation
            rotation = before @ turns
            position = position + (before - rotation) @ centre
        turn = (rotation[..., :2].mT.flatten(1) - rotation.new_tensor([1.0, 0, 0, 0, 1, 0])) / POSE_SIZE
        moved = (position - rest) * rest.new_tensor(MOVE_SCALE)
        return torch.cat([turn, moved], 1), left

    @torch.no_grad()
    def offsets(self, landmarks: Tensor, turns: Tensor | None = None) -> Tensor:
        """What the encoder sees of landmarks [N, landmarks, 2]: [N, 9 + COMPONENTS], each about 1 in size."""
        pose, left = self.pose_and_rest(landmarks, turns)
        return torch.cat([pose, left @ self.components.mT], 1)

    @staticmethod
    def pose_scale() -> Tensor:
        """Factor from the decoder's unscaled pose to the pose that the encoder sees, [9]."""
        return torch.cat([torch.ones(6), POSE_SIZE * torch.tensor(MOVE_SCALE)])

    def decode(self, motion: Tensor, subject: Tensor) -> Head:
        """Points of the head for motion [N, groups * dim] (quantised or latents) and subjects [N, C]."""
        head: Head = self.decoder(motion, subject)
        return head

    def standardized(self, motion: Tensor) -> Tensor:
        """Motion [..., groups * dim] with a standard deviation of about 1, for other networks."""
        return motion / self.spread

    def translated(self, motion: Tensor) -> Tensor:
        """Motion [..., C] as the transformer was trained with, estimated from motion [..., groups * dim]."""
        out: Tensor = self.translation(self.standardized(motion))
        return out

    def mirrored(self, landmarks: Tensor) -> Tensor:
        """Landmarks [..., landmarks, 2] of the mirror images of their frames."""
        shape = self.decoder.mean[: landmarks.shape[-2]]
        flipped = shape * shape.new_tensor([-1.0, 1.0, 1.0])
        partner = torch.cdist(flipped, shape).argmin(1)
        return landmarks[..., partner, :] * landmarks.new_tensor([-1.0, 1.0])

    def geometry(
        self, landmarks: Tensor, motion: Tensor, path: PixelPath, grid: int, turn: Tensor | None = None
    ) -> Geometry:
        """As `PixelNetwork.geometry`, for the content's landmarks [S, landmarks, 2] and motion [T, groups * dim].

        Content frames whose landmarks are NaN are not carried. `turn` [3, 3] corrects the content's pose.
        """
        count = len(landmarks)
        known_frames = landmarks.isfinite().all(-1).all(-1).nonzero()[:, 0]
        landmarks = landmarks[known_frames]
        of_content, subject = self._content(landmarks, turn)
        drawn = self.decode(motion, subject.expand(len(motion), -1))
        known = landmarks.shape[1]
        # where the person differs from what the decoder draws: added to the places, so that it cancels in the moves
        differs = torch.zeros_like(of_content.points)
        differs[:, :known] = landmarks - of_content.points[:, :known]
        if turn is not None:
            differs[:, known:] = (self._content(landmarks)[0].points - of_content.points)[:, known:]
        seen = drawn.facing.sigmoid() * (drawn.points.abs() < REACH).all(-1)
        cost = averaged_over_time(_mean_move(of_content, drawn, seen), self.steady_window)
        selected = select_frames(cost, path.sources, path.gap, known_frames)
        moves = of_content.points[selected] - drawn.points[:, None]
        places = drawn.points + differs[selected[:, 0]]
        if path.mirrored:
            flip = landmarks.new_tensor([-1.0, 1.0, 1.0]).diag()
            flipped = None if turn is None else flip @ turn.to(flip) @ flip
            mirror_images, _ = self._content(self.mirrored(landmarks), flipped)
            best = _mean_move(mirror_images, drawn, seen).argmin(1, keepdim=True)
            moves = torch.cat([moves, mirror_images.points[best] - drawn.points[:, None]], 1)
        fields = interpolated_fields(places, seen, moves, grid)
        ways = torch.cat([fields, torch.zeros(len(motion), 1, 2, grid, grid, device=motion.device)], 1)
        nearest, which = selected[:, 0].unique(return_inverse=True)
        occupied = self._occupied(of_content.points[nearest], grid)[which]
        selected = known_frames[selected]
        pictures = [selected, selected[:, :1]]
        if path.mirrored:
            pictures.insert(1, count + known_frames[best])
        return Geometry(torch.cat(pictures, 1), ways, occupied)

    def _content(self, landmarks: Tensor, turn: Tensor | None = None) -> tuple[Head, Tensor]:
        """The points of content frames with `landmarks` [S, landmarks, 2], and their subject [1, C]."""
        latents, subject = self.encode(landmarks[None], None if turn is None else turn[None])
        return self.decode(latents[0], subject.expand(len(landmarks), -1)), subject

    def _occupied(self, points: Tensor, grid: int) -> Tensor:
        """Where the heads with `points` [S, P, 2] are in their frames, [S, grid, grid] in 0..1."""
        moves = self.decoder.follows.softmax(-1)[:, 0] > 0.5
        here = grid_positions(grid, grid, points.device).flatten(1).mT
        distance = torch.cdist(here.expand(len(points), -1, -1), points[:, moves]).amin(-1)
        return (1.5 - distance / HEAD_MARGIN).clamp(0, 1).unflatten(-1, (grid, grid))


def _mean_move(of_content: Head, drawn: Head, seen: Tensor) -> Tensor:
    """Mean move of the points that are seen in a drawn frame, from every content frame, [T, S]; more where the content
    frame does not show them."""
    moved = (of_content.points[None] - drawn.points[:, None]).norm(dim=-1)
    hidden = 1 - of_content.facing.sigmoid()
    return ((moved + 0.2 * hidden) * seen[:, None]).sum(-1) / seen.sum(-1, keepdim=True).clamp_min(1)
