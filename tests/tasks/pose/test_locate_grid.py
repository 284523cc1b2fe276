from __future__ import annotations

import pytest
import torch

from equivox.geometry.rotations import rotation_from_euler_xyz
from equivox.geometry.space import Volume, grid_points_mm
from equivox.tasks.pose.locate_grid import CENTER_LEVEL, level_at_center, robust_scale, working_grid


def oblique(shape: tuple[int, int, int], spacing: tuple[float, float, float], mirrored: bool) -> torch.Tensor:
    affine = torch.eye(4, dtype=torch.float64)
    turn = rotation_from_euler_xyz(torch.tensor([0.3, -0.2, 0.4], dtype=torch.float64))
    signs = torch.tensor([-1.0 if mirrored else 1.0, 1.0, 1.0], dtype=torch.float64)
    affine[:3, :3] = turn @ torch.diag(torch.tensor(spacing, dtype=torch.float64) * signs)
    affine[:3, 3] = torch.tensor([20.0, -30.0, 10.0])
    return affine


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_linear_field_keeps_its_world_values(mirrored: bool) -> None:
    affine = oblique((30, 28, 20), (3.0, 3.0, 4.5), mirrored)
    points = grid_points_mm(affine, (30, 28, 20))
    volume = Volume((points @ torch.tensor([1.0, -2.0, 0.5]).double() + 500).float()[None], affine)
    grid = working_grid(volume)
    inside = volume.voxel_from_world(grid_points_mm(grid.affine, grid.shape))
    deep = ((inside > 2) & (inside < torch.tensor([27.0, 25.0, 17.0]))).all(-1)
    expected = grid_points_mm(grid.affine, grid.shape) @ torch.tensor([1.0, -2.0, 0.5]).double() + 500
    assert int(deep.sum()) > 1000
    torch.testing.assert_close(grid.data[0][deep].double(), expected[deep], rtol=0, atol=0.05)
    assert grid.axis_codes == "RAS"
    assert grid.voxel_size_mm == pytest.approx((4.0, 4.0, 4.0))


def test_validity_is_the_field_of_view() -> None:
    affine = oblique((20, 24, 10), (3.0, 3.0, 4.5), True)
    volume = Volume(torch.ones(1, 20, 24, 10), affine)
    grid = working_grid(volume)
    assert torch.equal(grid.data[1] > 0.5, volume.valid_on(grid.affine, grid.shape))
    torch.testing.assert_close(grid.data[0], grid.data[1])
    assert 0.02 < float(grid.data[1].mean()) < 0.9


def test_fine_stacks_are_averaged_not_aliased() -> None:
    stripes = (torch.arange(64) % 2).float()[None, :, None, None].expand(1, 64, 64, 64) * 2
    grid = working_grid(Volume(stripes.contiguous(), torch.diag(torch.tensor([1.0, 1, 1, 1], dtype=torch.float64))))
    middle = grid.data[0][2:-2, 2:-2, 2:-2]
    assert float((middle - 1).abs().max()) < 0.05


def test_scale_is_the_bright_level_of_the_field_of_view() -> None:
    image = torch.arange(1000.0).reshape(10, 10, 10)
    valid = torch.ones_like(image)
    assert robust_scale(image, valid) == 899
    assert robust_scale(image, torch.zeros_like(image)) == 0


def test_a_crop_is_levelled_by_its_valid_centre() -> None:
    image = torch.full((2, 1, 20, 20, 20), 3.0)
    image[:, :, 10:] = 7.0
    valid = torch.ones_like(image)
    valid[0, :, 10:] = 0
    valid[1, :, :10] = 0
    levelled = level_at_center(image, valid)
    assert float(levelled[0, 0, 5, 10, 10]) == pytest.approx(CENTER_LEVEL)
    assert float(levelled[1, 0, 15, 10, 10]) == pytest.approx(CENTER_LEVEL)
    torch.testing.assert_close(level_at_center(50 * image, valid), levelled)
    assert torch.equal(level_at_center(image, torch.zeros_like(valid)), image)
