"""Laws of rotations and poses; SciPy is the oracle of the conversions."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch.testing import assert_close

from equivox.errors import GeometryError
from equivox.geometry.rotations import (
    Pose,
    chordal_mean,
    cube_group,
    euler_xyz_from_rotation,
    geodesic_angle,
    nearest_rotation,
    quaternion_from_rotation,
    random_rotations,
    rotation_about,
    rotation_angle,
    rotation_from_euler_xyz,
    rotation_from_quaternion,
    rotation_from_vector,
    rotation_vector,
)

seeds = st.integers(0, 2**31 - 1)


def draw_rotations(seed: int, count: int = 5) -> torch.Tensor:
    return random_rotations(count, generator=torch.Generator().manual_seed(seed))


@given(seed=seeds)
def test_quaternions_and_euler_angles_agree_with_scipy(seed: int) -> None:
    rotations = draw_rotations(seed)
    oracle = Rotation.from_matrix(rotations.numpy())
    quaternion = quaternion_from_rotation(rotations)
    assert bool((quaternion[:, 3] >= 0).all())
    assert_close(quaternion, torch.from_numpy(oracle.as_quat(canonical=True)), atol=1e-12, rtol=0)
    assert_close(euler_xyz_from_rotation(rotations), torch.from_numpy(oracle.as_euler("xyz")), atol=1e-9, rtol=0)
    assert_close(rotation_vector(rotations), torch.from_numpy(oracle.as_rotvec()), atol=1e-9, rtol=0)


@given(seed=seeds)
def test_conversions_are_inverse_to_each_other(seed: int) -> None:
    rotations = draw_rotations(seed)
    assert_close(rotation_from_quaternion(quaternion_from_rotation(rotations)), rotations, atol=1e-12, rtol=0)
    assert_close(rotation_from_euler_xyz(euler_xyz_from_rotation(rotations)), rotations, atol=1e-9, rtol=0)
    assert_close(rotation_from_vector(rotation_vector(rotations)), rotations, atol=1e-9, rtol=0)


@pytest.mark.parametrize("pitch", [90.0, -90.0])
def test_euler_angles_at_gimbal_lock_still_give_the_rotation(pitch: float) -> None:
    rotation = rotation_about("z", 20.0) @ rotation_about("y", pitch) @ rotation_about("x", 35.0)
    angles = euler_xyz_from_rotation(rotation)
    assert float(angles[2]) == 0.0
    assert_close(rotation_from_euler_xyz(angles), rotation, atol=1e-9, rtol=0)


def test_rotation_angle_is_accurate_from_tiny_to_half_turn() -> None:
    for angle in (1e-9, 1e-4, 1.0, math.pi - 1e-6, math.pi):
        rotation = rotation_from_vector(torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64) * angle)
        assert float(rotation_angle(rotation)) == pytest.approx(angle, rel=1e-6, abs=1e-12)


def test_random_rotations_are_uniform_on_so3() -> None:
    """The mean angle of the Haar measure is pi/2 + 2/pi = 126.5 degrees, and no direction is left out (flaw F3)."""
    rotations = draw_rotations(0, 20_000)
    mean = float(torch.rad2deg(rotation_angle(rotations)).mean())
    assert mean == pytest.approx(math.degrees(math.pi / 2 + 2 / math.pi), abs=0.5)
    downwards = float((rotations[:, 2, 2] < 0).double().mean())
    assert downwards == pytest.approx(0.5, abs=0.015)


def test_limited_random_rotations_keep_the_limit_and_its_density() -> None:
    limit = 60.0
    draw = torch.Generator().manual_seed(1)
    angles = torch.rad2deg(rotation_angle(random_rotations(20_000, generator=draw, max_angle_deg=limit)))
    assert float(angles.max()) <= limit + 1e-6
    half = math.radians(30.0)
    expected = (half - math.sin(half)) / (math.radians(limit) - math.sin(math.radians(limit)))
    assert float((angles < 30.0).double().mean()) == pytest.approx(expected, abs=0.01)


def test_cube_group_is_closed_and_has_24_or_48_elements() -> None:
    for improper, count in ((False, 24), (True, 48)):
        group = cube_group(improper=improper)
        assert group.shape == (count, 3, 3)
        assert_close(group[0], torch.eye(3, dtype=torch.float64))
        products = (group[:, None] @ group[None]).reshape(-1, 9)
        known = {tuple(row) for row in group.reshape(-1, 9).tolist()}
        assert {tuple(row) for row in products.tolist()} == known


@given(seed=seeds)
def test_nearest_rotation_is_proper_even_for_reflections(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    matrices = torch.randn(6, 3, 3, generator=draw, dtype=torch.float64)
    matrices[0] = -torch.eye(3, dtype=torch.float64)
    result = nearest_rotation(matrices)
    assert_close(torch.linalg.det(result), torch.ones(6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_chordal_mean_recovers_the_centre_of_a_symmetric_cloud() -> None:
    centre = draw_rotations(3, 1)[0]
    steps = [rotation_about(axis, sign * 20.0) for axis in "xyz" for sign in (1, -1)]
    cloud = torch.stack([centre @ step for step in steps])
    assert float(geodesic_angle(chordal_mean(cloud), centre)) < 1e-7


@given(seed=seeds)
def test_pose_inverse_composes_to_identity_and_moves_points_like_its_matrix(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    pose = Pose(random_rotations(1, generator=draw)[0], torch.randn(3, generator=draw).double() * 50, "head", "world")
    identity = pose.inverse().compose(pose)
    assert identity.source == identity.target == "head"
    assert_close(identity.matrix(), torch.eye(4, dtype=torch.float64), atol=1e-9, rtol=0)
    point = torch.randn(1, 3, generator=draw).double()
    by_matrix = pose.matrix() @ torch.cat([point[0], torch.ones(1, dtype=torch.float64)])
    assert_close(pose.apply(point)[0], by_matrix[:3], atol=1e-9, rtol=0)


def test_pose_refuses_frames_that_do_not_meet() -> None:
    eye, zero = torch.eye(3), torch.zeros(3)
    with pytest.raises(GeometryError, match="'voxel' and 'head' differ"):
        Pose(eye, zero, "voxel", "world").compose(Pose(eye, zero, "world", "head"))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.diag([1.0, 1.0, -1.0]), "reflection"),
        (np.diag([1.0, 1.0, 1.1]), "not orthogonal"),
        (np.full((3, 3), np.nan), "NaN"),
    ],
)
def test_pose_refuses_what_is_not_a_rotation(matrix: np.ndarray, message: str) -> None:
    with pytest.raises(GeometryError, match=message):
        Pose(torch.from_numpy(matrix), torch.zeros(3, dtype=torch.float64), "head", "world")


def test_quaternions_are_those_of_the_library_of_conversions_at_every_angle() -> None:
    import roma

    draw = torch.Generator().manual_seed(0)
    matrices = random_rotations(500, generator=draw)
    half_turns = 2.0 * torch.nn.functional.normalize(torch.randn(200, 3, 1, generator=draw, dtype=torch.float64), dim=1)
    half_turns = half_turns @ half_turns.mT / 2.0 - torch.eye(3, dtype=torch.float64)
    everything = torch.cat([matrices, half_turns, torch.eye(3, dtype=torch.float64)[None]])
    found, expected = quaternion_from_rotation(everything), roma.rotmat_to_unitquat(everything)
    assert float((1.0 - (found * expected).sum(-1).abs()).abs().max()) < 1e-12
    assert float((rotation_from_quaternion(found) - everything).abs().max()) < 1e-12
    assert torch.allclose(rotation_from_quaternion(3.0 * found), roma.unitquat_to_rotmat(found), atol=1e-14)
    leaf = matrices.clone().requires_grad_()
    quaternion_from_rotation(leaf).square().sum().backward()
    assert leaf.grad is not None
    assert bool(torch.isfinite(leaf.grad).all())


def test_the_library_of_conversions_is_loaded_when_it_is_needed_and_not_before() -> None:
    code = "import sys, equivox.geometry.rotations; print('roma' in sys.modules or 'torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_rotation_found_in_inference_mode_spoils_no_later_gradient() -> None:
    """In a process of its own: what a library keeps from its first use lasts as long as the process."""
    script = (
        "import torch\n"
        "from equivox.geometry.rotations import nearest_rotation\n"
        "with torch.inference_mode():\n"
        "    nearest_rotation(torch.eye(3)[None])\n"
        "matrix = torch.eye(3)[None].requires_grad_()\n"
        "nearest_rotation(matrix + 0.1 * torch.ones(3, 3)).square().sum().backward()\n"
        "assert matrix.grad is not None\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
