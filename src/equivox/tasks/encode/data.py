"""From a scan to what an encoder sees: a brain on an isotropic grid along the world's axes, by one resampling.

The same function serves training and use. The grid is RAS, ``side`` cubed, centred at the centroid of the brain's mask
(which turns with the brain, a bounding box does not); sizes are never changed. Intensities are divided by the 95th
percentile inside the brain, cut to [0, 1.5], and 0 outside. Nothing is registered: any orientation is fine.
"""

from __future__ import annotations

import functools
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
from equivox.tasks.encode.brain_frame import REACH_SIGMAS, BrainFrame
from equivox.tasks.encode.extraction import BrainMask, find_brain
from equivox.tasks.encode.tissue_depth import tissue_depths

SIDE = 64
VOXEL_SIZE_MM = 3.3
"""64 voxels of 3.3 mm: a ball of 101 mm about the centroid, which holds nearly every adult brain."""
PERCENTILE = 0.95
HIGHEST = 1.5
"""Intensity (95th percentile = 1) above which values are cut."""
BALL_MARGIN_VOXELS = 1.4
"""From the grid's edge to where the encoders' soft ball is one half."""
HISTOGRAM_BINS = 24
"""Of the intensities inside the brain over [0, 1.5]: the plainest thing that knows about age."""


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
    frame
        Of the same mask and grid, where other intensities were sampled before.
    """

    def __init__(
        self,
        volume: Volume,
        brain: BrainMask,
        *,
        voxel_size_mm: float = VOXEL_SIZE_MM,
        warnings: tuple[str, ...] = (),
        frame: BrainFrame | None = None,
    ) -> None:
        self.name, self.direction, self.voxel_size_mm = volume.name, volume.direction, voxel_size_mm
        self.frame = frame or BrainFrame(volume, brain, voxel_size_mm)
        self.centroid_mm: Float[Tensor, "3"] = self.frame.centroid_mm
        self.radius_mm, self.volume_ml = self.frame.radius_mm, self.frame.volume_ml
        values, trouble = _normalised(self.frame.inside_values(volume.data[0]), brain.background, volume.name)
        counts = torch.histc(values, bins=HISTOGRAM_BINS, min=0.0, max=HIGHEST)
        self.histogram: Float[Tensor, "bins"] = counts.double() / len(values)
        self.warnings = (*warnings, *brain.warnings, *trouble)
        self._values, self._steps_mm = values, volume.voxel_size_mm
        self._coefficients = self.frame.ready(values)

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        inside = self.frame.distances_mm.numel()
        return int(self._coefficients.nbytes + self.frame.mask.nbytes + 9 * inside)

    def tissue_depths(self) -> Float[Tensor, "share"]:
        """Shares of the brain by brightness and depth in the scan's own voxels; see :mod:`.tissue_depth`."""
        return tissue_depths(self._values, self.frame.inside, self._steps_mm, brightest=HIGHEST)

    def sample(
        self,
        *,
        side: int = SIDE,
        turn: Float[Tensor, "3 3"] | None = None,
        shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> Brain:
        """The brain on a grid of ``side`` cubed about its centroid.

        Parameters
        ----------
        side
            Voxels along each edge.
        turn
            Rotation of the content about the centroid: what was at ``centroid + p`` comes to ``centroid + turn @ p``.
        shift_mm
            The centroid is taken to lie off by this.
        """
        centroid_mm = self.centroid_mm + torch.tensor(shift_mm, dtype=torch.float64)
        affine = torch.diag(torch.tensor([self.voxel_size_mm] * 3 + [1.0], dtype=torch.float64))
        affine[:3, 3] = centroid_mm - self.voxel_size_mm * (side - 1) / 2
        frame = self.frame
        axis = _axis(side, self.voxel_size_mm)
        near = _distances(side, self.voxel_size_mm) <= self.radius_mm + REACH_SIGMAS * self.voxel_size_mm
        kinds = ((self._coefficients, HIGHEST), (frame.mask, 1.0))
        straight = None if turn is not None else frame.along_axes(axis, centroid_mm)
        if straight is None:
            offsets = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)[near]
            points = offsets if turn is None else offsets @ turn.double()  # turn^-1 p, in rows
            index = (points + centroid_mm) @ frame.voxel_from_world[:3, :3].mT + frame.voxel_from_world[:3, 3]
            where = (index - frame.start).T.numpy() / frame.step[:, None]
        sampled = []
        for coefficients, highest in kinds:
            field = torch.zeros(side, side, side)
            if straight is None:
                values = ndimage.map_coordinates(coefficients, where, order=3, mode="constant", prefilter=False)
                field[near] = torch.from_numpy(values).float()
            else:
                field = torch.where(near, straight.values(coefficients).float(), field)
            sampled.append(field.clamp_(0.0, highest)[None])
        ball_mm = (side / 2 - BALL_MARGIN_VOXELS) * self.voxel_size_mm
        warnings = self.warnings
        if self.radius_mm > ball_mm:
            share = 100.0 * float((frame.distances_mm > ball_mm).double().mean())
            warnings = (
                *warnings,
                f"{self.name} reaches {self.radius_mm:.0f} mm from its centroid, beyond the ball of {ball_mm:.0f} mm "
                f"that the encoder sees; {share:.2g} % of the brain is cut off.",
            )
        return Brain(
            sampled[0], sampled[1], affine, warnings, self.direction, self.volume_ml, self.radius_mm, self.name
        )


@functools.lru_cache(maxsize=2)
def _axis(side: int, voxel_size_mm: float) -> Float[Tensor, " place"]:
    """Voxel centres of the working grid along one axis [mm] from its middle; not to be written to."""
    return (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * voxel_size_mm


@functools.lru_cache(maxsize=2)
def _distances(side: int, voxel_size_mm: float) -> Float[Tensor, "x y z"]:
    """Distance of every voxel centre of the working grid from its middle [mm]; not to be written to."""
    square = _axis(side, voxel_size_mm).square()
    return (square[:, None, None] + square[:, None] + square).sqrt()


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
