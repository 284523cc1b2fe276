"""Symmetric functions on grid points: as many as theory says, and turning exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from equivox.geometry.irreps import Irrep
from equivox.geometry.wigner import irreps_matrix
from equivox.kernels.basis3d import TapGrid
from equivox.kernels.symmetry import point_permutations, symmetric_functions


def ball(size: int, squared_radius: float, steps: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> np.ndarray:
    positions = TapGrid.for_size(size, steps).positions_mm().numpy()
    return positions[(positions**2).sum(axis=1) <= squared_radius + 1e-9]


@pytest.mark.parametrize(
    ("steps", "elements"), [((1.0, 1.0, 1.0), 48), ((1.0, 1.0, 2.0), 16), ((1.5, 1.0, 1.0), 16), ((1.0, 1.2, 1.5), 8)]
)
def test_a_grid_keeps_the_symmetries_that_its_steps_leave(steps: tuple[float, float, float], elements: int) -> None:
    positions = ball(5, 6.25, steps)
    matrices, permutations = point_permutations(positions)
    assert len(matrices) == elements
    assert np.array_equal(matrices[0], np.eye(3))
    for matrix, permutation in zip(matrices, permutations, strict=True):
        assert np.abs(positions[permutation] - positions @ matrix.T).max() < 1e-12


@pytest.mark.parametrize(
    ("size", "squared_radius", "taps", "dimensions"),
    [
        (3, 3, 27, (4, 3, 4, 5)),
        (5, 4, 33, (5, 4, 5, 6)),
        (5, 5, 57, (6, 6, 8, 10)),
        (5, 6, 81, (7, 8, 11, 14)),
        (5, 12, 125, (10, 12, 17, 22)),
        (7, 9, 123, (10, 12, 17, 21)),
        (7, 14, 251, (15, 22, 32, 42)),
        (7, 27, 343, (20, 30, 44, 58)),
    ],
)
def test_dimensions_of_the_symmetric_space(
    size: int, squared_radius: float, taps: int, dimensions: tuple[int, ...]
) -> None:
    positions = ball(size, squared_radius)
    assert len(positions) == taps
    assert tuple(len(symmetric_functions(positions, degree)) for degree in range(4)) == dimensions


@pytest.mark.parametrize("steps", [(1.0, 1.0, 1.0), (1.0, 1.0, 2.0), (1.0, 1.2, 1.5)])
@pytest.mark.parametrize("degree", range(5))
def test_symmetric_functions_are_orthonormal_and_turn_exactly(steps: tuple[float, float, float], degree: int) -> None:
    positions = ball(5, 6.25, steps)
    functions = symmetric_functions(positions, degree)
    rows = functions.reshape(len(functions), -1)
    assert np.abs(rows @ rows.T - np.eye(len(rows))).max() < 1e-14
    matrices, permutations = point_permutations(positions)
    carried = irreps_matrix(Irrep(degree, (-1) ** degree), torch.from_numpy(matrices)).numpy()
    for matrix, permutation in zip(carried, permutations, strict=True):
        assert np.abs(functions[:, :, permutation] - np.einsum("mn,fnt->fmt", matrix, functions)).max() < 1e-13


def test_the_space_holds_every_symmetric_function() -> None:
    """The average of a random function over the group lies in the span: nothing is missing."""
    positions = ball(5, 6)
    draw = np.random.default_rng(0)
    for degree in range(4):
        matrices, permutations = point_permutations(positions)
        carried = irreps_matrix(Irrep(degree, (-1) ** degree), torch.from_numpy(matrices)).numpy()
        random = draw.normal(size=(2 * degree + 1, len(positions)))
        average = np.mean([m.T @ random[:, p] for m, p in zip(carried, permutations, strict=True)], axis=0)
        functions = symmetric_functions(positions, degree)
        inside = np.einsum("f,fmt->mt", np.einsum("fmt,mt->f", functions, average), functions)
        assert np.abs(inside - average).max() < 1e-14
        assert np.abs(average).max() > 1e-3
