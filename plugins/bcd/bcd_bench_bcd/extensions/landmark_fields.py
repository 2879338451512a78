"""Dense displacement fields from the moves of points, by affine moving least squares (Schaefer et al. 2006)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["interpolated_fields"]

SOFTNESS = 0.01
"""Distance within which points are not told apart by the interpolation; 2 is a whole side."""
ANCHORS = 10
"""Points along the upper border of the frame, and along each side, that do not move."""
LOWEST_ANCHOR = 0.4
"""Height of the lowest of them; below, where the shoulders are, the border moves with them."""
ANCHOR_WEIGHT = 0.3
CHUNK = 2
"""Frames whose distances from all positions to all points are held at once."""


def interpolated_fields(places: Tensor, seen: Tensor, moves: Tensor, grid: int) -> Tensor:
    """Displacements [N, S, 2, grid, grid] that take `places` [N, P, 2] by `moves` [N, S, P, 2], in between affine.

    At every position, the affine map that fits the moves best, weighted by `seen` [N, P] and the inverse fourth power
    of the distance (Schaefer et al. 2006, eq. 5). The upper border of the frame does not move, nor do the sides down to
    where the shoulders may begin.
    """
    count, sources = moves.shape[:2]
    line = torch.linspace(-1.05, 1.05, ANCHORS, device=places.device)
    edge = torch.full_like(line, 1.05)
    side = torch.linspace(-1.05, LOWEST_ANCHOR, ANCHORS, device=places.device)
    border = torch.cat([torch.stack(pair, -1) for pair in ((line, -edge), (-edge, side), (edge, side))])
    places = torch.cat([places, border.expand(count, -1, -1)], 1)
    weight = torch.cat([seen, seen.new_full((count, len(border)), ANCHOR_WEIGHT)], 1)
    moves = nn.functional.pad(moves, (0, 0, 0, len(border)))
    axis = (torch.arange(grid, device=places.device) + 0.5) * 2 / grid - 1
    here = torch.stack(torch.meshgrid(axis, axis, indexing="ij")[::-1], -1).flatten(0, 1)
    x, y = places.unbind(-1)
    across, down = ((axis[:, None] - part[:, None]).square() for part in (x, y))  # [N, grid, P]
    first = moves.permute(0, 1, 3, 2)  # [N, S, 2, P]
    mixed = first[:, :, :, None] * places.mT[:, None, None]  # [N, S, 2 (of the move), 2 (of the place), P]
    products = torch.cat(
        [torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], 1), first.flatten(1, 2), mixed.flatten(1, 3)], 1
    )
    products = (products * weight[:, None]).mT
    # allocated once: on CPUs, fresh memory of this size costs more than the arithmetic
    buffer = places.new_empty(min(count, CHUNK), grid, grid, places.shape[1])
    moments = places.new_empty(count, grid * grid, products.shape[-1])
    for start in range(0, count, CHUNK):
        part = slice(start, min(start + CHUNK, count))
        near = torch.add(across[part, None], down[part, :, None], out=buffer[: part.stop - start])
        near.add_(SOFTNESS**2).square_().reciprocal_()
        moments[part] = near.flatten(1, 2) @ products[part]
    moments = moments / moments[..., :1]
    mean_x, mean_y = moments[..., 1], moments[..., 2]
    xx, xy, yy = moments[..., 3] - mean_x**2, moments[..., 4] - mean_x * mean_y, moments[..., 5] - mean_y**2
    ridge = 1e-3 * (xx + yy) + 1e-5
    xx, yy = xx + ridge, yy + ridge
    determinant = xx * yy - xy**2
    dx, dy = here[:, 0] - mean_x, here[:, 1] - mean_y
    along_x, along_y = (yy * dx - xy * dy) / determinant, (xx * dy - xy * dx) / determinant
    mean = moments[..., 6 : 6 + 2 * sources].unflatten(-1, (sources, 2))
    covariance = moments[..., 6 + 2 * sources :].unflatten(-1, (sources, 2, 2))
    covariance = covariance - mean[..., None] * torch.stack([mean_x, mean_y], -1)[..., None, None, :]
    out = mean + covariance[..., 0] * along_x[..., None, None] + covariance[..., 1] * along_y[..., None, None]
    return out.permute(0, 2, 3, 1).unflatten(-1, (grid, grid))
