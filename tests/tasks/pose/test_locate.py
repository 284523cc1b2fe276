from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from equivox.errors import GeometryError
from equivox.geometry.rotations import rotation_from_euler_xyz
from equivox.geometry.space import Volume, grid_points_mm
from equivox.tasks.pose.locate import find_peaks, locate_head, locate_in_mask
from equivox.tasks.pose.locate_shape import measure_mask, score_candidate

SEMI_AXES_MM = (44.0, 50.0, 36.0)
VOLUME_ML = 4 / 3 * math.pi * math.prod(SEMI_AXES_MM) / 1000


class Brightness(nn.Module):
    """Calls brain what is far above the level of the background: finds an ellipsoid, cannot tell it from a tube."""

    def __init__(self, level: float, steepness: float) -> None:
        super().__init__()
        self.level = level
        self.steepness = steepness

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        return self.steepness * (image - self.level) * valid - 12 * (1 - valid)


NETWORKS = {"locate": Brightness(5.0, 2.0), "segment": Brightness(0.44, 25.0)}
"""In the whole stack a brain is 10 times the background, whose level counts as 1; in a crop its own level is 0.8."""


def stack(center_mm: tuple[float, float, float], *, tube: bool = False, mirrored: bool = True) -> Volume:
    """An ellipsoid of a brain's size in an oblique, anisotropic stack; on request a longer, brighter tube beside it."""
    affine = torch.eye(4, dtype=torch.float64)
    turn = rotation_from_euler_xyz(torch.tensor([0.4, 0.1, -0.3], dtype=torch.float64))
    affine[:3, :3] = turn @ torch.diag(torch.tensor([-3.0 if mirrored else 3.0, 3.0, 4.5], dtype=torch.float64))
    shape = (100, 100, 50)
    affine[:3, 3] = -affine[:3, :3] @ (torch.tensor(shape, dtype=torch.float64) - 1) / 2
    points = grid_points_mm(affine, shape)
    radius = ((points - torch.tensor(center_mm)) / torch.tensor(SEMI_AXES_MM)).norm(dim=-1)
    image = 0.1 + 0.9 * ((1 - radius) * 10 + 0.5).clamp(0, 1)
    if tube:
        distance = (points[..., [0, 1]] - torch.tensor([-75.0, -60.0])).norm(dim=-1)
        image = torch.maximum(image, 1.2 * (distance < 25).double())
    return Volume((200 * image).float()[None], affine, "stack")


@pytest.mark.parametrize("mirrored", [False, True])
def test_an_ellipsoid_is_found_with_its_centre_and_volume(mirrored: bool) -> None:
    location = locate_head(NETWORKS, stack((35.0, 20.0, -15.0), mirrored=mirrored))
    best = location.candidates[0]
    assert location.reason == ""
    assert float((best.center_mm - torch.tensor([35.0, 20.0, -15.0])).norm()) < 2
    assert best.mask_volume_ml == pytest.approx(VOLUME_ML, rel=0.08)
    assert best.score > 0.7
    assert best.size == pytest.approx((best.mask_volume_ml / 290) ** (1 / 3))
    indices = best.mask.data[0].nonzero().double().mean(0)
    torch.testing.assert_close(best.mask.world_from_voxel(indices), best.center_mm)


def test_a_brighter_tube_does_not_win() -> None:
    location = locate_head(NETWORKS, stack((45.0, 30.0, 0.0), tube=True))
    assert float((location.candidates[0].center_mm - torch.tensor([45.0, 30.0, 0.0])).norm()) < 3
    assert all(other.score < 0.3 for other in location.candidates[1:])


def test_same_stack_same_answer() -> None:
    first = locate_head(NETWORKS, stack((0.0, 0.0, 0.0))).candidates[0]
    second = locate_head(NETWORKS, stack((0.0, 0.0, 0.0))).candidates[0]
    assert torch.equal(first.center_mm, second.center_mm)
    assert torch.equal(first.mask.data, second.mask.data)


@pytest.mark.parametrize("value", [0.0, 100.0])
def test_a_constant_volume_holds_no_head(value: float) -> None:
    volume = Volume(torch.full((1, 30, 30, 30), value), torch.diag(torch.tensor([3.0, 3, 3, 1]).double()))
    location = locate_head(NETWORKS, volume)
    assert location.candidates == ()
    assert "no contrast" in location.reason


def test_dim_noise_holds_no_head(generator: torch.Generator) -> None:
    noise = torch.rand(1, 60, 60, 40, generator=generator)
    location = locate_head(NETWORKS, Volume(noise, torch.diag(torch.tensor([3.0, 3, 3, 1]).double())))
    assert location.candidates == ()
    assert location.reason.endswith(".")


def test_peaks_come_best_first() -> None:
    probability = torch.zeros(60, 40, 40)
    probability[6:22, 12:28, 12:28] = 0.6
    probability[38:54, 12:28, 12:28] = 0.9
    peaks = find_peaks(probability, count=5)
    assert len(peaks) == 2
    assert float((peaks[0] - torch.tensor([45.5, 19.5, 19.5]).double()).norm()) < 3
    assert float((peaks[1] - torch.tensor([13.5, 19.5, 19.5]).double()).norm()) < 3


def test_a_given_mask_is_taken_at_its_word() -> None:
    volume = stack((10.0, -20.0, 5.0))
    points = grid_points_mm(volume.affine, volume.shape)
    inside = ((points - torch.tensor([10.0, -20.0, 5.0])) / torch.tensor(SEMI_AXES_MM)).norm(dim=-1) < 1
    mask = Volume(inside[None].float(), volume.affine, "mask")
    mask.data[0, 0, 0, 0] = 1
    found = locate_in_mask(mask, like=volume).candidates[0]
    assert float((found.center_mm - torch.tensor([10.0, -20.0, 5.0])).norm()) < 1
    assert found.mask_volume_ml == pytest.approx(VOLUME_ML, rel=0.03)
    assert int(found.mask.data.sum()) == int(inside.sum())


def test_an_empty_mask_and_a_mask_of_another_grid_are_told_apart() -> None:
    volume = stack((0.0, 0.0, 0.0))
    empty = Volume(torch.zeros_like(volume.data), volume.affine, "empty.nii.gz")
    assert "empty.nii.gz is empty" in locate_in_mask(empty, like=volume).reason
    with pytest.raises(GeometryError, match="another grid"):
        locate_in_mask(Volume(torch.ones(1, 5, 5, 5), volume.affine, "small"), like=volume)


def test_shape_of_a_ball_and_of_a_plate() -> None:
    axis = torch.arange(32.0) - 15.5
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis**2).sqrt()
    ball = measure_mask((radius < 10).float(), (4.0, 4.0, 4.0))
    assert ball is not None
    assert ball.volume_ml == pytest.approx(4 / 3 * math.pi * 40**3 / 1000, rel=0.03)
    assert ball.roundness > 0.97
    assert ball.elongation < 1.05
    torch.testing.assert_close(ball.center_index, torch.full((3,), 15.5, dtype=torch.float64))
    plate = torch.zeros(32, 32, 32)
    plate[2:30, 2:30, 14:18] = 1
    flat = measure_mask(plate, (4.0, 4.0, 4.0))
    assert flat is not None
    assert flat.elongation > 4
    assert score_candidate(ball, 1.0) > 0.9 > 0.1 > score_candidate(flat, 1.0)
    assert measure_mask(torch.zeros(8, 8, 8), (4.0, 4.0, 4.0)) is None
