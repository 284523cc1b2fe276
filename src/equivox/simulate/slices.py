"""Slices through a head: where they are asked for, where they come to lie in a head that moved, what they cover.

A slice is a 4x4 affine from its voxel index (i, j in the plane, k = 0) to mm. Orientations are those of the head.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.rotations import Pose

Orientation = Literal["axial", "coronal", "sagittal"]
ORIENTATIONS: tuple[Orientation, ...] = ("axial", "coronal", "sagittal")
SLICE_AXES: dict[Orientation, tuple[tuple[float, float, float], ...]] = {
    "axial": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "sagittal": ((0.0, -1.0, 0.0), (0.0, 0.0, 1.0), (-1.0, 0.0, 0.0)),
    "coronal": ((-1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0)),
}
"""Directions of a slice's i, j and normal in the head's frame (right, anterior, superior), as published."""


def slice_axes(orientation: Orientation) -> Float[Tensor, "3 3"]:
    """The directions of :data:`SLICE_AXES` as columns."""
    return torch.tensor(SLICE_AXES[orientation], dtype=torch.float64).mT.contiguous()


def slice_positions_mm(low_mm: float, high_mm: float, thickness_mm: float, *, margin: int = 2) -> Float[Tensor, "q"]:
    """Positions along the normal of adjoining slices over an extent, with ``margin`` more at either end.

    The number of slices comes from the extent along the slice's normal, whatever the orientation.
    """
    count = math.ceil((high_mm - low_mm) / thickness_mm - 1e-9) + 2 * margin
    middle = (low_mm + high_mm) / 2
    return middle + (torch.arange(count, dtype=torch.float64) + 0.5 - count / 2) * thickness_mm


def interleaved_order(count: int, sweeps: int) -> list[int]:
    """Order of acquisition: 0, n, 2n, ..., then 1, n + 1, ..., for ``sweeps`` = n.

    Raises
    ------
    ConfigError
        If there is no sweep.
    """
    if sweeps < 1:
        raise ConfigError(f"--interleave is {sweeps}; give the number of sweeps, 1 or more.")
    return [index for start in range(sweeps) for index in range(start, count, sweeps)]


def slice_affine(
    axes: Float[Tensor, "3 3"],
    center: Float[Tensor, "3"],
    *,
    spacing: Sequence[float],
    center_index: Sequence[float],
) -> Float[Tensor, "4 4"]:
    """Affine of a slice whose voxel ``center_index`` lies at ``center``; columns of ``axes`` are i, j and normal."""
    affine = torch.eye(4, dtype=torch.float64)
    affine[:3, :3] = axes.double() * torch.tensor([*spacing], dtype=torch.float64)
    affine[:3, 3] = center.double() - affine[:3, :3] @ torch.tensor([*center_index], dtype=torch.float64)
    return affine


def prescribed_slice(
    world_from_head: Pose,
    orientation: Orientation,
    position_mm: float,
    *,
    voxel_mm: float,
    thickness_mm: float,
    size: int,
) -> Float[Tensor, "4 4"]:
    """World affine of the slice that a pose asks for, ``position_mm`` from the head's origin along the normal."""
    axes = world_from_head.rotation.double() @ slice_axes(orientation)
    center = world_from_head.translation_mm.double() + axes[:, 2] * position_mm
    middle = (size - 1) / 2
    return slice_affine(axes, center, spacing=(voxel_mm, voxel_mm, thickness_mm), center_index=(middle, middle, 0.0))


def obliqueness_deg(head_from_slice: Float[Tensor, "4 4"], orientation: Orientation) -> float:
    """Angle between the normal of an acquired slice, in the head's frame, and the one that was wanted."""
    normal = head_from_slice[:3, 2] / head_from_slice[:3, 2].norm()
    return math.degrees(float(torch.acos((normal @ slice_axes(orientation)[:, 2]).clamp(-1.0, 1.0))))


def coverage(
    points_mm: Float[Tensor, "point 3"], head_from_slices: Sequence[Float[Tensor, "4 4"]], *, size: int
) -> Int[Tensor, "point"]:
    """How many slices hold each point of the head: within half a thickness of the plane and inside the slice's square.

    Parameters
    ----------
    points_mm
        In the head's frame.
    head_from_slices
        Affines of the slices in the head's frame at the moment when each was acquired.
    size
        Voxels along i and j.
    """
    counts = torch.zeros(len(points_mm), dtype=torch.int64)
    for affine in head_from_slices:
        index = (points_mm - affine[:3, 3]) @ torch.linalg.inv(affine[:3, :3]).mT
        inside = (index[:, 2] >= -0.5) & (index[:, 2] < 0.5)
        counts += (inside & ((index[:, :2] >= -0.5) & (index[:, :2] <= size - 0.5)).all(1)).long()
    return counts
