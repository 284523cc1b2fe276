"""Crops turn with their heads; the averaged answer and its spread; confidence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from equivox.geometry.rotations import geodesic_angle, random_rotations, rotation_about
from equivox.geometry.space import Volume
from equivox.tasks.pose.rotate import (
    Answer,
    CropConfig,
    answer_confidence,
    find_rotation,
    head_cube,
    network_input,
    sample_crops,
    scaled_by_brain,
    size_factor,
)

CONFIG = CropConfig(side=16, voxel_size_mm=8.0, raw_channel=False)


def blob_volume(affine: torch.Tensor, shape: tuple[int, int, int], center: torch.Tensor) -> Volume:
    """A head-sized ball with a bright bump towards (1, 2, 2)/3 of the world and a weaker one inside, elsewhere."""
    index = torch.stack(torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij"), dim=-1)
    world = index @ affine[:3, :3].mT + affine[:3, 3] - center
    bump = torch.tensor([10.0, 20.0, 20.0], dtype=torch.float64)
    data = 100 * torch.sigmoid((42 - world.norm(dim=-1)) / 3) + 150 * (-(world - bump).square().sum(-1) / 200).exp()
    weak = torch.tensor([12.0, -3.0, -4.0], dtype=torch.float64)
    data = data + 80 * (-(world - weak).square().sum(-1) / 200).exp()
    return Volume(data[None].float(), affine, "blob")


class Moments(nn.Module):
    """An equivariant stand-in: two axes from moments that weigh the middle and the outside differently."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Cross product (a pseudovector), then the two vectors."""
        side = crops.shape[-1]
        axis = (torch.arange(side) - (side - 1) / 2) / side
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
        near = (-grid.square().sum(0) / 0.02).exp()
        first = torch.einsum("ncxyz,axyz->na", crops, grid * near)
        second = torch.einsum("ncxyz,axyz->na", crops, grid * (grid.square().sum(0) < 0.16))
        return torch.cat([torch.linalg.cross(first, second), first, second], dim=1) * self.scale


def test_cubes_of_one_head_agree_whatever_the_storage() -> None:
    center = torch.tensor([12.0, -7.0, 30.0], dtype=torch.float64)
    plain = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    plain[:3, 3] = center - 3.0 * 31.5
    oblique = torch.eye(4, dtype=torch.float64)
    oblique[:3, :3] = rotation_about("x", 25.0) @ torch.diag(torch.tensor([-2.0, 3.0, 4.5], dtype=torch.float64))
    oblique[:3, 3] = center - oblique[:3, :3] @ torch.tensor([59.5, 39.5, 29.5], dtype=torch.float64)
    first, valid = head_cube(blob_volume(plain, (64, 64, 64), center), center)
    second, _ = head_cube(blob_volume(oblique, (120, 80, 60), center), center)
    assert first.shape == (1, 64, 64, 64)
    assert float(valid.mean()) == 1.0
    assert float((first - second).abs().max()) < 0.08 * float(first.max())


def test_outside_the_field_of_view_is_not_valid() -> None:
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    center = torch.tensor([0.0, 60.0, 60.0], dtype=torch.float64)
    cube, valid = head_cube(blob_volume(affine, (40, 40, 40), center), center)
    assert 0.0 < float(valid.mean()) < 0.5
    assert bool(torch.isfinite(cube).all())
    far = center + 1000.0
    assert float(head_cube(blob_volume(affine, (40, 40, 40), center), far)[1].mean()) == 0.0


def test_a_turned_crop_shows_the_turned_head(generator: torch.Generator) -> None:
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -3.0 * 31.5
    cube, _ = head_cube(blob_volume(affine, (64, 64, 64), torch.zeros(3, dtype=torch.float64)), torch.zeros(3).double())
    turn = random_rotations(1, generator=generator, dtype=torch.float32)
    crop = sample_crops(cube[None], turn, torch.ones(1), torch.zeros(1, 3), CONFIG)[0, 0]
    axis = (torch.arange(16) - 7.5) * 8.0
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
    bright = (crop - 185).clamp_min(0)  # above the weaker spot
    found = (grid * bright).sum((1, 2, 3)) / bright.sum()
    expected = turn[0].mT @ torch.tensor([10.0, 20.0, 20.0])
    assert float(torch.nn.functional.cosine_similarity(found, expected, dim=0)) > 0.98


def test_gain_does_not_change_the_network_input(generator: torch.Generator) -> None:
    crops = torch.rand(2, 1, 16, 16, 16, generator=generator) + 0.2
    valid = torch.ones_like(crops)
    config = CropConfig(side=16)
    once = network_input(scaled_by_brain(crops, valid), valid, config)
    again = network_input(scaled_by_brain(crops * 37.0, valid), valid, config)
    assert once.shape == (2, 2, 16, 16, 16)
    torch.testing.assert_close(once, again, atol=1e-4, rtol=0)


def test_unknown_voxels_are_zero_and_do_not_darken_their_neighbours() -> None:
    crops = torch.ones(1, 1, 16, 16, 16)
    valid = torch.ones_like(crops)
    valid[..., :6] = 0
    out = network_input(crops, valid, CONFIG)
    assert float(out[..., :6].abs().max()) == 0.0
    # a constant stays without contrast up to the edge of what is known (the grid's own border aside)
    assert float(out[..., 6:9].abs().max()) < 1e-4


def test_the_answer_turns_with_the_world(generator: torch.Generator) -> None:
    network = Moments()
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -3.0 * 31.5
    origin = torch.zeros(3, dtype=torch.float64)
    volume = blob_volume(affine, (64, 64, 64), origin)
    base = find_rotation([network], *head_cube(volume, origin), 290.0, CONFIG, views=4)
    again = find_rotation([network], *head_cube(volume, origin), 290.0, CONFIG, views=4)
    assert torch.equal(base.rotation, again.rotation)
    element = rotation_about("z", 90.0)
    turned = torch.eye(4, dtype=torch.float64)
    turned[:3, :3] = element
    moved = Volume(volume.data, turned @ affine, "turned")
    other = find_rotation([network], *head_cube(moved, origin), 290.0, CONFIG, views=8)
    assert math.degrees(float(geodesic_angle(other.rotation, element @ base.rotation))) < 12.0


def test_confidence_falls_with_spread_and_grows_with_the_singular_value() -> None:
    weights = (0.5, -0.1, 2.0)

    def confidence(spread: float, value: float) -> float:
        return answer_confidence(Answer(torch.eye(3).double(), (1.0, 1.0, value), spread), weights)

    assert confidence(0.0, 0.0) == pytest.approx(1 / (1 + math.exp(-0.5)))
    assert confidence(5.0, 0.5) > confidence(30.0, 0.5)
    assert confidence(5.0, 0.9) > confidence(5.0, 0.1)
    assert 0.0 <= confidence(180.0, 0.0) <= 1.0


def test_size_factor_is_one_at_the_reference() -> None:
    assert size_factor(290.0) == pytest.approx(1.0)
    assert size_factor(8 * 290.0) == pytest.approx(2.0)
