"""From a particle's image to the picture that a network sees: sign, background, transfer, pixel size and centre.

Images of RELION and cryoSPARC have their centre on pixel ``n // 2``; a network of projected filters has it in the
middle, ``(side - 1) / 2``. The two meet here and nowhere else: the image is resampled between its pixels (band-limited,
exact for what both grids can hold), so a dot on pixel ``n // 2`` becomes one in the middle of the picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Contrast = Literal["light", "dark"]
BACKGROUND_RADIUS = 0.75
"""Pixels farther from the centre than this share of the half box are background (RELION's default)."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Where the picture's pixels lie in an image.

    Parameters
    ----------
    box_px, pixel_size_angstrom
        Of the image.
    side, picture_pixel_angstrom
        Of the picture.
    """

    box_px: int
    pixel_size_angstrom: float
    side: int
    picture_pixel_angstrom: float


@lru_cache(maxsize=32)
def sampling_matrix(sampling: Sampling) -> Tensor:
    """(side, box): each picture pixel as a weighted sum of image pixels along one axis, float32; not to be written to.

    Band-limited interpolation cut at the lower of the two Nyquist frequencies. Places outside the box get nothing (0 is
    the background after normalisation).
    """
    box, side = sampling.box_px, sampling.side
    ratio = sampling.picture_pixel_angstrom / sampling.pixel_size_angstrom
    place = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) * ratio + box // 2
    distance = place[:, None] - torch.arange(box, dtype=torch.float64)
    limit = min(0.5, 0.5 / ratio) * box  # in cycles per box
    orders = torch.arange(1, math.floor(limit - 1e-9) + 1, dtype=torch.float64)
    waves = 2.0 * torch.cos(2.0 * math.pi / box * orders * distance[..., None]).sum(-1)
    matrix = (1.0 + waves) / box
    inside = (place >= -0.5) & (place <= box - 0.5)
    return (matrix * inside[:, None]).float()


def resample_pictures(images: Float[Tensor, "picture y x"], sampling: Sampling) -> Float[Tensor, "picture side side"]:
    """Bring square images to the picture's pixels: box centre ``n // 2`` to picture centre ``(side - 1) / 2``."""
    matrix = sampling_matrix(sampling).to(images)
    return matrix @ images @ matrix.mT


@lru_cache(maxsize=8)
def background_mask(box_px: int) -> Tensor:
    """True where an image shows background: outside 75 % of the half box, in its corners at least."""
    axis = torch.arange(box_px, dtype=torch.float32) - box_px // 2
    return axis[:, None].square() + axis.square() > (BACKGROUND_RADIUS * box_px / 2) ** 2


def normalise_background(images: Float[Tensor, "picture y x"]) -> Float[Tensor, "picture y x"]:
    """Subtract the background's mean and divide by its standard deviation (by the image's own where that is 0)."""
    mask = background_mask(images.shape[-1]).to(images.device)
    outside = images[:, mask]
    mean, spread = outside.mean(1), outside.std(1)
    whole = images.flatten(1).std(1)
    spread = torch.where(spread > 1e-6 * whole, spread, whole.clamp_min(1e-12))
    return (images - mean[:, None, None]) / spread[:, None, None]


def centre_contrast(images: Float[Tensor, "picture y x"]) -> Float[Tensor, "picture"]:
    """How much lighter the middle is than the background, in standard deviations of the background's mean."""
    box = images.shape[-1]
    axis = torch.arange(box, dtype=torch.float32, device=images.device) - box // 2
    middle = axis[:, None].square() + axis.square() < (box / 6) ** 2
    outside = images[:, background_mask(box).to(images.device)]
    error = outside.std(1).clamp_min(1e-12) / math.sqrt(int(middle.sum()))
    return (images[:, middle].mean(1) - outside.mean(1)) / error


def standardise(pictures: Float[Tensor, "picture y x"]) -> Float[Tensor, "picture y x"]:
    """Mean 0 and standard deviation 1 of every picture: what networks are trained on."""
    centered = pictures - pictures.mean((1, 2), keepdim=True)
    return centered / centered.std((1, 2), keepdim=True).clamp_min(1e-12)
