from __future__ import annotations

import math

import pytest
import torch

from equivox.geometry.rotations import Pose, geodesic_angle, random_rotations, rotation_about
from equivox.geometry.space import Volume, grid_points_mm
from equivox.tasks.pose.consistency import (
    changed_masks,
    check_consistency,
    half_stacks,
    mirrored_left_right,
    mirrored_pose,
    turned_about,
)
from equivox.tasks.pose.estimate import PoseEstimate

LOBES = torch.tensor([[0.0, 0.0, 0.0], [14.0, 0.0, 0.0], [0.0, 26.0, 0.0], [0.0, 0.0, 20.0]], dtype=torch.float64)
HEIGHTS = (4.0, 1.0, 2.0, 1.5)


def head(pose: Pose, size: int = 40, voxel_mm: tuple[float, float, float] = (3.0, 3.0, 3.0)) -> Volume:
    """Four blobs whose third moments tell all directions apart."""
    affine = torch.diag(torch.tensor([*voxel_mm, 1.0], dtype=torch.float64))
    affine[:3, 3] = -torch.tensor(voxel_mm, dtype=torch.float64) * (size - 1) / 2
    points = pose.inverse().apply(grid_points_mm(affine, (size, size, size)))
    data = torch.zeros(size, size, size, dtype=torch.float64)
    for center, height in zip(LOBES, HEIGHTS, strict=True):
        data += height * torch.exp(-((points - center) ** 2).sum(-1) / (2 * 7.0**2))
    return Volume(data[None].float(), affine, name="head.nii.gz")


class MomentEstimator:
    """Pose from first and second moments with signs from third ones: equivariant by construction."""

    def estimate(self, volume: Volume, *, mask: Volume | None = None) -> PoseEstimate:
        weight = volume.data[0].double() if mask is None else volume.data[0].double() * mask.data[0].double()
        if float(weight.max()) < 1e-3:
            return PoseEstimate("no_object", reason="No object was found.")
        points = grid_points_mm(volume.affine, volume.shape)
        total = weight.sum()
        center = (points * weight[..., None]).sum((0, 1, 2)) / total
        offset = points - center
        covariance = torch.einsum("xyz,xyza,xyzb->ab", weight, offset, offset) / total
        axes = torch.linalg.eigh(covariance).eigenvectors
        skew = torch.einsum("xyz,xyza->a", weight, (offset @ axes) ** 3)
        axes = axes * torch.where(skew < 0, -1.0, 1.0)
        if torch.linalg.det(axes) < 0:
            axes = axes * torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64)
        found = replace_data(volume, (volume.data > 0.3).float())
        return PoseEstimate("ok", world_from_head=Pose(axes, center, "head", "world"), confidence=1.0, mask=found)


class StubbornEstimator(MomentEstimator):
    """Says the same rotation whatever it sees."""

    def estimate(self, volume: Volume, *, mask: Volume | None = None) -> PoseEstimate:
        moved = super().estimate(volume, mask=mask)
        same = Pose(torch.eye(3, dtype=torch.float64), moved.require_pose().translation_mm, "head", "world")
        return PoseEstimate("ok", world_from_head=same, confidence=1.0, mask=moved.mask)


def replace_data(volume: Volume, data: torch.Tensor) -> Volume:
    return Volume(data, volume.affine, volume.name)


def some_pose(seed: int = 0) -> Pose:
    draw = torch.Generator().manual_seed(seed)
    return Pose(random_rotations(1, generator=draw)[0], torch.tensor([4.0, -7.0, 2.0]).double(), "head", "world")


def test_an_equivariant_estimator_agrees_with_itself_and_a_stubborn_one_does_not() -> None:
    volume = head(some_pose())
    draw = torch.Generator().manual_seed(1)
    good = check_consistency(MomentEstimator(), volume, generator=draw, random_count=4)
    assert len(good.cube_deg) == 23
    assert max(good.cube_deg) < 1e-3
    assert max(good.random_deg) < 0.5
    assert good.half_stack_deg < 1.0
    assert len(good.crop_deg) == 8
    bad = check_consistency(StubbornEstimator(), volume, generator=draw, random_count=4)
    assert min(bad.cube_deg) > 89.9  # the turn itself comes back as disagreement
    assert sorted({round(v) for v in bad.cube_deg}) == [90, 120, 180]


def test_the_content_moves_by_the_rotation_and_not_by_its_inverse() -> None:
    pose = some_pose(2)
    quarter = rotation_about("z", 90.0)
    turned = turned_about(head(pose), quarter, pose.translation_mm)
    expected = head(Pose(quarter @ pose.rotation, pose.translation_mm, "head", "world"), size=60)
    values = expected.resample(turned.affine, turned.shape)
    inside = (grid_points_mm(turned.affine, turned.shape) - pose.translation_mm).norm(dim=-1) < 45
    assert float((turned.data[0] - values.data[0])[inside].abs().max()) < 0.1 * float(expected.data.max())


def test_cube_rotations_move_samples_without_interpolation() -> None:
    pose = some_pose(3)
    volume = head(pose)
    straight = turned_about(volume, torch.eye(3, dtype=torch.float64), pose.translation_mm)
    turned = turned_about(volume, rotation_about("z", 90.0), pose.translation_mm)
    torch.testing.assert_close(turned.data, straight.data.rot90(1, (1, 2)), atol=1e-5, rtol=0)


def test_a_mirrored_head_has_the_mirrored_pose() -> None:
    pose = some_pose(4)
    upright = turned_about(head(pose), torch.eye(3, dtype=torch.float64), pose.translation_mm)
    image = mirrored_left_right(upright)
    expected = mirrored_pose(pose)
    brightest = image.world_from_voxel((image.data[0] == image.data.max()).nonzero()[0].double())
    assert float((brightest - expected.apply(LOBES[0])).norm()) < 3.0
    bright_side = (expected.apply(LOBES[2]) - image.affine[:3, 3]) / 3.0
    i, j, k = bright_side.round().long().tolist()
    assert float(image.data[0, i, j, k]) > 1.5  # the second lobe is where the mirrored pose puts it
    assert float(torch.linalg.det(expected.rotation)) == pytest.approx(1.0)


def test_half_stacks_keep_every_voxel_where_it_was() -> None:
    volume = head(some_pose(5), size=9, voxel_mm=(3.0, 3.0, 4.5))
    even, odd = half_stacks(volume)
    assert (even.shape, odd.shape) == ((9, 9, 5), (9, 9, 4))
    assert even.voxel_size_mm[2] == odd.voxel_size_mm[2] == 9.0
    index = torch.tensor([[2.0, 3.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(
        odd.world_from_voxel(index),
        volume.world_from_voxel(index * torch.tensor([1.0, 1, 2]) + torch.tensor([0.0, 0, 1])),
    )
    assert torch.equal(odd.data[:, :, :, 1], volume.data[:, :, :, 3])


def test_masks_are_moved_by_six_millimetres_and_scaled() -> None:
    mask = replace_data(head(some_pose(6)), (head(some_pose(6)).data > 1.0).float())
    changed = changed_masks(mask)

    def centroid(volume: Volume) -> torch.Tensor:
        return volume.world_from_voxel(volume.data[0].nonzero().double()).mean(0)

    moved = [centroid(one) - centroid(mask) for one in changed]
    assert [round(float(m[axis])) for m, axis in zip(moved[:6], (0, 0, 1, 1, 2, 2), strict=True)] == [
        -6,
        6,
        -6,
        6,
        -6,
        6,
    ]
    ratio = [float(one.data.sum() / mask.data.sum()) for one in changed[6:]]
    assert ratio == pytest.approx([0.9**3, 1.1**3], rel=0.12)


def test_a_scan_without_a_pose_says_why() -> None:
    empty = Volume(torch.zeros(1, 8, 8, 8), torch.eye(4, dtype=torch.float64))
    result = check_consistency(MomentEstimator(), empty, generator=torch.Generator())
    assert result.reason == "No object was found."
    assert math.isnan(result.mirror_deg)
    assert result.as_dict()["half_stack"] == {
        "median_deg": None,
        "share_above_10_deg": 1.0,
        "without_answer": 1,
        "values_deg": [None],
    }


def test_the_moment_estimator_is_right_on_its_own_head() -> None:
    """Guards the tests above: an estimator that ignored its input could not pass this one."""
    first, second = some_pose(7), some_pose(8)
    answers = [MomentEstimator().estimate(head(pose)).require_pose().rotation for pose in (first, second)]
    offset = [pose.rotation.mT @ answer for pose, answer in zip((first, second), answers, strict=True)]
    assert math.degrees(float(geodesic_angle(offset[0][None], offset[1][None])[0])) < 1.0
