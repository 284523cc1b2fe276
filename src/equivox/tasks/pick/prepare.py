"""A micrograph at the size that a network knows: the same steps in training and in picking."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.micrographs import Micrograph, open_micrograph
from equivox.tasks.pick.downsample import as_float32, fourier_resample, resample_size
from equivox.tasks.pick.normalise import SAMPLE, normalise_micrograph, pixel_range

SMALLEST_SIDE_RADII = 2.0
"""A micrograph smaller than one particle's diameter is refused."""
LARGEST_WORKING_SIDE_PX = 16384


@dataclass(frozen=True, slots=True)
class Prepared:
    """A normalised micrograph and how its pixels lie in the file's.

    Parameters
    ----------
    name
        As given.
    image
        (y, x), float32, median near 0, spread 1; particles dark or bright as in the file.
    file_size_px
        Rows and columns of the file.
    pixel_size_angstrom
        Of the file.
    keep
        1 where something may be picked, 0 where a mask excludes it; None without a mask.
    warnings
        What the reader found doubtful.
    """

    name: str
    image: Float[Tensor, "y x"]
    file_size_px: tuple[int, int]
    pixel_size_angstrom: float
    keep: Float[Tensor, "y x"] | None
    warnings: tuple[str, ...]

    @property
    def factor(self) -> tuple[float, float]:
        """File pixels per working pixel along y and x: ``x_file = x_working * factor``, without an offset."""
        return (
            self.file_size_px[0] / self.image.shape[0],
            self.file_size_px[1] / self.image.shape[1],
        )

    def to_working(self, yx_px: Float[Tensor, "point 2"]) -> Float[Tensor, "point 2"]:
        """Positions (y, x) of the file in working pixels."""
        return yx_px / torch.tensor(self.factor, dtype=yx_px.dtype)

    def to_file(self, yx_px: Float[Tensor, "point 2"]) -> Float[Tensor, "point 2"]:
        """Working positions (y, x) in pixels of the file."""
        return yx_px * torch.tensor(self.factor, dtype=yx_px.dtype)


def prepare_micrograph(
    path: Path | str,
    *,
    radius_angstrom: float,
    radius_px: float,
    pixel_size_angstrom: float | None = None,
    mask: Path | str | None = None,
) -> Prepared:
    """Open, down-sample and normalise a micrograph.

    Parameters
    ----------
    radius_angstrom, radius_px
        The particle's radius, and how many working pixels it shall be.
    pixel_size_angstrom
        Instead of what the file says.
    mask
        Image of any size that covers the same field; 0 excludes.

    Raises
    ------
    InputError
        If the file cannot be read, its pixel size is unknown, it is constant, or it is smaller than a particle.
    """
    micrograph = open_micrograph(path, pixel_size_angstrom=pixel_size_angstrom)
    pixel = micrograph.require_pixel_size()
    rows, columns = (int(size) for size in micrograph.pixels.shape)
    if min(rows, columns) * pixel < SMALLEST_SIDE_RADII * radius_angstrom:
        raise InputError(
            f"{micrograph.name} is {columns * pixel:.0f} x {rows * pixel:.0f} Å at {pixel:.4g} Å a pixel, smaller "
            f"than a particle of radius {radius_angstrom:g} Å; correct --pixel-size-angstrom or --radius-angstrom."
        )
    factor = radius_angstrom / radius_px / pixel
    size = resample_size(rows, factor), resample_size(columns, factor)
    if max(size) > LARGEST_WORKING_SIDE_PX:
        raise InputError(
            f"{micrograph.name} would be {size[1]} x {size[0]} pixels at the size the model needs: its pixels of "
            f"{pixel:.4g} Å are too coarse for a radius of {radius_angstrom:g} Å; give the right "
            f"--pixel-size-angstrom or --radius-angstrom."
        )
    notes = list(micrograph.warnings)
    if factor < 0.8:
        notes.append(
            f"{micrograph.name} has pixels of {pixel:.4g} Å; the model wants {factor * pixel:.4g} Å for a radius of "
            f"{radius_angstrom:g} Å: finer detail than the image holds cannot be used."
        )
    levels = pixel_range(_sampled(micrograph))
    if not levels.sigma > 0.0:
        raise InputError(f"{micrograph.name} is constant: there is nothing to pick from; leave it out.")
    image = fourier_resample(micrograph.pixels, size, clean=levels.cut)
    keep = None if mask is None else _read_mask(mask, size)
    try:
        normal = normalise_micrograph(image, radius_px=radius_px, keep=keep)
    except ValueError as error:
        raise InputError(f"{micrograph.name}: {error} where the mask keeps it; check image and mask.") from error
    return Prepared(micrograph.name, normal, (rows, columns), pixel, keep, tuple(notes))


def _sampled(micrograph: Micrograph) -> Float[Tensor, " pixel"]:
    """Pixels evenly taken from the whole image, whole rows at a time."""
    rows, columns = micrograph.pixels.shape
    step = max(1, rows * columns // SAMPLE)
    return as_float32(micrograph.pixels[::step]).flatten()


def _read_mask(path: Path | str, size: tuple[int, int]) -> Float[Tensor, "y x"]:
    """A mask at the working size: a pixel is kept where most of it is kept."""
    pixels = np.asarray(open_micrograph(path, pixel_size_angstrom=1.0).pixels)
    keep = torch.from_numpy(pixels != 0).float()
    return (functional.interpolate(keep[None, None], size=size, mode="area")[0, 0] > 0.5).float()
