"""Projected filters against an independent program, and what is exact about them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError
from equivox.geometry.rotations import random_rotations, rotation_about, rotation_from_quaternion
from equivox.geometry.so3_grids import RotationGrid, rotation_grid
from equivox.kernels.projected import (
    ball_basis,
    ball_matrix,
    ball_projections,
    ball_scale,
    fit_ball,
    planar_profiles,
    sample_ball,
)
from equivox.kernels.projected_cube import TRILINEAR_LOSS, cube_filters, square_filters, square_variance
from equivox.kernels.projected_error import in_plane_error

SIZES = (5, 7, 9, 11)


@pytest.mark.parametrize("size", SIZES)
def test_the_basis_equals_the_fixture(size: int, fixture_path: Callable[[str], Path]) -> None:
    layout = json.loads(fixture_path("projection2d/ball_basis.json").read_text())[str(size)]
    basis = ball_basis(size)
    assert [list(block) for block in basis.blocks] == layout["shells"]
    assert list(basis.centers_px) == pytest.approx(layout["centres"], abs=1e-12)
    assert (basis.sigma_px, basis.taper_px, basis.dimension) == (layout["sigma"], layout["taper"], layout["dim"])
    with np.load(fixture_path("projection2d/ball_basis.npz")) as archive:
        stored = {
            name: torch.from_numpy(archive[f"k{size}_{name}"]) for name in ("quat", "B", "norm", "weights", "filters")
        }
    matrices = rotation_from_quaternion(stored["quat"][:, [1, 2, 3, 0]])
    images = ball_projections(basis, matrices)
    torch.testing.assert_close(images.flatten(1, 2), stored["B"], atol=1e-10, rtol=0)
    factor = math.sqrt(size**2 / len(basis.blocks))
    torch.testing.assert_close(factor / ball_scale(basis), stored["norm"], atol=1e-10, rtol=0)
    ours = (images * ball_scale(basis)) @ stored["weights"] / factor
    torch.testing.assert_close(ours, stored["filters"], atol=1e-10, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_profiles_mixed_by_wigner_matrices_are_the_projections(size: int) -> None:
    basis, grid = ball_basis(size), rotation_grid("fibonacci-4x4")
    direct = ball_projections(basis, grid.matrices) * ball_scale(basis)
    torch.testing.assert_close(ball_matrix(basis, grid), direct, atol=1e-12, rtol=0)
    assert planar_profiles(basis).shape[-1] == sum(degree + 1 for _, degree in basis.blocks)


@pytest.mark.parametrize("size", SIZES)
def test_the_prior_of_the_filters_is_the_same_at_every_rotation(size: int, generator: torch.Generator) -> None:
    basis = ball_basis(size)
    poses = RotationGrid("drawn", random_rotations(20, generator=generator))
    matrix = ball_matrix(basis, poses)
    energy = matrix.square().sum(dim=(1, 2, 3))
    assert float((energy / energy.mean() - 1).abs().max()) < 1e-12
    joint = torch.einsum("ryxb,rvub->ryxvu", matrix, matrix)
    assert float((joint - joint[0]).abs().max()) < 1e-12
    assert float(joint[0].flatten(0, 1).flatten(1).diagonal().mean()) == pytest.approx(1.0, abs=1e-12)


def test_degrees_odd_along_the_ray_have_no_image() -> None:
    basis = ball_basis(7)
    image = ball_projections(basis, torch.eye(3, dtype=torch.float64)[None])[0]
    blocks = zip(basis.blocks, basis.slices(), strict=True)
    hidden = [part.start + odd for (_, degree), part in blocks for odd in range(1, 2 * degree + 1, 2)]
    assert float(image[..., hidden].abs().max()) < 1e-13


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("angle_deg", [15.0, 30.0, 45.0])
def test_balls_keep_in_plane_equivariance_between_the_pixels(size: int, angle_deg: float) -> None:
    assert in_plane_error(size, angle_deg=angle_deg, frequency_max=0.25) <= 0.01


@pytest.mark.parametrize("size", SIZES)
def test_cubes_do_not(size: int) -> None:
    assert in_plane_error(size, weight="cube", frequency_max=0.25) > 0.26
    assert in_plane_error(size, richness="rich", frequency_max=0.25) < 0.06


def test_quarter_turns_and_mirrors_are_exact_for_every_kind_of_weight(generator: torch.Generator) -> None:
    pose = random_rotations(1, generator=generator)
    grid = RotationGrid("four", torch.cat([pose, rotation_about("z", 90.0) @ pose, rotation_about("y", 180.0) @ pose]))
    cubes = torch.randn(2, 3, 7, 7, 7, generator=generator, dtype=torch.float64)
    weights = torch.randn(14, generator=generator, dtype=torch.float64)
    for filters in (
        cube_filters(cubes, grid, padded=False),
        cube_filters(cubes, grid, padded=True),
        (ball_matrix(ball_basis(7), grid) @ weights)[:, None, None],
    ):
        # +x goes to +y: rows are y, so the image turns clockwise on screen
        torch.testing.assert_close(filters[1], filters[0].rot90(-1, (-2, -1)), atol=1e-12, rtol=0)
        torch.testing.assert_close(filters[2], filters[0].flip(-1), atol=1e-12, rtol=0)


def test_a_cube_is_turned_as_its_object_is(fixture_path: Callable[[str], Path]) -> None:
    """Gaussians sampled into a cube, turned and projected, beside their analytic projections.

    The fixture's tolerance for voxels is 2 % of the maximum; its Gaussians (sigma about a pixel) lose more than that to
    trilinear interpolation at generic rotations, where the bound is 20 %, and the first three rotations are exact.
    """
    with np.load(fixture_path("projection2d/projection_gaussians.npz")) as archive:
        stored = {name[8:]: torch.from_numpy(archive[name]) for name in archive.files if name.startswith("filter9_")}
    axis = torch.arange(9, dtype=torch.float64) - 4
    points = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    cube = sum(
        amplitude * torch.exp(-(points - centre).square().sum(-1) / (2 * sigma**2))
        for centre, sigma, amplitude in zip(stored["centres_xyz"], stored["sigma"], stored["amp"], strict=True)
    )
    made = cube_filters(cube[None, None], RotationGrid("fixture", stored["matrix"]), padded=True)[:, 0, 0] * 9
    expected = stored["projection"]
    wrong = cube_filters(cube[None, None], RotationGrid("turned back", stored["matrix"].mT), padded=True)[:, 0, 0] * 9
    error = (made - expected).abs().amax(dim=(1, 2)) / expected.abs().max()
    assert float(error[0]) < 2e-2
    assert float(error[2]) < 2e-2
    assert float(error.max()) < 0.2
    assert float(((wrong - expected).abs().amax(dim=(1, 2)) / expected.abs().max())[3:].min()) > 0.2


def test_a_known_volume_is_found_again_by_its_weights(generator: torch.Generator) -> None:
    basis = ball_basis(9)
    weights = torch.randn(basis.dimension, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(fit_ball(basis, sample_ball(basis, weights)), weights, atol=1e-8, rtol=0)


def test_turned_cubes_lose_the_variance_that_the_start_makes_good(generator: torch.Generator) -> None:
    grid = RotationGrid("drawn", random_rotations(30, generator=generator))
    cubes = torch.randn(64, 1, 7, 7, 7, generator=generator, dtype=torch.float64)
    kept = 7 * float(cube_filters(cubes, grid, padded=False).square().mean())
    assert kept == pytest.approx(TRILINEAR_LOSS, abs=0.02)
    squares = torch.randn(2000, 1, 7, 7, generator=generator, dtype=torch.float64)
    plane = rotation_grid("C9")
    assert float(square_filters(squares, plane).square().mean()) == pytest.approx(square_variance(7, plane), rel=0.02)


@pytest.mark.parametrize("size", [4, 1, 0])
def test_even_sizes_are_refused(size: int) -> None:
    with pytest.raises(ConfigError, match=f"got {size}"):
        ball_basis(size)
