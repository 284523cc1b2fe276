"""The grid on which a head is looked for: 4 mm, isotropic, along the world axes, with a map of the field of view."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.space import Volume, isotropic_grid
from equivox.tasks.pose.padding import measured_voxels

VOXEL_SIZE_MM = 4.0
CENTER_RADIUS_MM = 28.0
"""Smaller than any brain looked for here, larger than its ventricles."""
CENTER_LEVEL = 0.8
"""Of 0.8, 1.2, 1.8 and no levelling the best on seven held-out stacks (docs/experiments/pose.md)."""


def working_grid(volume: Volume, voxel_size_mm: float = VOXEL_SIZE_MM) -> Volume:
    """Bring a stack of any orientation and voxel size to the working grid.

    Returns a volume of two channels (intensity, validity): validity is 1 inside the stack's field of view and 0
    outside it and in its padding (:func:`equivox.tasks.pose.padding.measured_voxels`), where the intensity is 0.
    Stacks finer than the grid are averaged first, so that nothing aliases.
    """
    image, measured = volume.data[:1].float(), measured_voxels(volume)
    step = torch.tensor(volume.voxel_size_mm)
    width = ((voxel_size_mm / step) ** 2 - 1).clamp_min(0).sqrt() * 0.3
    for axis in range(3):
        image = _smooth(image, axis + 1, float(width[axis]))
    affine, shape = isotropic_grid(volume, voxel_size_mm)
    index = _voxel_indices(volume, affine, shape)
    size = torch.tensor(volume.shape, dtype=torch.float32)
    valid = ((index >= -0.5) & (index <= size - 0.5)).all(-1).float()
    grid = (2 * index / (size - 1).clamp_min(1) - 1).flip(-1)
    sampled = functional.grid_sample(image[None], grid[None], padding_mode="border", align_corners=True)[0, 0]
    if measured is not None:
        valid = valid * functional.grid_sample(measured[None], grid[None], mode="nearest", align_corners=True)[0, 0]
    return Volume(torch.stack([sampled * valid, valid]), affine, volume.name)


def robust_scale(image: Float[Tensor, "x y z"], valid: Float[Tensor, "x y z"]) -> float:
    """A stack's bright level: the 90th percentile inside the field of view (0 for an empty one)."""
    values = image[valid > 0.5]
    if values.numel() == 0:
        return 0.0
    return float(values.kthvalue(max(1, round(0.9 * values.numel()))).values)


def level_at_center(
    image: Float[Tensor, "crop 1 x y z"], valid: Float[Tensor, "crop 1 x y z"]
) -> Float[Tensor, "crop 1 x y z"]:
    """Scale each crop so that the median in the ball of 28 mm around its centre is :data:`CENTER_LEVEL`.

    A brain there then looks the same near to the coil and far from it. A crop whose ball holds no valid positive
    intensity is left as it is.
    """
    axes = [torch.arange(side, dtype=image.dtype, device=image.device) - (side - 1) / 2 for side in image.shape[2:]]
    radius = (axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2).sqrt()
    ball = radius < CENTER_RADIUS_MM / VOXEL_SIZE_MM
    gains = []
    for values, inside in zip(image[:, 0], valid[:, 0], strict=True):
        kept = values[ball & (inside > 0.5)]
        level = kept.median() if kept.numel() else kept.new_zeros(())
        gains.append(torch.where(level > 1e-6, CENTER_LEVEL / level, torch.ones_like(level)))
    return image * torch.stack(gains).reshape(-1, 1, 1, 1, 1)


def _voxel_indices(volume: Volume, affine: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """Indices into ``volume`` of a grid's voxel centres, in float32: exact to 1e-4 voxel, a third of float64's cost."""
    index_from_index = torch.linalg.inv(volume.affine) @ affine
    axes = [
        torch.arange(count, dtype=torch.float64)[:, None] * index_from_index[:3, axis]
        for axis, count in enumerate(shape)
    ]
    x, y, z = (axis.float() for axis in axes)
    x = x + index_from_index[:3, 3].float()
    return x[:, None, None] + y[None, :, None] + z[None, None, :]


def _smooth(image: Tensor, axis: int, sigma: float) -> Tensor:
    if sigma < 0.2 or image.shape[axis] < 2:
        return image
    reach = int(3 * sigma + 0.999)
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype)
    taps = torch.exp(-0.5 * (offsets / sigma) ** 2)
    moved = image.movedim(axis, -1)
    flat = functional.pad(moved.reshape(1, -1, moved.shape[-1]), (reach, reach), mode="replicate")
    kernel = (taps / taps.sum())[None, None]
    smoothed = functional.conv1d(flat.transpose(0, 1), kernel)
    return smoothed.reshape(moved.shape).movedim(-1, axis)
