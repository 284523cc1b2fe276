"""What the mask of a scan decides before any intensity is looked at: centroid, extent, smoothing, and how to sample."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from equivox.geometry.space import Volume
from equivox.tasks.encode.extraction import BrainMask, bounding_box
from equivox.tasks.encode.straight_grid import StraightGrid

RESOLUTION = 0.5
"""SD of the image's blur in working voxels, the scan's own voxels included.

Less lets aliasing in: an untrained encoder's E was 0.034 at 0.36 and 0.015 at 0.48 (three brains), 0.012 at 0.6.
"""
REACH_SIGMAS = 3.5
ALIGNED = 1e-7
"""Scans whose axes are off the world's by no more than this are sampled axis by axis: 10 micrometres at 100 mm."""
FINEST = 0.62
"""Smoothed scans are kept on voxels of at most this many working voxels (2 mm of 3.3), where what is lost is below 4 %
of the finest waves and nothing of the others.
"""

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


class BrainFrame:
    """What the mask alone decides: centroid, extent, smoothing, and the mask made ready to be sampled.

    Parameters
    ----------
    volume
        The scan whose grid the mask has; its intensities do not matter.
    brain
        Which voxels are brain.
    voxel_size_mm
        Of the grid that will be sampled.
    """

    def __init__(self, volume: Volume, brain: BrainMask, voxel_size_mm: float) -> None:
        self.voxel_size_mm = voxel_size_mm
        self.box = bounding_box(brain.inside)
        self.inside: Bool[Tensor, "x y z"] = brain.inside[self.box].contiguous()
        count = int(torch.count_nonzero(self.inside))
        low = torch.tensor([float(one.start) for one in self.box], dtype=torch.float64)
        middle = low + torch.stack([_mean_place(self.inside, axis, count) for axis in range(3)])
        self.centroid_mm: Float[Tensor, "3"] = volume.world_from_voxel(middle)
        self.distances_mm: Float[Tensor, "count"] = _distances(self.inside, middle - low, volume.affine)
        self.radius_mm = float(self.distances_mm.max())
        self.volume_ml = float(count) * abs(float(torch.linalg.det(volume.affine[:3, :3]))) / 1000.0
        sigma = [_smoothing(step, voxel_size_mm) for step in volume.voxel_size_mm]
        thinning = [_thinning(step, voxel_size_mm) for step in volume.voxel_size_mm]
        margin = [math.ceil(REACH_SIGMAS * one) + 4 * kept for one, kept in zip(sigma, thinning, strict=True)]
        start = low - torch.tensor(margin, dtype=torch.float64)
        nearest = (middle - start).round().long().tolist()
        first = [place % kept for place, kept in zip(nearest, thinning, strict=True)]  # the same however axes run
        self.start: Float[Tensor, "3"] = start + torch.tensor(first, dtype=torch.float64)
        self.step: Array = np.array(thinning, dtype=np.float64)
        self.voxel_from_world: Float[Tensor, "4 4"] = torch.linalg.inv(volume.affine)
        self._matrices = [
            _spline_matrix(length, *rest)
            for length, *rest in zip(self.inside.shape, margin, sigma, first, thinning, strict=True)
        ]
        self.mask = self.ready(torch.ones(count)).astype(np.float32)

    def inside_values(self, data: Float[Tensor, "x y z"]) -> Float[Tensor, "count"]:
        """Values of a volume on the mask's grid inside the brain, in the order that :meth:`ready` takes."""
        return torch.from_numpy(data.numpy()[self.box][self.inside.numpy()])

    def along_axes(self, axis: Float[Tensor, " place"], centroid_mm: Float[Tensor, "3"]) -> StraightGrid | None:
        """How to sample a grid along the world's axes where the scan's axes lie along them too, else None."""
        linear = self.voxel_from_world[:3, :3]
        order = linear.abs().argmax(dim=1).tolist()
        straight = torch.zeros(3, 3, dtype=torch.float64)
        for row, column in enumerate(order):
            straight[row, column] = linear[row, column]
        if sorted(order) != [0, 1, 2] or float((linear - straight).abs().max()) > ALIGNED * float(linear.abs().max()):
            return None
        middle = straight @ centroid_mm + self.voxel_from_world[:3, 3] - self.start
        places = [(middle[row] + straight[row, column] * axis) / self.step[row] for row, column in enumerate(order)]
        return StraightGrid(tuple(places), tuple(order))

    def ready(self, values: Float[Tensor, "count"]) -> Array:
        """Cubic B-spline coefficients, smoothed against aliasing, of a field that has these values inside the brain."""
        field = np.zeros(tuple(self.inside.shape))
        field[self.inside.numpy()] = values.numpy()
        found = torch.from_numpy(field)
        for axis, matrix in enumerate(self._matrices):
            found = torch.tensordot(matrix, found, dims=([1], [axis])).movedim(0, axis)
        result: Array = found.contiguous().numpy()
        return result


def _smoothing(step_mm: float, voxel_size_mm: float) -> float:
    """SD [voxels of the scan] that brings the blur along one axis to the working grid's, the voxel's own included."""
    return math.sqrt(max((RESOLUTION * voxel_size_mm) ** 2 - step_mm**2 / 12.0, 0.0)) / step_mm


def _thinning(step_mm: float, voxel_size_mm: float) -> int:
    """Every how many-th voxel of the smoothed scan is kept along an axis: fine scans hold nothing between them."""
    return max(int(FINEST * voxel_size_mm / step_mm + 1e-6), 1)


def _spline_matrix(
    length: int, margin: int, sigma: float, first: int, thinned: int
) -> Float[Tensor, "coefficient voxel"]:
    """From voxels of the box along one axis, zeros around them, to spline coefficients: smoothed and thinned."""
    found = np.eye(length + 2 * margin)[:, margin : margin + length]
    if sigma > 0:
        found = ndimage.gaussian_filter1d(found, sigma, axis=0, mode="constant", truncate=REACH_SIGMAS)
    return torch.from_numpy(ndimage.spline_filter1d(found[first::thinned], order=3, axis=0, mode="mirror"))


def _mean_place(inside: Bool[Tensor, "x y z"], axis: int, count: int) -> Float[Tensor, ""]:
    """Mean index along an axis of the voxels that are inside."""
    others = [other for other in range(3) if other != axis]
    along = torch.count_nonzero(inside, dim=others).double()
    return (along * torch.arange(len(along), dtype=torch.float64)).sum() / count


def _distances(
    inside: Bool[Tensor, "x y z"], middle: Float[Tensor, "3"], affine: Float[Tensor, "4 4"]
) -> Float[Tensor, "count"]:
    """Distance of every voxel inside from a (fractional) voxel [mm]."""
    metric = affine[:3, :3].mT @ affine[:3, :3]
    axes = []
    for axis, length in enumerate(inside.shape):
        shape = [1, 1, 1]
        shape[axis] = -1
        axes.append((torch.arange(length, dtype=torch.float64) - middle[axis]).view(shape))
    square = torch.zeros(1, 1, 1, dtype=torch.float64)
    for row, column in itertools.combinations_with_replacement(range(3), 2):
        weight = float(metric[row, column]) * (1.0 if row == column else 2.0)
        if abs(weight) > 1e-12:
            square = square + weight * axes[row] * axes[column]
    chosen = np.broadcast_to(square.numpy(), tuple(inside.shape))[inside.numpy()]
    return torch.from_numpy(np.sqrt(chosen.clip(0.0))).float()
