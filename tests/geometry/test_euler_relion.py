"""RELION's angles against numbers of an independent computation, and as a law."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.testing import assert_close

from equivox.geometry.euler_relion import (
    matrix_from_relion,
    matrix_from_rotation_vector,
    relion_from_matrix,
    rotation_vector_from_matrix,
)
from equivox.geometry.rotations import random_rotations, rotation_about

ROWS = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "projection2d" / "euler_relion.json").read_text()
)["rows"]  # fmt: skip


def column(name: str) -> torch.Tensor:
    return torch.tensor([row[name] for row in ROWS], dtype=torch.float64)


def test_matrices_and_angles_are_the_reference() -> None:
    matrix = matrix_from_relion(*column("rot_tilt_psi_deg").unbind(-1))
    assert_close(matrix, column("matrix"), atol=1e-12, rtol=0)
    assert_close(matrix[:, 2], column("view_direction"), atol=1e-12, rtol=0)
    angles = relion_from_matrix(column("matrix"))
    assert_close(angles, column("canonical_rot_tilt_psi_deg"), atol=1e-9, rtol=0)


def test_rotation_vectors_are_cryosparcs() -> None:
    assert_close(rotation_vector_from_matrix(column("matrix")), column("cryosparc_rotvec"), atol=1e-9, rtol=0)
    assert_close(matrix_from_rotation_vector(column("cryosparc_rotvec")), column("matrix"), atol=1e-9, rtol=0)


def test_the_matrix_is_a_product_of_active_turns() -> None:
    rot, tilt, psi = 31.0, 77.0, -140.0
    product = rotation_about("z", -psi) @ rotation_about("y", -tilt) @ rotation_about("z", -rot)
    angles = torch.tensor([rot, tilt, psi], dtype=torch.float64)
    assert_close(matrix_from_relion(*angles), product, atol=1e-14, rtol=0)


@given(seed=st.integers(0, 2**31), tilt=st.sampled_from([None, 0.0, 180.0, 1e-8, 1e-5, 179.99999]))
def test_angles_and_matrices_are_inverse_also_at_the_poles(seed: int, tilt: float | None) -> None:
    draw = torch.Generator().manual_seed(seed)
    rotation = random_rotations(6, generator=draw)
    if tilt is not None:
        angles = torch.rand(6, 3, generator=draw, dtype=torch.float64) * 360 - 180
        rotation = matrix_from_relion(angles[:, 0], torch.full((6,), tilt, dtype=torch.float64), angles[:, 2])
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 2e-6)):
        angles = relion_from_matrix(rotation.to(dtype))
        assert bool(((angles[:, 1] >= 0) & (angles[:, 1] <= 180.001)).all())
        assert_close(matrix_from_relion(*angles.unbind(-1)), rotation.to(dtype), atol=tolerance, rtol=0)


@pytest.mark.parametrize("tilt", [-30.0, 200.0, 400.0])
def test_any_tilt_is_allowed(tilt: float) -> None:
    angles = torch.tensor([10.0, tilt, 20.0], dtype=torch.float64)
    rotation = matrix_from_relion(*angles)
    back = relion_from_matrix(rotation)
    assert 0 <= float(back[1]) <= 180
    assert_close(matrix_from_relion(*back), rotation, atol=1e-12, rtol=0)
