"""The geometry of the navigator experiment: the published numbers, and laws that hold without them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from equivox.errors import ConfigError
from equivox.formats.trajectories import read_trajectories
from equivox.geometry.rotations import Pose, geodesic_angle, random_rotations, rotation_about
from equivox.geometry.space import Volume, grid_points_mm
from equivox.geometry.trajectories import Trajectory, chained
from equivox.simulate.eye_rule import rotation_from_eyes
from equivox.simulate.motion import sample_trajectory
from equivox.simulate.navigator import Shadow, make_navigator, shadow_strength, shadow_width_mm
from equivox.simulate.slices import (
    ORIENTATIONS,
    coverage,
    interleaved_order,
    obliqueness_deg,
    prescribed_slice,
    slice_affine,
    slice_axes,
    slice_positions_mm,
)

GRID_CENTER = 63.0
"""Index that the published code takes for the centre of its 128 voxels."""


@pytest.fixture(scope="module")
def published(fixture_path: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(fixture_path("e3pose/14_simulation.npz")) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind == "f"}


@pytest.fixture(scope="module")
def eyes(fixture_path: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(fixture_path("e3pose/15_rot_from_seg.npz")) as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


def test_motion_matrices_are_the_published_ones(published: dict[str, Tensor]) -> None:
    """Translation first, in voxels, then the rotation."""
    shifts = published["trans_mm"] / published["voxel_res"]
    times = torch.arange(4, dtype=torch.float64)
    trajectory = Trajectory(times, published["rots"], shifts)
    torch.testing.assert_close(trajectory.matrices(times), published["motion_matrices"], atol=1e-6, rtol=0)


def test_trajectories_between_and_beyond_their_rows_are_the_published_ones(
    published: dict[str, Tensor], fixture_path: Callable[[str], Path], tmp_path: Path
) -> None:
    with np.load(fixture_path("e3pose/14_simulation.npz")) as file:
        (tmp_path / "motion.csv").write_text(str(file["traj_csv"]))
    samples = read_trajectories(tmp_path / "motion.csv")
    rotations, shifts = chained(list(samples.values()), 7.9).at(published["traj_times"])
    torch.testing.assert_close(rotations, published["traj_rot"], atol=1e-6, rtol=0)
    torch.testing.assert_close(shifts, published["traj_trans"], atol=1e-9, rtol=0)


def test_slices_lie_where_the_published_ones_do(published: dict[str, Tensor]) -> None:
    """In the volume, and in the canonical frame of the older edition, voxel corners taken for centres as there."""
    found = published["rots"][0]
    torch.testing.assert_close(slice_axes("sagittal"), published["slice_axes"])
    torch.testing.assert_close(slice_axes("sagittal")[:, 2], published["slice_normal"])
    axes = found @ slice_axes("sagittal")
    torch.testing.assert_close(axes, published["slice_affine_vol"][:3, :3], atol=1e-6, rtol=0)
    pose = Pose(found, published["brain_center"], source="head", target="world")
    placed = prescribed_slice(
        pose, "sagittal", float(published["slice_pos_vox"]), voxel_mm=1.0, thickness_mm=3.0, size=256
    )
    center = (placed @ torch.tensor([127.5, 127.5, 0.0, 1.0], dtype=torch.float64))[:3]
    torch.testing.assert_close(center, published["slice_center"], atol=1e-6, rtol=0)
    in_volume = slice_affine(axes, center, spacing=(1.0, 1.0, 3.0), center_index=(128.0, 128.0, 0.5))
    about = published["xfm_tocanonical"].clone()
    about[:3, 3] += GRID_CENTER - about[:3, :3] @ torch.full((3,), GRID_CENTER, dtype=torch.float64)
    canonical = published["vol_affine"] @ about @ in_volume
    torch.testing.assert_close(canonical, published["slice_affine_canonical_older_variant"], atol=1e-6, rtol=0)


def test_the_eye_rule_gives_the_published_rotation(eyes: dict[str, Tensor]) -> None:
    found = rotation_from_eyes(eyes["brain"] > 0, eyes["eyes"] > 0)
    assert found is not None
    torch.testing.assert_close(found, eyes["rotation"], atol=1e-5, rtol=0)
    assert math.degrees(float(geodesic_angle(found, eyes["true_rotation"]))) < 12


def test_one_eye_is_no_answer_instead_of_an_identity_without_a_word(eyes: dict[str, Tensor]) -> None:
    one = eyes["eyes"] > 0
    one[int(one.nonzero()[:, 0].float().mean()) :] = False
    assert rotation_from_eyes(eyes["brain"] > 0, one) is None
    assert rotation_from_eyes(torch.zeros_like(one), eyes["eyes"] > 0) is None


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_still_head_is_covered_once_everywhere(orientation: str, generator: torch.Generator) -> None:
    axes = [torch.arange(-44.5, 45.0, 3.0, dtype=torch.float64)] * 3
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    points = points[(points / torch.tensor([43.0, 50.0, 30.0])).norm(dim=1) < 1]
    along = points @ slice_axes(orientation)[:, 2]  # type: ignore[arg-type]
    positions = slice_positions_mm(float(along.min()), float(along.max()), 3.0)
    assert len(positions) == math.ceil(float(along.max() - along.min()) / 3) + 4
    pose = Pose(random_rotations(1, generator=generator)[0], torch.ones(3).double(), source="head", target="world")
    back = pose.inverse().matrix()
    slices = [
        back @ prescribed_slice(pose, orientation, float(p), voxel_mm=1.0, thickness_mm=3.0, size=128)  # type: ignore[arg-type]
        for p in positions
    ]
    counts = coverage(points + 0.01, slices, size=128)
    assert int(counts.min()) == int(counts.max()) == 1
    assert max(obliqueness_deg(one, orientation) for one in slices) < 1e-4  # type: ignore[arg-type]
    few = coverage(points + 0.01, slices[: len(slices) // 2], size=128)
    assert 0.3 < float((few > 0).float().mean()) < 0.7


def test_a_tilted_slice_is_as_oblique_as_it_is_tilted() -> None:
    pose = Pose(rotation_about("x", 12.0), torch.zeros(3).double(), source="head", target="world")
    placed = prescribed_slice(pose, "axial", 0.0, voxel_mm=1.0, thickness_mm=3.0, size=11)
    assert obliqueness_deg(placed, "axial") == pytest.approx(12.0)
    assert obliqueness_deg(placed, "sagittal") == pytest.approx(90.0)


def test_sweeps_visit_every_slice_once() -> None:
    assert interleaved_order(7, 3) == [0, 3, 6, 1, 4, 2, 5]
    assert sorted(interleaved_order(29, 4)) == list(range(29))
    with pytest.raises(ConfigError, match="--interleave is 0"):
        interleaved_order(5, 0)


def test_sampled_motion_starts_at_rest_and_depends_on_the_seed_alone() -> None:
    first, again, other = (sample_trajectory(60.0, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.rotations, again.rotations)
    assert not torch.equal(first.rotations, other.rotations)
    torch.testing.assert_close(first.rotations[0], torch.eye(3, dtype=torch.float64))
    assert float(first.times_s[-1]) >= 60.0
    steps = torch.rad2deg(geodesic_angle(first.rotations[1:], first.rotations[:-1]))
    assert float(steps.max()) < 30


def test_a_navigator_is_moved_and_shadowed_where_the_slice_was() -> None:
    affine = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))
    affine[:3, 3] = -58.5
    inside = grid_points_mm(affine, (40, 40, 40)).norm(dim=-1) < 40
    volume = Volume(inside.float()[None] * 100, affine)
    motion = torch.eye(4, dtype=torch.float64)
    motion[0, 3] = 12.0
    still = make_navigator(
        volume, volume, motion, navigator_mm=6.0, noise=0.0, generator=torch.Generator().manual_seed(0)
    )
    assert still.voxel_size_mm == (6.0, 6.0, 6.0)
    bright = still.world_from_voxel((still.data[0] > 50).nonzero().double()).mean(0)
    torch.testing.assert_close(bright, torch.tensor([12.0, 0.0, 0.0]).double(), atol=0.6, rtol=0)
    shadow = Shadow(
        normal=torch.tensor([0.0, 0.0, 1.0]).double(), point_mm=torch.zeros(3).double(), moved=motion,
        sigma_mm=shadow_width_mm(3.0, 6.0), strength=shadow_strength(1.5, 4.0),
    )  # fmt: skip
    dark = make_navigator(
        volume, volume, motion, navigator_mm=6.0, noise=0.0, generator=torch.Generator().manual_seed(0), shadow=shadow
    )
    ratio = dark.data[0, :, :, :][still.data[0] > 90] / still.data[0][still.data[0] > 90]
    assert float(ratio.max()) > 0.99
    assert 0.5 < float(ratio.min()) < 0.8
