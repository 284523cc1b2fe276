"""The error metric itself: zero for round kernels, right for known ones, and what two turned outputs differ by."""

from __future__ import annotations

import pytest
import torch

from equivox.geometry.harmonics import spherical_harmonics
from equivox.geometry.rotations import random_rotations
from equivox.geometry.wigner import wigner_matrix
from equivox.kernels.basis3d import TapGrid
from equivox.kernels.radial import GaussianShells, SmoothFinite
from equivox.kernels.sampled import sampled_functions, unit_functions
from equivox.kernels.transfer import combine_errors, transfer_error


def test_a_single_central_tap_is_exactly_equivariant() -> None:
    error = transfer_error(torch.ones(1, 1, 1), torch.zeros(1, 3), [0.1, 3.0])
    assert float(error.error.max()) < 1e-14
    torch.testing.assert_close(error.amplitude_each, torch.ones(1, 2, dtype=torch.float64))


def test_central_differences_have_the_error_of_their_sine() -> None:
    """K_x = 2i sin w_x: the part of sin that is not radial, w^3 (x^3 - 3/5 x) / 6 to lowest order."""
    taps = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    found = transfer_error(taps.mT[None], taps, [0.01, 0.02])
    x = torch.linspace(-1, 1, 20001, dtype=torch.float64)
    left_over = ((x**3 - 0.6 * x) / 6).square().mean().sqrt() * 3**0.5
    torch.testing.assert_close(found.error, left_over * torch.tensor([1e-4, 4e-4]).double(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("degree", range(4))
def test_a_fine_grid_of_smooth_taps_has_almost_no_error(degree: int) -> None:
    grid = TapGrid((19, 19, 19), (0.5, 0.5, 0.5))
    positions = grid.positions_mm()
    kernel = torch.exp(-positions.square().sum(-1)) * spherical_harmonics(degree, positions, normalize=False).mT
    assert float(transfer_error(kernel[None], positions, [0.5, 1.0]).error.max()) < 1e-6


def test_two_turned_outputs_differ_by_the_root_of_two_of_it(generator: torch.Generator) -> None:
    """||K(R w) - D(R) K(w)|| / ||K|| over random turns, against the metric."""
    grid, degree, frequency = TapGrid.for_size(5), 2, 1.0
    positions = grid.positions_mm()
    functions = unit_functions(SmoothFinite(5, 0.0, 2.5, cutoff=True), degree, grid)
    waves = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    waves = frequency * waves / waves.norm(dim=-1, keepdim=True)

    def transfer(at: torch.Tensor) -> torch.Tensor:
        return torch.einsum("nmt,pt->npm", functions.to(torch.complex128), torch.exp(-1j * (at @ positions.mT)))

    wrong = power = 0.0
    for rotation in random_rotations(30, generator=generator, dtype=torch.float64):
        still = transfer(waves)
        matrix = wigner_matrix(degree, rotation).to(still.dtype)
        wrong += float((transfer(waves @ rotation.mT) - still @ matrix.mT).abs().square().sum())
        power += float(still.abs().square().sum())
    expected = float(transfer_error(functions, positions, [frequency]).error)
    assert (wrong / power / 2) ** 0.5 == pytest.approx(expected, rel=0.03)


def test_functions_that_see_nothing_do_not_divide_by_zero() -> None:
    error = transfer_error(torch.zeros(1, 3, 2), torch.eye(3)[:2], [1.0])
    assert error.error.tolist() == [0.0]


def test_unit_functions_drop_what_no_tap_feels() -> None:
    """e3nn's first bump at five functions lies between the centre and its neighbours."""
    grid = TapGrid.for_size(5)
    dead = SmoothFinite(5, 0.0, 2.5, cutoff=True)
    functions = unit_functions(dead, 1, grid)
    assert len(functions) == 4
    torch.testing.assert_close(functions.flatten(1).norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert sampled_functions(dead, 1, grid).shape == (5, 3, 125)
    assert len(unit_functions(GaussianShells.for_kernel(5), 1, grid)) == 2  # the central shell carries degree 0 only


def test_a_layer_lies_between_its_worst_and_its_best_degree() -> None:
    grid = TapGrid.for_size(5)
    parts = [
        transfer_error(unit_functions(GaussianShells.for_kernel(5), degree, grid), grid.positions_mm(), [0.5])
        for degree in (0, 2)
    ]
    layer = combine_errors(parts, [3, 6])
    assert parts[0].error < layer < parts[1].error
    torch.testing.assert_close(combine_errors(parts, [0, 6]), parts[1].error)
