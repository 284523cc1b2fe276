"""What a brain encoder looks at: contrast that scanner settings and smooth shading leave as it is.

A bias field multiplies intensities, so its logarithm adds a smooth function; gamma multiplies the logarithm. Taking out
the low polynomials of position (least squares inside the brain) and dividing by what is left on average undoes both.
Polynomials up to a degree are a space that rotations, mirrors and shifts map to itself, so equivariance stays.
"""

from __future__ import annotations

import itertools
import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.nn.lowpass import apply_bands
from equivox.nn.masked import masked_mean

FLOOR = 0.03
"""Added to intensities (95th percentile of the brain = 1) before the logarithm: what noise makes of nothing."""
REWEIGHTED = 2
"""Times the fit is repeated with weights that let outliers (fluid, vessels) count less."""
EDGE = 7
"""Taps of the binomial that tells how far inside a voxel lies: tones fade to 1 over the outermost 3 to 4 mm."""
RIM = 21
"""Taps of the binomial that finds the rim of a brain: partial volume there says nothing of shading."""
SPREAD = 0.3
"""Mean deviation of the logarithm that every brain is given: tissues then are about as far apart as they are raw."""
HIGHEST = 2.5
"""Mean deviations above the trend beyond which brightness is cut (fat, vessels)."""


class BrainContrast(nn.Module):
    """Intensity without shading and at a fixed spread: ``exp(k r / mean|r|)``, ``r`` = log intensity minus its trend.

    Parameters
    ----------
    side
        Voxels of the cube.
    degree
        Of the polynomials that are taken out; 0 removes a factor only, -1 leaves the input as it is.
    smoothing
        Taps of a binomial low-pass before the logarithm, odd; 1 for none.

    Raises
    ------
    ConfigError
        If a number is out of range.
    """

    basis: Tensor
    smoother: Tensor
    rim: Tensor
    edge: Tensor

    def __init__(self, side: int, degree: int = 2, *, smoothing: int = 5) -> None:
        super().__init__()
        if not -1 <= degree <= 4 or smoothing < 1 or smoothing % 2 == 0:
            raise ConfigError(f"a trend has degree -1 to 4 and smoothing odd taps; got {degree} and {smoothing}.")
        self.degree, self.smoothing = degree, smoothing
        if degree >= 0:
            self.register_buffer("basis", _polynomials(side, degree), persistent=False)
            for name, taps in (("smoother", smoothing), ("rim", RIM), ("edge", EDGE)):
                self.register_buffer(name, _binomial_band(side, taps), persistent=False)

    def forward(
        self, volume: Float[Tensor, "batch 1 x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Contrast inside the mask, about 1 on average and at least 0; 0 outside."""
        if self.degree < 0:
            return volume * mask
        kind = volume.device.type
        if not torch.is_autocast_enabled(kind):
            return self._contrast(volume.to(mask.dtype), mask)
        with torch.autocast(kind, enabled=False):  # exporters do not know this block
            return self._contrast(volume.to(mask.dtype), mask)

    def _contrast(self, volume: Tensor, mask: Tensor) -> Tensor:
        smooth = _smoothed(volume, self.smoother) / _smoothed(mask, self.smoother).clamp_min(1e-3)
        trusted = (2.0 * _smoothed(mask, self.rim) - 1.0).clamp_min(0.0) * mask
        level = torch.log(smooth.clamp_min(0.0) + FLOOR)
        weight = trusted
        residual = level
        size = mask.new_ones(())
        for repeat in range(REWEIGHTED + 1):
            residual = level - fitted_trend(level, weight, self.basis)
            size = masked_mean(residual.abs(), trusted)[:, :, None, None, None].clamp_min(1e-6)
            if repeat < REWEIGHTED:
                weight = trusted / (1.0 + (residual / size).square())
        tone = torch.exp(SPREAD * (residual / size).clamp(max=HIGHEST))
        depth = (2.0 * _smoothed(mask, self.edge) - 1.0).clamp(0.0, 0.5) * 2.0
        return torch.lerp(torch.ones_like(tone), tone, depth) * mask

    def extra_repr(self) -> str:
        """Degree and smoothing."""
        return f"degree={self.degree}, smoothing={self.smoothing}"


def fitted_trend(
    field: Float[Tensor, "batch 1 x y z"], weight: Float[Tensor, "batch 1 x y z"], basis: Float[Tensor, "term xyz"]
) -> Float[Tensor, "batch 1 x y z"]:
    """The combination of ``basis`` nearest to ``field`` in the weighted mean square; sums in float64."""
    work = torch.float32 if field.device.type == "mps" else torch.float64
    terms = basis.to(work)
    weighted = weight.flatten(1).to(work)[:, None] * terms
    gram = torch.matmul(weighted, terms.mT)
    moment = torch.matmul(weighted, field.flatten(1).to(work)[:, :, None])
    coefficients = solve_positive(gram, moment)
    return torch.matmul(coefficients.mT.to(field.dtype), basis).view(field.shape)


def solve_positive(
    matrix: Float[Tensor, "batch term term"], vector: Float[Tensor, "batch term 1"]
) -> Float[Tensor, "batch term 1"]:
    """Solve symmetric positive systems by elimination without pivots, in operations that every exporter knows.

    A ridge of 1e-9 of the mean diagonal keeps pivots from 0, and a floor where the matrix is 0 (a mask without depth).
    The floor is a maximum and no sum: exporters leave out a constant of 1e-12 that is added.
    """
    count = matrix.shape[1]
    ridge = (matrix.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * 1e-9).clamp_min(1e-12)
    identity = torch.eye(count, dtype=matrix.dtype, device=matrix.device)
    table = torch.cat([matrix + ridge * identity, vector], dim=2)
    for pivot in range(count):
        row = table[:, pivot : pivot + 1] / table[:, pivot : pivot + 1, pivot : pivot + 1]
        others = 1.0 - identity[:, pivot : pivot + 1]
        factor = table[:, :, pivot : pivot + 1] * others
        table = table * others + row * (1.0 - others) - factor * row
    return table[:, :, count:]


def _smoothed(field: Tensor, band: Tensor) -> Tensor:
    """The same low-pass along every axis, zeros outside."""
    return apply_bands(field, [band, band, band])


def _polynomials(side: int, degree: int) -> Float[Tensor, "term xyz"]:
    """Monomials up to ``degree`` of coordinates that are +-1 at the faces."""
    axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / (side / 2)
    x, y, z = (c.flatten() for c in torch.meshgrid(axis, axis, axis, indexing="ij"))
    powers = [p for p in itertools.product(range(degree + 1), repeat=3) if sum(p) <= degree]
    return torch.stack([x**a * y**b * z**c for a, b, c in powers]).float()


def _binomial_band(side: int, taps: int) -> Float[Tensor, "side side"]:
    """Rows of binomial weights about every voxel."""
    offset = torch.arange(side)[None, :] - torch.arange(side)[:, None] + taps // 2
    weights = torch.tensor([math.comb(taps - 1, index) / 2 ** (taps - 1) for index in range(taps)])
    inside = (offset >= 0) & (offset < taps)
    return torch.where(inside, weights[offset.clamp(0, taps - 1)], torch.zeros(()))
