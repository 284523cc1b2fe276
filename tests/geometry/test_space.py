"""Volumes keep every value at its place in the world, whatever is done to the grid."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from equivox.errors import GeometryError
from equivox.geometry.rotations import cube_group, random_rotations
from equivox.geometry.space import Volume, isotropic_grid

seeds = st.integers(0, 2**31 - 1)


def oblique_volume(seed: int, shape: tuple[int, int, int] = (7, 6, 5), flip: bool = True) -> Volume:
    draw = torch.Generator().manual_seed(seed)
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = random_rotations(1, generator=draw)[0] @ torch.diag(torch.tensor([2.0, 1.5, 3.0]).double())
    if flip:
        affine[:3, 0] *= -1
    affine[:3, 3] = torch.randn(3, generator=draw).double() * 20
    return Volume(torch.randn(2, *shape, generator=draw, dtype=torch.float64), affine, "oblique")


def smooth_volume(affine: torch.Tensor, shape: tuple[int, int, int]) -> Volume:
    """A linear function of the world position, so that linear interpolation is exact."""
    volume = Volume(torch.zeros(1, *shape, dtype=torch.float64), affine)
    axes = [torch.arange(size, dtype=torch.float64) for size in shape]
    index = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    world = volume.world_from_voxel(index)
    values = world @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    return Volume(values[None], affine)


@given(seed=seeds, codes=st.sampled_from(["RAS", "LPS", "LIP", "SRA"]))
def test_reorient_keeps_every_value_at_its_world_position(seed: int, codes: str) -> None:
    volume = oblique_volume(seed)
    turned = volume.reorient(codes)
    assert turned.axis_codes == codes
    draw = torch.Generator().manual_seed(seed + 1)
    for _ in range(5):
        index = [int(torch.randint(0, size, (1,), generator=draw)) for size in volume.shape]
        world = volume.world_from_voxel(torch.tensor(index, dtype=torch.float64))
        there = turned.voxel_from_world(world).round().long().tolist()
        assert torch.equal(turned.data[(slice(None), *there)], volume.data[(slice(None), *index)])


@given(seed=seeds)
def test_reorient_to_ras_is_right_handed_and_round_trips(seed: int) -> None:
    volume = oblique_volume(seed)
    upright = volume.reorient("RAS")
    assert float(torch.linalg.det(upright.direction)) > 0
    back = upright.reorient(volume.axis_codes)
    assert torch.equal(back.data, volume.data)
    assert_close(back.affine, volume.affine, atol=1e-9, rtol=0)


def test_axis_codes_of_every_cube_orientation_name_three_axes() -> None:
    for turn in cube_group(improper=True):
        affine = torch.eye(4, dtype=torch.float64)
        affine[:3, :3] = turn
        assert len(set(Volume(torch.zeros(1, 2, 2, 2), affine).axis_codes)) == 3


@given(seed=seeds)
def test_resampling_a_linear_function_is_exact_inside(seed: int) -> None:
    volume = oblique_volume(seed)
    linear = smooth_volume(volume.affine, (9, 8, 7))
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, 3] = linear.center_mm() - 1.0
    sampled = linear.resample(affine, (3, 3, 3))
    expected = smooth_volume(affine, (3, 3, 3))
    assert_close(sampled.data, expected.data, atol=1e-9, rtol=0)


def test_resampling_is_zero_beyond_the_outer_voxel_edges_only() -> None:
    volume = Volume(torch.ones(1, 4, 4, 4), torch.eye(4, dtype=torch.float64))
    affine = torch.eye(4, dtype=torch.float64)
    affine[0, 3] = -1.0
    affine[0, 0] = 0.25
    line = volume.resample(affine, (24, 4, 4)).data[0, :, 2, 2]
    position = -1.0 + 0.25 * torch.arange(24)
    assert torch.equal(line > 0, (position >= -0.5) & (position <= 3.5))
    assert torch.equal(volume.valid_on(affine, (24, 4, 4))[:, 2, 2], line > 0)


@given(seed=seeds)
def test_crop_pads_with_zeros_and_keeps_world_positions(seed: int) -> None:
    volume = oblique_volume(seed)
    cut = volume.crop((-1, 2, 1), (4, 9, 3))
    assert cut.shape == (5, 7, 2)
    assert torch.equal(cut.data[:, 1:, :4], volume.data[:, :4, 2:6, 1:3])
    assert float(cut.data[:, 0].abs().max()) == 0.0
    there = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    here = torch.tensor([0.0, 2.0, 1.0], dtype=torch.float64)
    assert_close(cut.world_from_voxel(there), volume.world_from_voxel(here), atol=1e-9, rtol=0)


@given(seed=seeds, size=st.sampled_from([1.0, 3.0, 8.0]))
def test_isotropic_grid_covers_the_field_of_view(seed: int, size: float) -> None:
    volume = oblique_volume(seed)
    affine, shape = isotropic_grid(volume, size)
    corners = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)]).double()
    world = volume.world_from_voxel(corners * torch.tensor(volume.shape).double() - 0.5)
    index = (world - affine[:3, 3]) / size
    assert bool((index >= -0.5 - 1e-6).all())
    assert bool((index <= torch.tensor(shape).double() - 0.5 + 1e-6).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:3, 0].zero_(), "singular affine"),
        (lambda a: a[0, 3].fill_(float("nan")), "NaN or infinite"),
        (lambda a: a[0, 1].fill_(0.5), "sheared affine"),
        (lambda a: a[3, 0].fill_(1.0), "last row"),
        (lambda a: a[:3, 1].copy_(a[:3, 0]), "singular affine"),
    ],
)
def test_volume_refuses_an_affine_that_places_no_rectangular_grid(change: object, message: str) -> None:
    affine = torch.eye(4, dtype=torch.float64)
    change(affine)  # type: ignore[operator]
    with pytest.raises(GeometryError, match=message):
        Volume(torch.zeros(1, 3, 3, 3), affine, "scan.nii.gz")
