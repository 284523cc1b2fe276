"""Smoothing on SE(3): exact on lines, deaf to flips, indifferent to frames and to the 180 degree wrap."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.rotations import Pose, geodesic_angle, random_rotations, rotation_about, rotation_from_vector
from equivox.tasks.pose.smooth import geometric_median, median_rotation, smooth_poses


def pose(rotation: Tensor, shift: Tensor) -> Pose:
    return Pose(rotation, shift, source="head", target="world")


def drift(count: int, *, start: Tensor, deg_per_frame: float = 2.0, mm_per_frame: float = 0.5) -> list[Pose]:
    """A head that turns about one fixed axis and moves along one line, at even speed."""
    axis = torch.tensor([1.0, 2.0, -1.0], dtype=torch.float64) / math.sqrt(6)
    turns = rotation_from_vector(axis * math.radians(deg_per_frame) * torch.arange(count)[:, None])
    line = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64) * mm_per_frame
    return [pose(turns[t] @ start, 40 + line * t) for t in range(count)]


def noisy(poses: list[Pose], generator: torch.Generator, *, deg: float = 4.0, mm: float = 1.5) -> list[Pose]:
    vectors = torch.randn(len(poses), 3, generator=generator).double() * math.radians(deg) / math.sqrt(3)
    shifts = torch.randn(len(poses), 3, generator=generator).double() * mm / math.sqrt(3)
    return [
        pose(p.rotation @ rotation_from_vector(v), p.translation_mm + s)
        for p, v, s in zip(poses, vectors, shifts, strict=True)
    ]


def errors(found: tuple[Pose | None, ...], truth: list[Pose]) -> tuple[Tensor, Tensor]:
    angles = [
        math.degrees(float(geodesic_angle(f.rotation, t.rotation))) for f, t in zip(found, truth, strict=True) if f
    ]
    shifts = [float((f.translation_mm - t.translation_mm).norm()) for f, t in zip(found, truth, strict=True) if f]
    return torch.tensor(angles), torch.tensor(shifts)


def test_even_motion_about_one_axis_is_left_alone(generator: torch.Generator) -> None:
    """Also through half a turn, where a rotation vector against the first frame would wrap."""
    truth = drift(120, start=random_rotations(1, generator=generator)[0], deg_per_frame=2.0)
    smoothed = smooth_poses(truth, [1.0] * 120)
    angles, shifts = errors(smoothed.poses, truth)
    assert float(angles.max()) < 0.02
    assert float(shifts.max()) < 1e-6
    assert max(smoothed.moved_deg) < 0.02


def test_noise_gets_smaller(generator: torch.Generator) -> None:
    truth = drift(60, start=random_rotations(1, generator=generator)[0], deg_per_frame=1.0)
    measured = noisy(truth, generator)
    before, after = errors(tuple(measured), truth), errors(smooth_poses(measured, [1.0] * 60).poses, truth)
    assert float(after[0].mean()) < 0.65 * float(before[0].mean())
    assert float(after[1].mean()) < 0.65 * float(before[1].mean())


def test_flips_and_jumps_of_single_frames_have_no_say(generator: torch.Generator) -> None:
    truth = drift(40, start=random_rotations(1, generator=generator)[0], deg_per_frame=1.0)
    measured = noisy(truth, generator, deg=2.0, mm=0.5)
    half_turn = rotation_about("y", 180.0)
    for frame in (8, 9, 20, 31):
        wild = measured[frame]
        measured[frame] = pose(wild.rotation @ half_turn, wild.translation_mm + 60.0)
    smoothed = smooth_poses(measured, [1.0] * 40)
    angles, shifts = errors(smoothed.poses, truth)
    assert float(angles.max()) < 5.0
    assert float(shifts.max()) < 2.0
    assert smoothed.moved_deg[8] > 170
    assert smoothed.moved_mm[20] > 90


def test_it_turns_with_the_world_and_with_the_head(generator: torch.Generator) -> None:
    """Smoothing in another world, or with other axes of the head, gives the same smoothed head."""
    measured = noisy(drift(15, start=torch.eye(3).double()), generator)
    turn, axes = random_rotations(2, generator=generator)
    moved = [pose(turn @ p.rotation @ axes, turn @ p.translation_mm + 7.0) for p in measured]
    first, second = smooth_poses(measured, [1.0] * 15).poses, smooth_poses(moved, [1.0] * 15).poses
    for one, other in zip(first, second, strict=True):
        assert one is not None
        assert other is not None
        torch.testing.assert_close(other.rotation, turn @ one.rotation @ axes, atol=1e-6, rtol=0)
        torch.testing.assert_close(other.translation_mm, turn @ one.translation_mm + 7.0, atol=1e-5, rtol=0)


def test_a_doubtful_frame_weighs_less(generator: torch.Generator) -> None:
    poses = [pose(torch.eye(3).double(), torch.zeros(3).double()) for _ in range(5)]
    poses[2] = pose(rotation_about("x", 1.0), torch.tensor([0.4, 0.0, 0.0]).double())
    sure = smooth_poses(poses, [1.0] * 5).poses[2]
    doubted = smooth_poses(poses, [1.0, 1.0, 0.1, 1.0, 1.0]).poses[2]
    assert sure is not None
    assert doubted is not None
    assert float(doubted.translation_mm[0]) < float(sure.translation_mm[0])


def test_nothing_is_invented_where_there_is_no_pose() -> None:
    one = pose(torch.eye(3).double(), torch.ones(3).double())
    smoothed = smooth_poses([None, one, None], [0.0, 1.0, 0.0])
    assert [found is None for found in smoothed.poses] == [True, False, True]
    assert smoothed.poses[1] is not None
    torch.testing.assert_close(smoothed.poses[1].translation_mm, one.translation_mm)
    assert [math.isnan(value) for value in smoothed.moved_deg] == [True, False, True]
    assert smooth_poses([None], [0.0]).poses == (None,)


def test_a_width_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="--smooth-frames is 0"):
        smooth_poses([], [], half_width=0)


def test_medians_side_with_the_majority() -> None:
    camps = torch.stack([torch.eye(3)] * 3 + [rotation_about("z", 180.0).float()] * 2).double()
    assert float(geodesic_angle(median_rotation(camps, torch.ones(5).double()), torch.eye(3).double())) < 1e-3
    points = torch.tensor([[0.0, 0, 0]] * 3 + [[50.0, 0, 0]] * 2).double()
    assert float(geometric_median(points, torch.ones(5).double()).norm()) < 1e-3
