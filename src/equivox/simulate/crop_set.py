"""Crops that hold a particle in the middle or do not: the simulated set on which pickers are compared.

Each crop is positive (a particle within 2.5 pixels of the middle) or one of three kinds of negative: a particle off the
middle by 13 to 19 pixels, a cloud of blobs of the particle's size and mass, or noise alone. Without the first two,
every classifier is nearly perfect and nothing is compared. Crops of one split share no noise and no draw with another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Bool, Float, Int
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.rotations import random_rotations
from equivox.simulate.ctf import Microscope, apply_transfer, ctf

SIDE_PX, PIXEL_ANGSTROM = 45, 8.0
POSITIVE_SHARE = 0.1
NEGATIVE_SHARES = (0.30, 0.25, 0.45)
"""Off the middle, decoys, noise."""
SEMI_AXES_PX = (9.0, 6.3, 4.0)
SIGMA_PX = (1.2, 1.8)
GAUSSIANS = 30
SHIFT_PX = 2.5
ASIDE_PX = (13.0, 19.0)
DEFOCUS_ANGSTROM = (10000.0, 25000.0)
KINDS = ("particle", "aside", "decoy", "noise")


@dataclass(frozen=True, slots=True, eq=False)
class GaussianMixture:
    """Blobs in pixels about the origin, each with its own width; ``batch`` mixtures at once."""

    centres_px: Float[Tensor, "batch blob 3"]
    sigma_px: Float[Tensor, "batch blob"]
    weights: Float[Tensor, "batch blob"]


@dataclass(frozen=True, slots=True, eq=False)
class CropSet:
    """Crops, whether a particle lies in the middle, what each shows (index into ``KINDS``), and the pose if any."""

    images: Float[Tensor, "crop y x"]
    positive: Bool[Tensor, "crop"]
    kind: Int[Tensor, "crop"]
    rotations: Float[Tensor, "crop 3 3"]


def crop_particle(*, generator: torch.Generator) -> GaussianMixture:
    """The particle: 30 Gaussians of 1.2 to 1.8 pixels in an ellipsoid of 9 x 6.3 x 4 pixels."""
    return _blobs(1, generator)


def crop_set(
    count: int, particle: GaussianMixture, *, snr: float, generator: torch.Generator, side_px: int = SIDE_PX
) -> CropSet:
    """Draw a set of crops in random order.

    Parameters
    ----------
    count
        Crops; a tenth of them is positive.
    particle
        One mixture, from :func:`crop_particle`: the same for training and test.
    snr
        Mean variance of the noise-free positive crops over the whole box, over that of the white noise.
    generator
        Of random numbers.
    side_px
        Edge, odd.

    Returns
    -------
    Images of protein in white with unit noise, one contrast transfer function each, not normalised one by one.

    Raises
    ------
    ConfigError
        If there are fewer than ten crops, or the ratio is not positive.
    """
    if count < 10:
        raise ConfigError(f"A crop set of {count} holds no positive; ask for at least 10.")
    if not (math.isfinite(snr) and snr > 0):
        raise ConfigError(f"The signal-to-noise ratio is {snr}; give a positive number.")
    kind = _kinds(count, generator)
    rotations = random_rotations(count, generator=generator)
    middle = SHIFT_PX * (2.0 * torch.rand(count, 2, generator=generator) - 1.0)
    angle = 2.0 * math.pi * torch.rand(count, generator=generator)
    reach = ASIDE_PX[0] + (ASIDE_PX[1] - ASIDE_PX[0]) * torch.rand(count, generator=generator)
    aside = torch.stack([angle.cos(), angle.sin()], dim=1) * reach[:, None]
    shift = torch.where((kind == KINDS.index("aside"))[:, None], aside, middle)
    clouds = _blobs(count, generator)
    signal = torch.zeros(count, side_px, side_px)
    for number, name in enumerate(KINDS[:3]):
        some = (kind == number).nonzero()[:, 0]
        mixture = _picked(clouds, some) if name == "decoy" else _repeated(particle, len(some))
        signal[some] = project_mixture(mixture, rotations[some], shift[some], side_px=side_px)
    low, high = DEFOCUS_ANGSTROM
    defocus = low + (high - low) * torch.rand(count, generator=generator, dtype=torch.float64)
    transfer = ctf((side_px, side_px), PIXEL_ANGSTROM, Microscope(), defocus_u_angstrom=defocus).float()
    signal = apply_transfer(signal, transfer)
    positive = kind == 0
    gain = math.sqrt(snr / float(signal[positive].var(dim=(1, 2)).mean()))
    images = gain * signal + torch.randn(count, side_px, side_px, generator=generator)
    return CropSet(images, positive, kind, rotations)


def project_mixture(
    mixture: GaussianMixture, rotations: Float[Tensor, "batch 3 3"], shift_px: Float[Tensor, "batch 2"], *, side_px: int
) -> Float[Tensor, "batch side_px side_px"]:
    """Line integrals of turned mixtures, in closed form; the origin lies at ``(side_px - 1) / 2`` plus the shift."""
    turned = torch.einsum("nij,nbj->nbi", rotations[:, :2].float(), mixture.centres_px) + shift_px[:, None]
    axis = torch.arange(side_px, dtype=torch.float32) - (side_px - 1) / 2
    bell = torch.exp(-0.5 * ((axis - turned[..., None]) / mixture.sigma_px[:, :, None, None]).square())
    height = mixture.weights * math.sqrt(2.0 * math.pi) * mixture.sigma_px
    return torch.einsum("nby,nbx->nyx", bell[:, :, 1] * height[..., None], bell[:, :, 0])


def _blobs(count: int, generator: torch.Generator) -> GaussianMixture:
    """Blobs uniform in the ellipsoid, amplitudes 0.5 to 1.5."""
    direction = functional.normalize(torch.randn(count, GAUSSIANS, 3, generator=generator), dim=-1)
    radius = torch.rand(count, GAUSSIANS, 1, generator=generator) ** (1 / 3)
    low, high = SIGMA_PX
    sigma = low + (high - low) * torch.rand(count, GAUSSIANS, generator=generator)
    weights = 0.5 + torch.rand(count, GAUSSIANS, generator=generator)
    return GaussianMixture(direction * radius * torch.tensor(SEMI_AXES_PX), sigma, weights)


def _kinds(count: int, generator: torch.Generator) -> Tensor:
    """Exact shares, in random order."""
    positives = round(POSITIVE_SHARE * count)
    negatives = count - positives
    aside, decoys = round(NEGATIVE_SHARES[0] * negatives), round(NEGATIVE_SHARES[1] * negatives)
    numbers = torch.tensor([positives, aside, decoys, negatives - aside - decoys])
    kind = torch.repeat_interleave(torch.arange(len(KINDS)), numbers)
    return kind[torch.randperm(count, generator=generator)]


def _picked(mixture: GaussianMixture, indices: Tensor) -> GaussianMixture:
    return GaussianMixture(mixture.centres_px[indices], mixture.sigma_px[indices], mixture.weights[indices])


def _repeated(mixture: GaussianMixture, count: int) -> GaussianMixture:
    return _picked(mixture, torch.zeros(count, dtype=torch.int64))
