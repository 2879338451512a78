"""Rotations, projection, and the pose at which a known shape is seen, for `landmark_motion`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["half_turn", "projected", "rigid_pose", "rotation_of"]

POSE_STEPS = 8
"""Gauss-Newton steps of `rigid_pose`."""
NEAREST = 1.0
"""Least depth of a point, in the units of the shape; those behind the camera are treated as if they were here."""


def rotation_of(six: Tensor) -> Tensor:
    """[..., 6] -> rotations [..., 3, 3]: the first two columns, made orthonormal (Zhou et al. 2019). Zeros give the
    identity."""
    first = six[..., :3] + six.new_tensor([1.0, 0.0, 0.0])
    second = six[..., 3:] + six.new_tensor([0.0, 1.0, 0.0])
    return _orthonormal(first, second)


def half_turn(rotation: Tensor) -> Tensor:
    """The rotations [..., 3, 3] by half the angle, for angles below 180 degrees."""
    # R + I is the half turn times a symmetric matrix; its polar factor is the half turn itself
    axis = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        -1,
    )
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    # as quaternions: (1 + trace, axis) points along that of the rotation; adding its length to the first halves it
    whole = torch.cat([(1 + trace)[..., None], axis], -1)
    length = whole.square().sum(-1, keepdim=True).clamp_min(1e-12).sqrt()
    half = nn.functional.normalize(torch.cat([whole[..., :1] + length, axis], -1), dim=-1)
    w, x, y, z = half.unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _orthonormal(first: Tensor, second: Tensor) -> Tensor:
    first = nn.functional.normalize(first, dim=-1)
    second = nn.functional.normalize(second - (first * second).sum(-1, keepdim=True) * first, dim=-1)
    return torch.stack([first, second, torch.cross(first, second, dim=-1)], -1)


def projected(shape: Tensor, rotation: Tensor, position: Tensor, focal: float) -> Tensor:
    """Image positions [..., P, 2] of points [..., P, 3], rotated by [..., 3, 3] and moved to `position` [..., 3]."""
    posed = shape @ rotation.mT + position[..., None, :]
    return posed[..., :2] / posed[..., 2:].clamp_min(NEAREST) * focal


def rigid_pose(landmarks: Tensor, shape: Tensor, rest: Tensor, focal: float) -> tuple[Tensor, Tensor]:
    """Rotations [N, 3, 3] and positions [N, 3] at which `shape` [P, 3] is seen closest to `landmarks` [N, P, 2].

    Damped Gauss-Newton steps from the front, at the distance that fits the size.
    """
    count = len(landmarks)
    rotation = torch.eye(3, device=landmarks.device).repeat(count, 1, 1)
    front = projected(shape, rotation[:1], rest[None], focal)[0]
    size = (landmarks - landmarks.mean(1, keepdim=True)).square().sum((1, 2)).sqrt()
    depth = rest[2] * (front - front.mean(0)).square().sum().sqrt() / size.clamp_min(1e-3)
    depth = depth.clamp(0.3 * float(rest[2]), 5 * float(rest[2]))
    centre = landmarks.mean(1) - front.mean(0) * (rest[2] / depth)[:, None]
    position = torch.cat([centre * depth[:, None] / focal, depth[:, None]], 1)
    for _ in range(POSE_STEPS):
        turned = shape @ rotation.mT
        x, y, z = (turned + position[:, None]).unbind(-1)
        z = z.clamp_min(NEAREST)
        missed = torch.stack([landmarks[..., 0] - focal * x / z, landmarks[..., 1] - focal * y / z], -1)
        zero = torch.zeros_like(x)
        to_image = torch.stack(
            [
                torch.stack([focal / z, zero, -focal * x / z**2], -1),
                torch.stack([zero, focal / z, -focal * y / z**2], -1),
            ],
            -2,
        )
        of_turn = torch.cross(to_image, turned[:, :, None].expand_as(to_image), dim=-1).neg()
        jacobian = torch.cat([of_turn, to_image], -1).flatten(1, 2)
        normal = jacobian.mT @ jacobian
        damped = normal + torch.diag_embed(1e-3 * normal.diagonal(dim1=-2, dim2=-1) + 1e-6)
        step = torch.linalg.solve(damped, (jacobian.mT @ missed.flatten(1)[..., None]))[..., 0]
        rotation = torch.linalg.matrix_exp(_cross_matrix(step[:, :3].clamp(-0.5, 0.5))) @ rotation
        position = position + step[:, 3:]
    return rotation, position


def _cross_matrix(axis: Tensor) -> Tensor:
    """[N, 3] -> the matrices [N, 3, 3] of the cross products with it."""
    x, y, z = axis.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [[zero, -z, y], [z, zero, -x], [-y, x, zero]]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)
