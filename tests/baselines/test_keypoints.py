"""The algebra of keypoints: positions, affine maps, how motion is carried over, and the choice of an anchor frame."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bcd_bench_baselines.common.best_frame import closest_frame
from bcd_bench_baselines.common.first_order import DenseMotion
from bcd_bench_baselines.common.keypoints import (
    Keypoints,
    coordinate_grid,
    expected_position,
    gaussians,
    hull_area,
    inverse,
    movement_scale,
    relative,
)
from bcd_bench_baselines.common.landmarks import NoFaceError
from bcd_bench_baselines.common.random_weights import fill_seeded

DRAW = torch.Generator().manual_seed(0)


def some(count: int, points: int = 4) -> Keypoints:
    value = torch.rand(count, points, 2, generator=DRAW) * 2 - 1
    return Keypoints(value, torch.eye(2) + 0.3 * torch.randn(count, points, 2, 2, generator=DRAW))


def test_the_grid_goes_from_the_first_pixel_to_the_last() -> None:
    grid = coordinate_grid(3, 5, torch.zeros(1))
    assert grid.shape == (3, 5, 2)
    assert grid[0, 0].tolist() == [-1, -1]
    assert grid[2, 4].tolist() == [1, 1]
    assert grid[1, 3].tolist() == [0.5, 0]


def test_a_heat_map_stands_where_its_mass_is() -> None:
    heat = torch.zeros(1, 2, 5, 5)
    heat[0, 0, 4, 1] = 1
    heat[0, 1, 0, 0] = heat[0, 1, 0, 4] = 0.5
    assert expected_position(heat)[0].tolist() == [[-0.5, 1], [0, -1]]


def test_gaussians_are_of_the_distance() -> None:
    points, grid = some(2).value, coordinate_grid(6, 9, torch.zeros(1))
    distance = ((grid - points[:, :, None, None]) ** 2).sum(-1)
    torch.testing.assert_close(gaussians(points, 6, 9), torch.exp(-distance / 0.02))


def test_the_inverse_undoes() -> None:
    maps = some(3).jacobian
    torch.testing.assert_close(inverse(maps) @ maps, torch.eye(2).expand_as(maps), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inverse(maps), torch.linalg.inv(maps), rtol=1e-4, atol=1e-4)


def test_relative_motion_starts_at_the_source_and_is_the_drivers() -> None:
    source, driving = some(1), some(5)
    moved = relative(source, driving, driving[slice(2, 3)], scale=1.5)
    torch.testing.assert_close(moved.value[2], source.value[0])
    torch.testing.assert_close(moved.jacobian[2], source.jacobian[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(moved.value[4] - source.value[0], 1.5 * (driving.value[4] - driving.value[2]))
    own = relative(driving[slice(0, 1)], driving, driving[slice(0, 1)])
    torch.testing.assert_close(own.value, driving.value)
    torch.testing.assert_close(own.jacobian, driving.jacobian, rtol=1e-3, atol=1e-3)


def test_the_scale_is_the_root_of_the_areas() -> None:
    square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]])
    assert hull_area(square) == pytest.approx(1)
    maps = torch.eye(2).expand(1, 5, 2, 2)
    assert movement_scale(Keypoints(3 * square[None], maps), Keypoints(square[None], maps)) == pytest.approx(3)
    with pytest.raises(ValueError, match="are collinear"):
        hull_area(torch.stack([torch.arange(5.0), torch.arange(5.0)], 1))


@torch.inference_mode()
def test_dense_motion_without_motion_is_the_identity() -> None:
    """Equal keypoints and maps on both sides: every T_k is the identity, whatever the masks are."""
    network = DenseMotion(4, base=4, most=8, blocks=2).eval()
    fill_seeded({"network": network}, 0)
    pose = some(1)
    found = network(torch.rand(1, 3, 8, 8, generator=DRAW), *[(pose.value, pose.jacobian)] * 2)
    torch.testing.assert_close(found.deformation[0], coordinate_grid(8, 8, pose.value), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.mask.sum(1), torch.ones(1, 8, 8))
    assert ((found.occlusion > 0) & (found.occlusion < 1)).all()


@torch.inference_mode()
def test_dense_motion_of_a_shift_is_a_shift() -> None:
    """All keypoints moved alike and unit maps: where only keypoints count, a pixel comes from where they came from."""
    network = DenseMotion(4, base=4, most=8, blocks=2).eval()
    fill_seeded({"network": network}, 0)
    network.mask.bias[0] = -1e4  # nothing is background
    value, maps = some(1).value, torch.eye(2).expand(1, 4, 2, 2)
    shift = torch.tensor([0.25, -0.5])
    found = network(torch.rand(1, 3, 8, 8, generator=DRAW), (value, maps), (value + shift, maps))
    torch.testing.assert_close(found.deformation[0], coordinate_grid(8, 8, value) - shift, rtol=1e-4, atol=1e-4)


def test_the_closest_frame_is_the_same_shape_wherever_and_however_large() -> None:
    rng = np.random.default_rng(0)
    source = rng.random((68, 2))
    driving = rng.random((5, 68, 2))
    driving[3] = source * 7 + 40
    driving[1, 5] = np.nan
    assert closest_frame(source, driving) == 3
    assert closest_frame(source, driving[:3]) in (0, 2)
    with pytest.raises(NoFaceError, match="no face was found in any driving frame"):
        closest_frame(source, np.full((2, 68, 2), np.nan))
