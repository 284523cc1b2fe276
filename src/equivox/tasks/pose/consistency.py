"""How much an estimator agrees with itself: tests that need no truth (data_mri.md 3.4).

The same scan is turned, halved, cropped otherwise and mirrored; the pose has to follow. What it does not follow is
error for certain, whatever the truth is; agreement alone proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import Pose, cube_group, geodesic_angle, random_rotations
from equivox.geometry.space import Volume, grid_points_mm, sample_at
from equivox.tasks.pose.estimate import Estimator, PoseEstimate

GRID_MM = 3.0
"""Voxel size of the grid on which scans are turned and mirrored."""
CROP_SHIFTS_MM = (-6.0, 6.0)
CROP_SCALES = (0.9, 1.1)
DISAGREES_DEG = 10.0
NO_ANSWER = float("nan")


@dataclass(frozen=True, slots=True)
class Consistency:
    """Disagreements [degrees] of one scan with itself, one number per change; NaN where one answer was missing."""

    cube_deg: tuple[float, ...]
    """Turned by the rotations of the cube (no interpolation), identity left out."""
    random_deg: tuple[float, ...]
    """Turned by random rotations (interpolated)."""
    half_stack_deg: float
    """Even against odd slices: noise of the estimator plus motion of the head between the two passes."""
    crop_deg: tuple[float, ...]
    """Mask shifted by -6 and +6 mm along each axis, and scaled by 0.9 and 1.1."""
    mirror_deg: float
    """Mirrored scan against mirrored pose."""
    reason: str = ""
    """Why nothing was measured, where the scan itself has no pose."""

    def as_dict(self) -> dict[str, object]:
        """Medians and shares per test, and the single numbers, for JSON (NaN as None)."""
        tests = {
            "rotation_cube": self.cube_deg,
            "rotation_random": self.random_deg,
            "half_stack": (self.half_stack_deg,),
            "crop": self.crop_deg,
            "mirror": (self.mirror_deg,),
        }
        return {"reason": self.reason, **{name: summarize_disagreement(values) for name, values in tests.items()}}


def summarize_disagreement(values_deg: Sequence[float]) -> dict[str, object]:
    """Median [degrees], share above 10 degrees, answers missing, and all values; a missing answer is a disagreement."""
    finite = sorted(v for v in values_deg if not math.isnan(v))
    missing = len(values_deg) - len(finite)
    above = sum(v > DISAGREES_DEG for v in finite) + missing
    middle = len(finite) // 2
    median = None
    if finite:
        median = finite[middle] if len(finite) % 2 else (finite[middle - 1] + finite[middle]) / 2
    return {
        "median_deg": None if median is None else round(median, 4),
        "share_above_10_deg": round(above / len(values_deg), 4) if values_deg else None,
        "without_answer": missing,
        "values_deg": [None if math.isnan(v) else round(v, 4) for v in values_deg],
    }


def check_consistency(
    estimator: Estimator,
    volume: Volume,
    *,
    generator: torch.Generator,
    random_count: int = 20,
    cube_count: int = 24,
    progress: Callable[[int, int], None] | None = None,
) -> Consistency:
    """Run all four tests on one scan.

    Parameters
    ----------
    estimator
        What is tested; it is called about 40 + ``random_count`` times.
    volume
        A scan in which it finds a pose (otherwise everything is NaN, with the reason).
    generator
        Draws the random rotations.
    random_count, cube_count
        How many rotations; of the cube group the first ones (24: all).
    progress
        Called with (done, total) after every estimate.
    """
    first = estimator.estimate(volume)
    if first.world_from_head is None:
        return Consistency((), (), NO_ANSWER, (), NO_ANSWER, reason=first.reason)
    total = cube_count + random_count + 2 + (8 if first.mask is not None else 0) + 1
    done = 0

    def ask(changed: Volume, mask: Volume | None = None) -> PoseEstimate:
        nonlocal done
        answer = estimator.estimate(changed, mask=mask)
        done += 1
        if progress is not None:
            progress(done, total)
        return answer

    center = first.world_from_head.translation_mm.double()
    upright = turned_about(volume, torch.eye(3, dtype=torch.float64), center)
    reference = ask(upright)
    turns = cube_group()[1:cube_count]
    cube = tuple(_turned_disagreement(ask(turned_about(volume, g, center)), g, reference) for g in turns)
    random = tuple(
        _turned_disagreement(ask(turned_about(volume, g, center)), g, reference)
        for g in random_rotations(random_count, generator=generator)
    )
    even, odd = (ask(half) for half in half_stacks(volume))
    crops: tuple[float, ...] = ()
    if first.mask is not None:
        crops = tuple(_angle(ask(volume, mask), first) for mask in changed_masks(first.mask))
    mirrored = ask(mirrored_left_right(upright))
    return Consistency(cube, random, _angle(even, odd), crops, _mirror_disagreement(mirrored, reference))


def turned_about(volume: Volume, rotation: Float[Tensor, "3 3"], center_mm: Float[Tensor, "3"]) -> Volume:
    """The scan's content turned about a point, on a cube of 3 mm voxels centred there that holds the whole scan.

    The value at world point ``p`` moves to ``c + rotation (p - c)``. For a rotation of the cube every sample falls on
    a sample of the unturned cube, so those agree without interpolation error.
    """
    corners = torch.tensor([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=torch.float64)
    world = volume.world_from_voxel(corners * torch.tensor(volume.shape, dtype=torch.float64) - 0.5)
    reach = float((world - center_mm).abs().max())
    count = 2 * math.ceil(reach / GRID_MM)
    affine = torch.diag(torch.tensor([GRID_MM] * 3 + [1.0], dtype=torch.float64))
    affine[:3, 3] = center_mm - GRID_MM * (count - 1) / 2
    points = grid_points_mm(affine, (count, count, count)) - center_mm
    data = sample_at(volume, points @ rotation.double() + center_mm)  # rotation^T applied to every point
    return Volume(data, affine, name=volume.name)


def half_stacks(volume: Volume) -> tuple[Volume, Volume]:
    """Even and odd slices alone, along the axis with the longest voxels (the last of equals: slices lie on k)."""
    sizes = [round(size, 3) for size in volume.voxel_size_mm]
    axis = max(range(3), key=lambda a: (sizes[a], a))
    halves = []
    for first in (0, 1):
        kept = [slice(None)] * 4
        kept[axis + 1] = slice(first, None, 2)
        affine = volume.affine.clone()
        affine[:3, 3] += first * affine[:3, axis]
        affine[:3, axis] *= 2
        halves.append(replace(volume, data=volume.data[tuple(kept)].contiguous(), affine=affine))
    return halves[0], halves[1]


def changed_masks(mask: Volume) -> list[Volume]:
    """The mask moved by -6 and +6 mm along x, y, z, and scaled by 0.9 and 1.1 about its centroid; same grid."""
    points = grid_points_mm(mask.affine, mask.shape)
    centroid = mask.world_from_voxel((mask.data[0] > 0).nonzero().double()).mean(0)
    changes = []
    for axis in range(3):
        for shift in CROP_SHIFTS_MM:
            moved = points.clone()
            moved[..., axis] -= shift
            changes.append(moved)
    changes += [(points - centroid) / scale + centroid for scale in CROP_SCALES]
    return [replace(mask, data=(sample_at(mask, where) > 0.5).to(mask.data)) for where in changes]


def mirrored_left_right(volume: Volume) -> Volume:
    """The scan's content mirrored in the world's x: the value at ``(x, y, z)`` moves to ``(-x, y, z)``.

    Needs a grid along the world's axes (as :func:`turned_about` makes); values are only flipped.
    """
    affine = volume.affine.clone()
    affine[0, 3] = -(affine[0, 3] + affine[0, 0] * (volume.shape[0] - 1))
    return replace(volume, data=volume.data.flip(1).contiguous(), affine=affine)


def _angle(first: PoseEstimate, second: PoseEstimate) -> float:
    if first.world_from_head is None or second.world_from_head is None:
        return NO_ANSWER
    return _between(first.world_from_head.rotation, second.world_from_head.rotation)


def _between(first: Float[Tensor, "3 3"], second: Float[Tensor, "3 3"]) -> float:
    return math.degrees(float(geodesic_angle(first.double()[None], second.double()[None])[0]))


def _turned_disagreement(turned: PoseEstimate, rotation: Float[Tensor, "3 3"], reference: PoseEstimate) -> float:
    if turned.world_from_head is None or reference.world_from_head is None:
        return NO_ANSWER
    return _between(turned.world_from_head.rotation, rotation.double() @ reference.world_from_head.rotation.double())


def _mirror_disagreement(mirrored: PoseEstimate, reference: PoseEstimate) -> float:
    """A mirrored head has a mirrored pose: ``R' = M R M`` with M = diag(-1, 1, 1) in the world and in the head."""
    if mirrored.world_from_head is None or reference.world_from_head is None:
        return NO_ANSWER
    return _between(mirrored.world_from_head.rotation, mirrored_pose(reference.world_from_head).rotation)


def mirrored_pose(pose: Pose) -> Pose:
    """Pose of the mirrored head in the mirrored world (x changes sign in both frames)."""
    mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0], dtype=torch.float64))
    return Pose(
        mirror @ pose.rotation.double() @ mirror,
        mirror @ pose.translation_mm.double(),
        source=pose.source,
        target=pose.target,
    )
