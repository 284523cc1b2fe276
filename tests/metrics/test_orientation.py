from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

from equivox.geometry.point_groups import point_group
from equivox.geometry.rotations import random_rotations, rotation_about, rotation_from_vector
from equivox.metrics.orientation import (
    CHANCE_RAD,
    constant_guess_rad,
    orientation_angles,
    reliability,
    summarise_angles,
    view_coverage,
)


def test_a_fixed_guess_scores_chance_on_uniform_poses(generator: torch.Generator) -> None:
    draws = random_rotations(40_000, generator=generator)
    found = summarise_angles(orientation_angles(draws, torch.eye(3).double().expand_as(draws)))
    assert pytest.approx(2.207416099162478, abs=1e-12) == CHANCE_RAD
    assert found.mean_rad == pytest.approx(CHANCE_RAD, abs=0.01)
    assert found.count == 40_000
    assert found.near < 0.002


def test_a_fixed_guess_on_preferred_poses(generator: torch.Generator) -> None:
    vectors = 0.1 * torch.randn(40_000, 3, generator=generator, dtype=torch.float64)
    draws = rotation_from_vector(vectors)
    found = summarise_angles(orientation_angles(draws, torch.eye(3).double().expand_as(draws)))
    assert found.mean_rad == pytest.approx(constant_guess_rad(0.1), abs=2e-3)
    assert constant_guess_rad(0.1) == pytest.approx(0.1596, abs=1e-4)


def test_guessing_among_the_equal_poses_is_no_error(generator: torch.Generator) -> None:
    truth = random_rotations(200, generator=generator)
    group = point_group("C7")
    guessed = truth @ group[torch.randint(7, (200,), generator=generator)] @ rotation_about("x", 3.0)
    reduced = orientation_angles(truth, guessed, group=group)
    assert_close(reduced, torch.full((200,), math.radians(3.0), dtype=torch.float64), atol=1e-9, rtol=0)
    assert summarise_angles(orientation_angles(truth, guessed)).mean_rad > 1.0
    with pytest.raises(ValueError, match="no poses"):
        summarise_angles(torch.zeros(0))


def test_honest_confidence_has_no_calibration_error_and_vain_one_has(generator: torch.Generator) -> None:
    told = torch.rand(60_000, generator=generator, dtype=torch.float64)
    right = torch.rand(60_000, generator=generator, dtype=torch.float64) < told
    honest = reliability(told, right)
    assert honest.error < 0.01
    assert honest.area == pytest.approx(5.0 / 6.0, abs=0.01)  # P(u1 > u2) with densities 2u and 2(1 - u)
    vain = reliability(told.sqrt(), right)
    assert vain.error == pytest.approx(2.0 / 3.0 - 0.5, abs=0.01)  # E sqrt(u) - E u
    assert vain.area == pytest.approx(honest.area, abs=1e-9)
    assert reliability(told, torch.ones_like(right)).area is None
    assert reliability(torch.ones(4), torch.tensor([True, False, True, False])).area == 0.5


def test_uniform_views_cover_the_sphere_and_a_top_view_does_not(generator: torch.Generator) -> None:
    even = view_coverage(random_rotations(30_000, generator=generator))
    assert even.empty == 0
    assert even.evenness > 0.99
    assert int(even.counts.sum()) == 30_000
    top = view_coverage(rotation_about("z", 30.0)[None].expand(50, 3, 3))
    assert top.empty == 12 * 24 - 1
    assert top.fullest == pytest.approx(288.0)
    assert top.evenness == pytest.approx(0.0, abs=1e-12)
    assert int(top.counts[-1].sum()) == 50
