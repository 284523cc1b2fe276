from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.geometry.point_groups import (
    canonical_name,
    point_group,
    symmetric_angle,
    turn_between,
)
from equivox.geometry.rotations import random_rotations, rotation_about, rotation_from_quaternion

NAMES = ["C1", "C2", "C5", "C7", "D2", "D3", "D7", "T", "T-relion", "O", "I1", "I2", "I3", "I4"]


def same_set(one: torch.Tensor, other: torch.Tensor, tolerance: float) -> bool:
    apart = (one[:, None] - other[None]).abs().amax((-2, -1))
    return len(one) == len(other) and float(apart.amin(0).max()) < tolerance


def test_groups_are_those_of_the_fixture(fixture_path: Callable[[str], Path]) -> None:
    with np.load(fixture_path("projection2d/symmetry_groups.npz")) as file:
        for name in file.files:
            assert same_set(point_group(name), torch.from_numpy(file[name]), 1e-9), name


@pytest.mark.parametrize("name", NAMES)
def test_a_group_is_closed_and_starts_with_the_identity(name: str) -> None:
    group = point_group(name)
    assert_close(group[0], torch.eye(3, dtype=torch.float64), atol=1e-12, rtol=0)
    for element in group:
        assert same_set(element @ group, group, 1e-9)


def test_settings_of_relion_have_the_axes_of_its_manual() -> None:
    """I1: five-fold 58.3 degrees from z in the plane of x and z; I2: 31.7; I3 and I4: along z, and apart."""

    def has_axis(name: str, order: int, axis: tuple[float, float, float]) -> bool:
        direction = torch.tensor(axis, dtype=torch.float64)
        direction = direction / direction.norm()
        return any(
            float((element @ direction - direction).abs().max()) < 1e-6
            and abs(float(element.trace()) - 1.0 - 2.0 * np.cos(2.0 * np.pi / order)) < 1e-6
            for element in point_group(name)
        )

    assert has_axis("I1", 5, (0.8506508, 0.0, -0.5257311))
    assert has_axis("I1", 3, (0.9341723590, 0.3568220898, 0.0))
    assert has_axis("I2", 5, (0.5257311, 0.0, 0.8506508))
    assert has_axis("I2", 3, (0.0, 0.3568220898, 0.9341723590))
    assert has_axis("I3", 5, (0.0, 0.0, 1.0))
    assert has_axis("I3", 3, (-0.4911234779, 0.3568220765, 0.7946544754))
    assert has_axis("I4", 5, (0.0, 0.0, 1.0))
    assert has_axis("I4", 3, (0.4911234779, 0.3568220765, 0.7946544754))
    assert not has_axis("I2", 5, (0.0, 0.0, 1.0))
    assert not same_set(point_group("I3"), point_group("I4"), 1e-3)


@pytest.mark.parametrize(
    ("first", "second"), [("I1", "I2"), ("I2", "I3"), ("I3", "I4"), ("I4", "I1"), ("T", "T-relion")]
)
def test_a_turn_between_settings_matches_their_axes(first: str, second: str) -> None:
    turn = turn_between(first, second)
    assert same_set(turn @ point_group(first) @ turn.mT, point_group(second), 1e-9)


def test_different_groups_have_no_turn_between_them() -> None:
    with pytest.raises(ConfigError, match="no turn"):
        turn_between("C2", "D2")
    with pytest.raises(ConfigError, match="do not match"):
        turn_between("T", "D6")


@pytest.mark.parametrize("name", ["C4", "D2", "D7", "T", "O", "I"])
def test_reduced_angles_equal_the_fixture(name: str, fixture_path: Callable[[str], Path]) -> None:
    content = json.loads(fixture_path("projection2d/pose.json").read_text())
    scalar_first = torch.tensor(content["quats"], dtype=torch.float64)
    rotations = rotation_from_quaternion(scalar_first[:, [1, 2, 3, 0]])
    count = len(rotations)
    found = symmetric_angle(
        rotations[:, None].expand(count, count, 3, 3), rotations[None].expand(count, count, 3, 3), point_group(name)
    )
    assert_close(found, torch.tensor(content["angle_rad_sym"][name], dtype=torch.float64), atol=1e-7, rtol=0)


def test_the_reduced_angle_does_not_see_a_turn_of_the_group(generator: torch.Generator) -> None:
    truth = random_rotations(5, generator=generator)
    for element in point_group("D3"):
        assert float(symmetric_angle(truth, truth @ element, point_group("D3")).max()) < 1e-7
    assert float(symmetric_angle(truth, truth @ rotation_about("z", 60.0), point_group("D3")).min()) > 0.5


@pytest.mark.parametrize("name", ["C0", "D0", "X3", "I5", "C361", "", "c-2"])
def test_an_unknown_group_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="unknown"):
        point_group(name)


def test_names_are_read_as_people_write_them() -> None:
    assert [canonical_name(name) for name in ("c02", " d7 ", "i", "o", "t-relion")] == [
        "C2",
        "D7",
        "I2",
        "O",
        "T-RELION",
    ]
