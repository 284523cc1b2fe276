"""The measurement of equivariance measures: right things pass, wrong things fail, numbers mean what they say."""

from __future__ import annotations

import pytest
import torch

from equivox.geometry.rotations import cube_group, random_rotations
from equivox.geometry.wigner import irreps_matrix
from equivox.testing import assert_equivariant, band_limited_field, equivariance_error, plain_control, rotate_field

LAYOUT = "1x0e+1x0o+1x1o+1x1e+1x2e"


def test_turning_on_the_grid_is_sampling_the_turned_field(generator: torch.Generator) -> None:
    field = band_limited_field(LAYOUT, generator=generator, batch=2)
    sampled = field.sample((5, 5, 5))
    for element in cube_group(improper=True)[::9]:
        torch.testing.assert_close(
            rotate_field(sampled, LAYOUT, element), field.sample((5, 5, 5), rotation=element), atol=1e-12, rtol=0
        )


def test_turning_is_a_group_action_on_unequal_sides(generator: torch.Generator) -> None:
    field = torch.randn(1, 13, 3, 4, 5, generator=generator, dtype=torch.float64)
    first, second = cube_group(improper=True)[[7, 33]]
    both = rotate_field(field, LAYOUT, first @ second)
    torch.testing.assert_close(
        both, rotate_field(rotate_field(field, LAYOUT, second), LAYOUT, first), atol=1e-13, rtol=0
    )
    with pytest.raises(ValueError, match="symmetries of the cube"):
        rotate_field(field, LAYOUT, random_rotations(1, generator=generator)[0])


def test_an_exact_function_has_error_zero_at_any_angle(generator: torch.Generator) -> None:
    rotations = random_rotations(4, generator=generator)
    error = equivariance_error(lambda field: 2 * field, LAYOUT, LAYOUT, rotations, generator=generator, side=5)
    assert error.shape == (4,)
    assert float(error.max()) < 1e-12
    pooled = equivariance_error(lambda f: f[:, :, 2, 2, 2], LAYOUT, LAYOUT, rotations, generator=generator, side=5)
    assert float(pooled.max()) < 1e-12


def test_the_number_is_the_relative_size_of_what_is_wrong(generator: torch.Generator) -> None:
    """A constant added to one component of a vector: the error is known in closed form."""
    shift = torch.tensor([0.25, 0.0, 0.0], dtype=torch.float64)
    turn = random_rotations(1, generator=generator)
    wrong = lambda field: torch.zeros_like(field) + shift.view(1, 3, 1, 1, 1)  # noqa: E731
    error = equivariance_error(wrong, "1x1o", "1x1o", turn, generator=generator, side=3)
    expected = (shift - irreps_matrix("1x1o", turn[0]) @ shift).norm() / shift.norm()
    assert float(error[0]) == pytest.approx(float(expected), abs=1e-10)


def test_mistakes_are_caught_and_named(generator: torch.Generator) -> None:
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(torch.relu, "1x1o", "1x1o")  # a vector may not go through relu
    with pytest.raises(AssertionError, match="24 of 48"):
        assert_equivariant(torch.relu, "2x0o", "2x0o")  # nor a pseudoscalar: wrong under reflections only
    assert_equivariant(torch.relu, "2x0o", "2x0o", improper=False)
    assert_equivariant(torch.relu, "2x0e", "2x0e")
    control = plain_control("1x0e+1x1o", "1x0e+1x1o", generator=generator)
    with pytest.raises(AssertionError, match="not equivariant"):
        assert_equivariant(control, "1x0e+1x1o", "1x0e+1x1o")


def test_a_blind_test_says_so() -> None:
    with pytest.raises(AssertionError, match="cannot see"):
        assert_equivariant(lambda field: field, "1x0e", "1x0e", side=1)


def test_an_output_without_centre_is_refused(generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="no centre voxel"):
        equivariance_error(
            lambda f: f, "1x0e", "1x0e", random_rotations(1, generator=generator), generator=generator, side=4
        )
