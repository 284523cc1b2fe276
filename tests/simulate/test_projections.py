"""Projections against closed forms, their centre, and two independent ways to the same image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.formats.mrc import read_mrc
from equivox.geometry.euler_relion import matrix_from_relion
from equivox.geometry.rotations import cube_group, random_rotations, rotation_about
from equivox.samples import particle_maps_folder
from equivox.simulate.projections import density_from_atoms, project
from equivox.simulate.specimen import blob_cloud, specimen_from_atoms, specimen_from_map

GAUSSIANS = Path(__file__).parents[1] / "fixtures" / "projection2d" / "projection_gaussians.npz"


def sampled(centres: torch.Tensor, sigma: torch.Tensor, weight: torch.Tensor, side: int) -> torch.Tensor:
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    total = torch.zeros(side, side, side, dtype=torch.float64)
    for c, s, a in zip(centres, sigma, weight, strict=True):
        total += a * torch.exp(-((x - c[0]) ** 2 + (y - c[1]) ** 2 + (z - c[2]) ** 2) / (2 * s**2))
    return total


@pytest.mark.parametrize(("name", "side", "tolerance"), [("filter9", 9, 2e-2), ("particle33", 33, 2e-3)])
def test_a_voxel_map_projects_as_its_closed_form(name: str, side: int, tolerance: float) -> None:
    data = {key: torch.from_numpy(value) for key, value in np.load(GAUSSIANS).items()}
    volume = sampled(data[f"{name}_centres_xyz"], data[f"{name}_sigma"], data[f"{name}_amp"], side)
    expected = data[f"{name}_projection"]
    found = project(volume, data[f"{name}_matrix"])
    error = (found - expected).abs().amax(dim=(1, 2)) / expected.abs().amax(dim=(1, 2))
    assert float(error.max()) < tolerance


@pytest.mark.parametrize("side", [24, 25])
def test_a_bright_dot_at_the_origin_stays_at_the_middle_pixel(side: int, generator: torch.Generator) -> None:
    volume = torch.zeros(side, side, side, dtype=torch.float64)
    volume[side // 2, side // 2, side // 2] = 1.0
    images = project(volume, random_rotations(5, generator=generator))
    for image in images:
        place = int(image.argmax())
        assert (place // side, place % side) == (side // 2, side // 2)


@pytest.mark.parametrize("side", [24, 25])
def test_a_dot_moves_as_its_position_turns(side: int) -> None:
    """A dot at (x, y, z) = (3, 5, 0) shows up at the first two components of R p, to the pixel, in the file's axes."""
    axis = torch.arange(side, dtype=torch.float64) - side // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    point = torch.tensor([3.0, 5.0, -4.0], dtype=torch.float64)
    volume = torch.exp(-((x - 3) ** 2 + (y - 5) ** 2 + (z + 4) ** 2) / 2)
    rotations = cube_group()
    for rotation, image in zip(rotations, project(volume, rotations), strict=True):
        place = int(image.argmax())
        expected = (rotation @ point)[:2].round().long() + side // 2
        assert (place % side, place // side) == tuple(expected.tolist())


def test_quarter_turns_about_the_line_of_sight_turn_the_image(generator: torch.Generator) -> None:
    whole = torch.from_numpy(np.array(read_mrc(particle_maps_folder() / "1igy_64_4A.mrc.gz").data)).double()
    volume = whole[9:54, 9:54, 9:54]
    first = random_rotations(1, generator=generator)[0]
    turned = rotation_about("z", 90.0) @ first
    images = project(volume, torch.stack([first, turned]))
    # +x goes to +y: on an odd grid exactly a turn of the array
    assert_close(images[1], torch.rot90(images[0], -1, dims=(0, 1)), atol=1e-9, rtol=0)


def test_shifts_move_the_image_and_pixels_can_be_larger(generator: torch.Generator) -> None:
    volume = torch.from_numpy(np.array(read_mrc(particle_maps_folder() / "11as_64_3A.mrc.gz").data))
    rotation = random_rotations(1, generator=generator)
    plain = project(volume, rotation, voxel_size_angstrom=3.0)
    moved = project(volume, rotation, voxel_size_angstrom=3.0, shifts_px=torch.tensor([[3.0, -2.0]]))
    assert_close(moved[0], torch.roll(plain[0], (-2, 3), dims=(0, 1)), atol=2e-3 * float(plain.max()), rtol=0)
    coarse = project(volume, rotation, voxel_size_angstrom=3.0, pixel_size_angstrom=6.0, image_side=32)
    assert_close(coarse.sum() * 36.0, plain.sum() * 9.0, rtol=1e-4, atol=0)
    assert_close(coarse[0, 16, 16], plain[0, 32, 32], rtol=0.05, atol=0)


def test_relions_angles_give_the_view_they_name() -> None:
    """Tilt 90, rot 0: the viewer looks along the particle's +x; a dot on +x lies in the middle."""
    volume = torch.zeros(25, 25, 25, dtype=torch.float64)
    volume[12, 12, 20] = 1.0
    angles = torch.tensor([0.0, 90.0, 0.0], dtype=torch.float64)
    image = project(volume, matrix_from_relion(*angles)[None])[0]
    assert int(image.argmax()) == 12 * 25 + 12


@pytest.mark.parametrize(("pixel", "side"), [(3.0, 64), (6.0, 32), (6.0, 33)])
def test_atoms_and_their_map_project_to_the_same_image(pixel: float, side: int, generator: torch.Generator) -> None:
    positions = 14.0 * torch.randn(300, 3, generator=generator, dtype=torch.float64)
    electrons = torch.full((300,), 7.0, dtype=torch.float64)
    rotations = random_rotations(3, generator=generator)
    shifts = 2.0 * torch.rand(3, 2, generator=generator) - 1.0
    atoms = specimen_from_atoms("atoms", positions, electrons, resolution_angstrom=12.0)
    density = density_from_atoms(positions, electrons, side=72, voxel_size_angstrom=2.0, resolution_angstrom=12.0)
    mapped = specimen_from_map("map", density, voxel_size_angstrom=2.0)
    pictures = [
        one.images(rotations, side=side, pixel_size_angstrom=pixel, shifts_px=shifts) for one in (atoms, mapped)
    ]
    assert_close(pictures[0], pictures[1], atol=0.015 * float(pictures[1].max()), rtol=0)
    assert_close(pictures[0].sum(dim=(1, 2)) * pixel**2, torch.full((3,), 2100.0), rtol=2e-3, atol=0)


def test_the_shipped_maps_are_those_of_their_structures(shared_path: Callable[[str], Path]) -> None:
    pytest.importorskip("gemmi")
    from equivox.formats.atoms import read_atoms

    for name, voxel in (("11as", 3.0), ("1igy", 4.0)):
        atoms = read_atoms(shared_path(f"data/cryoem/structures/{name}.pdb.gz"))
        density = density_from_atoms(
            atoms.positions_angstrom, atoms.electrons, side=64, voxel_size_angstrom=voxel, sigma_angstrom=3.0
        )
        shipped = read_mrc(particle_maps_folder() / f"{name}_64_{voxel:.0f}A.mrc.gz")
        assert np.abs(density.numpy() - shipped.data).max() < 6.2e-5  # they were rounded to 2^-14
        assert shipped.pixel_size_angstrom == voxel


def test_a_resolution_that_voxels_cannot_hold_is_refused() -> None:
    some = torch.zeros(1, 3), torch.ones(1)
    with pytest.raises(ConfigError, match=r"at most 2\.5"):
        density_from_atoms(*some, side=8, voxel_size_angstrom=3.0, resolution_angstrom=5.0)
    with pytest.raises(ConfigError, match="either"):
        density_from_atoms(*some, side=8, voxel_size_angstrom=3.0)
    with pytest.raises(ConfigError, match="nothing positive"):
        specimen_from_map("m", torch.zeros(4, 4, 4), voxel_size_angstrom=1.0)


def test_parts_and_decoys_have_the_particles_size(generator: torch.Generator) -> None:
    volume = torch.from_numpy(np.array(read_mrc(particle_maps_folder() / "3wip_64_3A.mrc.gz").data))
    whole = specimen_from_map("whole", volume, voxel_size_angstrom=3.0)
    part = whole.broken(generator=generator)
    assert 0.15 * whole.mass() < part.mass() < 0.85 * whole.mass()
    decoy = blob_cloud(whole, generator=generator)
    assert decoy.mass() == pytest.approx(whole.mass(), rel=0.3)
    points = torch.randn(50, 3, generator=generator) * 20
    atoms = specimen_from_atoms("a", points.double(), torch.ones(50, dtype=torch.float64), resolution_angstrom=6.0)
    assert 0 < atoms.broken(generator=generator).mass() < 50
