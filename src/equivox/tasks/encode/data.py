"""From a scan to what an encoder sees: a brain on an isotropic grid along the world's axes, by one resampling.

The same function serves training and use. The grid is RAS, ``side`` cubed, centred at the centroid of the brain's mask
(which turns with the brain, a bounding box does not); sizes are never changed. Intensities are divided by the 95th
percentile inside the brain, cut to [0, 1.5], and 0 outside. Nothing is registered: any orientation is fine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.nifti import open_scan
from equivox.geometry.space import Volume
from equivox.tasks.encode.extraction import BrainMask, find_brain

SIDE = 64
VOXEL_SIZE_MM = 3.3
"""64 voxels of 3.3 mm: a ball of 101 mm about the centroid, which holds nearly every adult brain."""
PERCENTILE = 0.95
HIGHEST = 1.5
"""Intensity (95th percentile = 1) above which values are cut."""
BALL_MARGIN_VOXELS = 1.4
"""From the grid's edge to where the encoders' soft ball is one half."""
RESOLUTION = 0.5
"""SD of the image's blur in working voxels, the scan's own voxels included.

Less lets aliasing in: an untrained encoder's E was 0.034 at 0.36 and 0.015 at 0.48 (three brains), 0.012 at 0.6.
"""
REACH_SIGMAS = 3.5
FINEST = 0.62
"""Smoothed scans are kept on voxels of at most this many working voxels (2 mm of 3.3), where what is lost is below 4 %
of the finest waves and nothing of the others.
"""
HISTOGRAM_BINS = 24
"""Of the intensities inside the brain over [0, 1.5]: the plainest thing that knows about age."""

Array = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class Brain:
    """One brain, ready for an encoder.

    Parameters
    ----------
    volume
        Intensities (1, side, side, side), 0 outside the brain.
    mask
        Soft mask in [0, 1] on the same grid.
    affine
        4x4 float64, index of the working grid to world mm (RAS+): no rotation in it.
    warnings
        Sentences about what had to be assumed.
    direction
        Unit vectors of the file's voxel axes in the world, as columns: for vectors along voxel axes.
    volume_ml
        Of the mask.
    radius_mm
        Largest distance of the mask from its centroid.
    name
        The file's name.
    """

    volume: Float[Tensor, "1 x y z"]
    mask: Float[Tensor, "1 x y z"]
    affine: Float[Tensor, "4 4"]
    warnings: tuple[str, ...]
    direction: Float[Tensor, "3 3"]
    volume_ml: float
    radius_mm: float
    name: str

    @property
    def centroid_mm(self) -> Float[Tensor, "3"]:
        """World position of the grid's centre, the centroid of the mask."""
        middle = (torch.tensor(self.volume.shape[1:], dtype=torch.float64) - 1) / 2
        return self.affine[:3, :3] @ middle + self.affine[:3, 3]


class BrainSource:
    """A scan read once, from which brains can be sampled in any orientation, each by one interpolation.

    Parameters
    ----------
    volume
        The scan on its own grid.
    brain
        Which voxels are brain: :func:`equivox.tasks.encode.extraction.find_brain`.
    voxel_size_mm
        Of the grid that will be sampled: decides the smoothing against aliasing.
    warnings
        Sentences to hand on.
    """

    def __init__(
        self,
        volume: Volume,
        brain: BrainMask,
        *,
        voxel_size_mm: float = VOXEL_SIZE_MM,
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.name, self.direction, self.voxel_size_mm = volume.name, volume.direction, voxel_size_mm
        inside = brain.inside
        places = inside.nonzero()
        world = volume.world_from_voxel(places.double())
        self.centroid_mm: Float[Tensor, "3"] = world.mean(0)
        distance = (world - self.centroid_mm).norm(dim=1)
        self.radius_mm = float(distance.max())
        self.distances_mm = distance
        self.volume_ml = float(places.shape[0]) * abs(float(torch.linalg.det(volume.affine[:3, :3]))) / 1000.0
        values, trouble = _normalised(volume.data[0][inside], brain.background, volume.name)
        counts = torch.histc(values, bins=HISTOGRAM_BINS, min=0.0, max=HIGHEST)
        self.histogram: Float[Tensor, "bins"] = counts.double() / len(values)
        self.warnings = (*warnings, *brain.warnings, *trouble)
        sigma = [_smoothing(step, voxel_size_mm) for step in volume.voxel_size_mm]
        margin = [
            math.ceil(REACH_SIGMAS * one) + 4 * _thinning(step, voxel_size_mm)
            for one, step in zip(sigma, volume.voxel_size_mm, strict=True)
        ]
        low, high = places.amin(0), places.amax(0) + 1
        self._start = torch.tensor([int(a) - b for a, b in zip(low, margin, strict=True)], dtype=torch.float64)
        shape = [int(b - a) + 2 * m for a, b, m in zip(low, high, margin, strict=True)]
        both = np.zeros((2, *shape), dtype=np.float32)
        within = (places - low + torch.tensor(margin)).T.numpy()
        both[0][tuple(within)] = values.numpy()
        both[1][tuple(within)] = 1.0
        thinned = [_thinning(step, voxel_size_mm) for step in volume.voxel_size_mm]
        middle = (volume.voxel_from_world(self.centroid_mm) - self._start).round().long().tolist()
        first = [place % kept for place, kept in zip(middle, thinned, strict=True)]  # the same however axes run
        self._start += torch.tensor(first, dtype=torch.float64)
        self._thinned = np.array(thinned, dtype=np.float64)
        self._coefficients = [_spline(one, sigma, first, thinned) for one in both]
        self._voxel_from_world = torch.linalg.inv(volume.affine)

    def sample(self, *, side: int = SIDE, turn: Float[Tensor, "3 3"] | None = None) -> Brain:
        """The brain on a grid of ``side`` cubed about its centroid.

        Parameters
        ----------
        side
            Voxels along each edge.
        turn
            Rotation of the content about the centroid: what was at ``centroid + p`` comes to ``centroid + turn @ p``.
        """
        affine = torch.diag(torch.tensor([self.voxel_size_mm] * 3 + [1.0], dtype=torch.float64))
        affine[:3, 3] = self.centroid_mm - self.voxel_size_mm * (side - 1) / 2
        axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * self.voxel_size_mm
        offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).flatten(0, 2)
        near = offsets.norm(dim=1) <= self.radius_mm + REACH_SIGMAS * self.voxel_size_mm
        points = offsets[near] if turn is None else offsets[near] @ turn.double()  # turn^-1 p, in rows
        index = (points + self.centroid_mm) @ self._voxel_from_world[:3, :3].mT + self._voxel_from_world[:3, 3]
        where = (index - self._start).T.numpy() / self._thinned[:, None]
        sampled = []
        for coefficients, highest in zip(self._coefficients, (HIGHEST, 1.0), strict=True):
            values = ndimage.map_coordinates(coefficients, where, order=3, mode="constant", prefilter=False)
            field = torch.zeros(side**3)
            field[near] = torch.from_numpy(values).float().clamp(0.0, highest)
            sampled.append(field.view(1, side, side, side))
        ball_mm = (side / 2 - BALL_MARGIN_VOXELS) * self.voxel_size_mm
        warnings = self.warnings
        if self.radius_mm > ball_mm:
            share = 100.0 * float((self.distances_mm > ball_mm).double().mean())
            warnings = (
                *warnings,
                f"{self.name} reaches {self.radius_mm:.0f} mm from its centroid, beyond the ball of {ball_mm:.0f} mm "
                f"that the encoder sees; {share:.2g} % of the brain is cut off.",
            )
        return Brain(
            sampled[0], sampled[1], affine, warnings, self.direction, self.volume_ml, self.radius_mm, self.name
        )


def open_brain(
    path: Path | str,
    *,
    mask: Path | str | None = None,
    brain_extracted: bool = False,
    voxel_size_mm: float = VOXEL_SIZE_MM,
) -> BrainSource:
    """Read a scan of one brain; nothing is sampled yet.

    Raises
    ------
    InputError
        If the file cannot be used (missing, damaged, a series, constant), the skull is there, or the mask does not fit.
    """
    scan = open_scan(path)
    if scan.is_series:
        raise InputError(
            f"{path} holds {scan.frame_count} frames; an encoder takes one volume: give a T1-weighted scan, or cut one "
            f"frame out."
        )
    volume = scan.frame(0)
    brain = find_brain(volume, mask=mask, brain_extracted=brain_extracted)
    return BrainSource(volume, brain, voxel_size_mm=voxel_size_mm, warnings=scan.warnings)


def prepare_brain(
    path: Path | str,
    *,
    mask: Path | str | None = None,
    brain_extracted: bool = False,
    side: int = SIDE,
    voxel_size_mm: float = VOXEL_SIZE_MM,
    turn: Float[Tensor, "3 3"] | None = None,
) -> Brain:
    """One brain for an encoder: read, normalised inside the mask, resampled once to the working grid.

    Parameters
    ----------
    path
        NIfTI or MGH file with one T1-weighted volume, of any voxel size, orientation and handedness.
    mask, brain_extracted
        See :func:`equivox.tasks.encode.extraction.find_brain`.
    side, voxel_size_mm
        The working grid.
    turn
        Rotation of the content about the brain's centroid.

    Raises
    ------
    InputError
        See :func:`open_brain`.
    """
    source = open_brain(path, mask=mask, brain_extracted=brain_extracted, voxel_size_mm=voxel_size_mm)
    return source.sample(side=side, turn=turn)


def _normalised(inside: Float[Tensor, "count"], background: float, name: str) -> tuple[Tensor, list[str]]:
    """Intensities of the brain's voxels: 95th percentile 1, cut to [0, 1.5]."""
    trouble = []
    values = inside.numpy()
    least = float(values.min())
    if least == float(values.max()):
        raise InputError(f"{name} holds the same value {least:g} all over the brain; give the scan itself.")
    low_place, high_place = (int(share * (len(values) - 1)) for share in (0.005, PERCENTILE))
    ordered = np.partition(values, (low_place, high_place))
    lowest = 0.0
    if least < 0.0:
        lowest = min(float(ordered[low_place]), background)
        trouble.append(f"{name} has negative values inside the brain; its intensities were raised by {-lowest:.4g}.")
    high = float(ordered[high_place]) - lowest
    if high <= 0.0:
        raise InputError(f"{name} is 0 in more than 95 % of the brain; give the scan itself, not a map of lesions.")
    return ((inside.double() - lowest) / high).clamp(0.0, HIGHEST).float(), trouble


def _smoothing(step_mm: float, voxel_size_mm: float) -> float:
    """SD [voxels of the scan] that brings the blur along one axis to the working grid's, the voxel's own included."""
    return math.sqrt(max((RESOLUTION * voxel_size_mm) ** 2 - step_mm**2 / 12.0, 0.0)) / step_mm


def _thinning(step_mm: float, voxel_size_mm: float) -> int:
    """Every how many-th voxel of the smoothed scan is kept along an axis: fine scans hold nothing between them."""
    return max(int(FINEST * voxel_size_mm / step_mm + 1e-6), 1)


def _spline(
    field: np.ndarray[tuple[int, ...], np.dtype[np.float32]], sigma: list[float], first: list[int], thinned: list[int]
) -> Array:
    """Cubic B-spline coefficients of a smoothed field that is 0 near its border, on every so many-th voxel."""
    smooth = field
    for axis, (width, kept) in enumerate(zip(sigma, thinned, strict=True)):
        if width > 0:
            smooth = ndimage.gaussian_filter1d(smooth, width, axis=axis, mode="constant", truncate=REACH_SIGMAS)
        smooth = smooth[tuple(slice(first[a], None, kept) if a == axis else slice(None) for a in range(3))]
    coefficients: Array = ndimage.spline_filter(smooth, order=3, output=np.float64, mode="mirror")
    return coefficients
