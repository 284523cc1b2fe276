"""Grids of rotations against numbers of an independent program, and their laws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, GeometryError
from equivox.geometry.rotations import geodesic_angle, random_rotations, rotation_about
from equivox.geometry.so3_grid_points import (
    fibonacci_sphere,
    group_rotations,
    healpix_sphere,
    optimised_sizes,
)
from equivox.geometry.so3_grids import RotationGrid, rotation_grid, square_group

FAMILIES = {"fib": "fibonacci", "fibd": "d4-fibonacci", "superfib": "superfibonacci", "hphopf": "healpix"}
GROUPS = {"octahedral": "O", "tetrahedral": "T", "icosahedral": "I"}


def name_of(fixture: str) -> str:
    family, _, size = fixture.partition("_")
    return GROUPS.get(fixture) or f"{FAMILIES.get(family, family)}-{size}"


@pytest.fixture(scope="module")
def tables(fixture_path: Callable[[str], Path]) -> dict[str, torch.Tensor]:
    """Quaternions (x, y, z, w) by the fixture's names; the file has w first."""
    with np.load(fixture_path("projection2d/grids.npz")) as archive:
        return {name: torch.from_numpy(archive[name][:, [1, 2, 3, 0]]) for name in archive.files}


def places_in(grid: RotationGrid, quaternions: torch.Tensor) -> torch.Tensor:
    """Where each of the fixture's members stands in our order."""
    found = (quaternions @ grid.quaternions.T).abs()
    assert float((found.amax(dim=1) - 1).abs().max()) < 1e-9
    return found.argmax(dim=1)


def test_every_grid_equals_the_fixture_up_to_sign(tables: dict[str, torch.Tensor]) -> None:
    assert len(tables) == 21
    for name, quaternions in tables.items():
        grid = rotation_grid(name_of(name))
        order = places_in(grid, quaternions)
        assert sorted(order.tolist()) == list(range(len(grid))), name
        if name not in GROUPS and not name.startswith("d4opt"):
            assert order.tolist() == list(range(len(grid))), name


def test_covering_radii_and_closure_equal_the_fixture(fixture_path: Callable[[str], Path]) -> None:
    known = json.loads(fixture_path("projection2d/grids.json").read_text())
    square = square_group()
    for name, numbers in known.items():
        grid = rotation_grid(name_of(name))
        assert len(grid) == numbers["R"]
        assert grid.covering_radius_deg() == pytest.approx(numbers["covering_deg"], abs=1e-3), name
        assert grid.is_closed(square[:4]) == numbers["c4_closed"], name
        assert grid.is_closed(square) == numbers["d4_closed"], name


@pytest.mark.parametrize(
    ("name", "count", "radius_deg"),
    [("superfibonacci-16", 16, 97.4), ("superfibonacci-24", 24, 85.3), ("fibonacci-8x4", 32, 66.1),
     ("d4-fibonacci-4x4", 16, 94.8), ("fibonacci-12x6", 72, 51.9), ("fibonacci-16x8", 128, 42.4),
     ("fibonacci-64x4", 256, 47.8), ("fibonacci-16x16", 256, 40.3), ("fibonacci-48x12", 576, 25.0)],
)  # fmt: skip
def test_covering_radii_equal_the_published_table(name: str, count: int, radius_deg: float) -> None:
    assert len(rotation_grid(name)) == count
    assert rotation_grid(name).covering_radius_deg() == pytest.approx(radius_deg, abs=0.05)


def test_the_covering_radius_bounds_every_distance_and_is_nearly_reached(generator: torch.Generator) -> None:
    grid = rotation_grid("d4opt-64")
    drawn = random_rotations(20_000, generator=generator)
    apart = torch.rad2deg(geodesic_angle(grid.matrices[grid.nearest(drawn)], drawn))
    radius = grid.covering_radius_deg()
    assert 0.9 * radius < float(apart.max()) <= radius
    assert float(apart.mean()) == pytest.approx(29.4, rel=0.005)


def test_permutations_equal_the_fixture(tables: dict[str, torch.Tensor], fixture_path: Callable[[str], Path]) -> None:
    with np.load(fixture_path("projection2d/d4_permutations.npz")) as archive:
        elements = torch.from_numpy(archive["d4"])
        torch.testing.assert_close(elements, square_group(), atol=1e-12, rtol=0)
        for name in archive.files:
            if name == "d4":
                continue
            grid = rotation_grid(name_of(name))
            ours = places_in(grid, tables[name])
            for element, expected in zip(elements, torch.from_numpy(archive[name]).long(), strict=True):
                torch.testing.assert_close(grid.permutation(element)[ours], ours[expected])


def test_permutations_are_a_homomorphism() -> None:
    grid = rotation_grid("d4opt-72")
    first, second = square_group()[1], square_group()[6]
    both = grid.permutation(first @ second)
    torch.testing.assert_close(both, grid.permutation(first)[grid.permutation(second)])


def test_an_open_grid_refuses_a_mirror() -> None:
    with pytest.raises(GeometryError, match=r"fibonacci-8x8 is not closed.*d4opt"):
        rotation_grid("fibonacci-8x8").permutation(rotation_about("y", 180.0))


def test_in_plane_combs_permute_at_their_own_angles() -> None:
    grid = rotation_grid("d4-fibonacci-4x24")
    assert grid.is_closed(rotation_about("z", 15.0)[None])
    assert not grid.is_closed(rotation_about("z", 10.0)[None])


def test_nearest_members_equal_the_fixture(
    tables: dict[str, torch.Tensor], fixture_path: Callable[[str], Path]
) -> None:
    with np.load(fixture_path("projection2d/nearest.npz")) as archive:
        queries = torch.from_numpy(archive["queries"][:, [1, 2, 3, 0]])
        from equivox.geometry.rotations import rotation_from_quaternion

        matrices = rotation_from_quaternion(queries)
        for name in archive.files:
            if name != "queries":
                grid = rotation_grid(name_of(name))
                expected = places_in(grid, tables[name])[torch.from_numpy(archive[name])]
                torch.testing.assert_close(grid.nearest(matrices), expected)


def test_the_tree_of_large_grids_agrees_with_the_product(generator: torch.Generator) -> None:
    large = rotation_grid("superfibonacci-5000")
    drawn = random_rotations(200, generator=generator)
    exact = torch.stack([geodesic_angle(large.matrices, one.expand_as(large.matrices)).amin() for one in drawn])
    torch.testing.assert_close(geodesic_angle(large.matrices[large.nearest(drawn)], drawn), exact)


def test_sphere_points_equal_the_fixture(fixture_path: Callable[[str], Path]) -> None:
    with np.load(fixture_path("projection2d/sphere_points.npz")) as archive:
        for nside in (1, 2, 4):
            expected = torch.from_numpy(archive[f"healpix{nside}"])
            torch.testing.assert_close(healpix_sphere(nside), expected, atol=1e-12, rtol=0)
        expected = torch.from_numpy(archive["fibonacci32"])
        torch.testing.assert_close(fibonacci_sphere(32), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["C1", "C7", "D2", "D7", "T", "O", "I"])
def test_groups_are_groups_and_equal_the_fixture(name: str, fixture_path: Callable[[str], Path]) -> None:
    members = group_rotations(name)
    torch.testing.assert_close(members[0], torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert RotationGrid(name, members).is_closed(members)
    with np.load(fixture_path("projection2d/symmetry_groups.npz")) as archive:
        expected = torch.from_numpy(archive[name])
    assert len(members) == len(expected)
    apart = (members[:, None] - expected[None]).abs().amax(dim=(2, 3)).amin(dim=1)
    assert float(apart.max()) < 1e-9


def test_weights_add_up_and_follow_the_symmetry() -> None:
    for name in ("O", "C9", "D4"):
        count = len(rotation_grid(name))
        torch.testing.assert_close(rotation_grid(name).weights, torch.full((count,), 1.0 / count, dtype=torch.float64))
    grid = rotation_grid("d4-fibonacci-8x8")
    assert float(grid.weights.sum()) == pytest.approx(1.0, abs=1e-12)
    for element in square_group():
        torch.testing.assert_close(grid.weights[grid.permutation(element)], grid.weights, atol=1e-15, rtol=0)


def test_weights_are_the_shares_of_random_rotations(generator: torch.Generator) -> None:
    grid = rotation_grid("fibonacci-8x4")
    drawn = random_rotations(200_000, generator=generator)
    share = torch.bincount(grid.nearest(drawn), minlength=len(grid)) / len(drawn)
    torch.testing.assert_close(grid.weights, share.double(), atol=0.0015, rtol=0)  # four deviations of a share of 1/32


@pytest.mark.parametrize(("grid", "group", "kept"), [("O", "C4", 6), ("O", "D4", 3), ("O", "T", 2), ("I", "D2", 15)])
def test_cosets_of_a_closed_grid_keep_one_member_each_and_cover_as_well(grid: str, group: str, kept: int) -> None:
    whole = rotation_grid(grid)
    reduced = whole.coset_reduce(group_rotations(group), group)
    assert len(reduced) == kept
    assert reduced.covering_radius_deg() == pytest.approx(whole.covering_radius_deg(), abs=1e-6)
    assert reduced.is_closed(square_group()) == whole.is_closed(square_group())


@pytest.mark.parametrize(("group", "least", "most"), [("C2", 240, 320), ("D2", 130, 180), ("C7", 70, 100)])
def test_one_zone_of_any_other_grid_stays_closed(group: str, least: int, most: int) -> None:
    whole = rotation_grid("d4opt-576")
    reduced = whole.coset_reduce(group_rotations(group), group)
    assert least <= len(reduced) <= most
    assert reduced.is_closed(square_group())
    assert reduced.covering_radius_deg() < 1.5 * whole.covering_radius_deg()


def test_equal_members_of_a_symmetric_particle_are_found(generator: torch.Generator) -> None:
    group = group_rotations("C7")
    reduced = rotation_grid("d4opt-256").coset_reduce(group, "C7")
    drawn = random_rotations(50, generator=generator)
    torch.testing.assert_close(reduced.nearest(drawn), reduced.nearest(drawn @ group[3]))


def test_every_shipped_table_is_exactly_closed() -> None:
    assert optimised_sizes() == (16, 24, 32, 64, 72, 128, 256, 576)
    for size in optimised_sizes():
        grid = rotation_grid(f"d4opt-{size}")
        for element in square_group():
            apart = (element @ grid.matrices - grid.matrices[grid.permutation(element)]).abs().max()
            assert float(apart) < 5e-15


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("d4opt-17", "no table d4opt-17; shipped are d4opt-16"),
        ("healpix-3", "power of 2"),
        ("fibonaci-8x8", "did you mean 'fibonacci-8x8'"),
        ("d4-fibonacci-7x8", "even number"),
        ("d4-fibonacci-8x6", "multiple of 4"),
        ("fibonacci-7", "cannot be split"),
        ("", "known are"),
    ],
)
def test_a_wrong_name_says_what_to_do(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        rotation_grid(name)


def test_fibonacci_grids_may_be_named_by_their_size() -> None:
    torch.testing.assert_close(rotation_grid("fibonacci-256").matrices, rotation_grid("fibonacci-32x8").matrices)
    torch.testing.assert_close(rotation_grid("d4-fibonacci-16").matrices, rotation_grid("d4-fibonacci-4x4").matrices)
