"""Kernel bases: the kernel constraint, tap grids, counts of elements."""

from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError
from equivox.geometry.harmonics import spherical_harmonics
from equivox.geometry.irreps import Irrep
from equivox.geometry.rotations import cube_group, random_rotations
from equivox.geometry.wigner import coupling_tensor, irreps_matrix, wigner_matrix
from equivox.kernels.basis3d import TapGrid, filter_degrees, pair_basis
from equivox.kernels.radial import GaussianShells, SmoothFinite


@pytest.mark.parametrize("pair", [("0e", "1o"), ("1e", "1o"), ("1o", "2e"), ("2o", "2e"), ("2", "1"), ("1", "1")])
@pytest.mark.parametrize("family", [GaussianShells.for_kernel(5), SmoothFinite(5)])
def test_elements_solve_the_kernel_constraint_on_the_grid(
    pair: tuple[str, str], family: GaussianShells | SmoothFinite
) -> None:
    source, target = Irrep.parse(pair[0]), Irrep.parse(pair[1])
    grid = TapGrid.for_size(5)
    degrees = filter_degrees(source, target)
    basis = pair_basis(source.degree, target.degree, degrees, grid, family, False)
    kernels = basis.elements.unflatten(3, grid.taps)
    for element in cube_group(improper=not source.is_so3)[1::7]:
        out_matrix, in_matrix = irreps_matrix(target, element), irreps_matrix(source, element)
        points = grid.positions_mm() @ element.mT  # K(R u) = D_out K(u) D_in^-1
        index = (points + 2).round().long()
        turned = kernels[..., index[:, 0], index[:, 1], index[:, 2]]
        expected = torch.einsum("kl,elit,ij->ekjt", out_matrix, basis.elements, in_matrix.mT)
        torch.testing.assert_close(turned, expected, atol=1e-13, rtol=0)


def test_angular_part_solves_the_constraint_at_any_angle(generator: torch.Generator) -> None:
    rotation = random_rotations(1, generator=generator)[0]
    points = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    kernel = torch.einsum("ijk,tj->kit", coupling_tensor(2, 3, 1), spherical_harmonics(3, points))
    turned = torch.einsum("ijk,tj->kit", coupling_tensor(2, 3, 1), spherical_harmonics(3, points @ rotation.mT))
    expected = torch.einsum("kl,lit,ji->kjt", wigner_matrix(1, rotation), kernel, wigner_matrix(2, rotation))
    torch.testing.assert_close(turned, expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("size", "table"),
    [
        (3, [[2, 1, 1, 1], [1, 4, 3, 2], [1, 3, 5, 3], [1, 2, 3, 5]]),
        (5, [[3, 2, 2, 2], [2, 7, 6, 5], [2, 6, 10, 8], [2, 5, 8, 11]]),
    ],
)
def test_element_counts_follow_the_band_limits(size: int, table: list[list[int]]) -> None:
    """sum over shells of #{J : |j - l| <= J <= min(j + l, limit)}, counted by hand (steerable.md 1.6)."""
    family = GaussianShells.for_kernel(size)
    for out, row in enumerate(table):
        for inner, count in enumerate(row):
            degrees = filter_degrees(Irrep(inner, 0), Irrep(out, 0))
            labels = pair_basis(inner, out, degrees, TapGrid.for_size(size), family, True).labels
            assert len(labels) == count
            assert list(labels) == sorted(labels, key=lambda label: (label[1], label[0]))


def test_the_same_value_gives_the_same_tensor() -> None:
    first = pair_basis(1, 1, (0, 2), TapGrid.for_size(5), SmoothFinite(5), False)
    assert pair_basis(1, 1, (0, 2), TapGrid.for_size(5), SmoothFinite(5), False) is first


def test_tap_grids_follow_the_voxel_size() -> None:
    assert TapGrid.for_size(5, (1.0, 1.0, 2.0)).taps == (5, 5, 3)
    assert TapGrid.for_size(7, (1.0, 1.0, 2.0)).taps == (7, 7, 3)
    assert TapGrid.for_size(5, 3.0).taps == (5, 5, 5)
    assert TapGrid.for_size((3, 5, 7), 1.0).taps == (3, 5, 7)
    assert TapGrid.for_size(4).center is None
    positions = TapGrid.for_size(5, (1.0, 1.0, 2.0)).positions_mm()
    assert positions[0].tolist() == [-2.0, -2.0, -2.0]
    assert positions[1].tolist() == [-2.0, -2.0, 0.0]
    for size, voxel in [(0, 1.0), (4, (1.0, 1.0, 2.0)), (3, (1.0, -1.0, 1.0)), ((3, 3), 1.0)]:
        with pytest.raises(ConfigError):
            TapGrid.for_size(size, voxel)
