"""Intensity augmentations of the published training, one function each: what is drawn comes in as an argument.

Images are ``(channel, x, y, z)``; the same change is applied to all channels.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.tasks.pose.published_grid import resample_axes

BIAS_ORDER = 3
"""Highest total power of the polynomial bias field (published value): 20 coefficients."""
RESCALE_EPSILON = 1e-8
"""Added to the range when training images are rescaled (published value; inference adds nothing)."""


def rescale(image: Float[Tensor, "channel x y z"]) -> Float[Tensor, "channel x y z"]:
    """``(v - min) / (max - min + 1e-8)``: [0, 1], and 0 for a constant image."""
    low = image.amin()
    return (image - low) / (image.amax() - low + RESCALE_EPSILON)


def percentile(image: Float[Tensor, "*grid"], fraction: float) -> float:
    """Value below which ``fraction`` of the voxels lie, linear between the two nearest; for any number of voxels.

    Finds the two order statistics by selection, so it has no limit on size, unlike ``torch.quantile`` (2**24).

    Raises
    ------
    ValueError
        If ``fraction`` is not in [0, 1].

    Examples
    --------
    >>> percentile(torch.tensor([0.0, 1.0, 2.0, 3.0]), 0.5)
    1.5
    """
    if not 0.0 <= fraction <= 1.0:
        raise ValueError(f"fraction is {fraction}; expected a number in [0, 1]")
    values = image.flatten()
    place = fraction * (values.numel() - 1)
    below = min(math.floor(place), values.numel() - 1)
    low = float(values.kthvalue(below + 1).values)
    if below == place:
        return low
    high = float(values.kthvalue(below + 2).values)
    return low + (place - below) * (high - low)


def clip_percentiles(image: Float[Tensor, "channel x y z"], low: float, high: float) -> Float[Tensor, "channel x y z"]:
    """Clip at two percentiles, given as fractions, and rescale to [0, 1]."""
    return rescale(image.clamp(percentile(image, low), percentile(image, high)))


def bias_terms() -> list[tuple[int, int, int]]:
    """Powers (i, j, k) of x, y, z of every coefficient of :func:`apply_bias`, in their order."""
    order = BIAS_ORDER
    return [(i, j, k) for i in range(order + 1) for j in range(order + 1 - i) for k in range(order + 1 - i - j)]


def apply_bias(
    image: Float[Tensor, "channel x y z"], coefficients: Float[Tensor, "term"]
) -> Float[Tensor, "channel x y z"]:
    """Multiply by ``exp(sum_n c_n x^i y^j z^k)``, coordinates from -1 to 1 over the grid, terms as ``bias_terms``."""
    field = torch.zeros(image.shape[1:], dtype=torch.float64)
    axes = [_centered_unit(size) for size in image.shape[1:]]
    for coefficient, (i, j, k) in zip(coefficients.double(), bias_terms(), strict=True):
        x, y, z = axes[0] ** i, axes[1] ** j, axes[2] ** k
        field += coefficient * x[:, None, None] * y[None, :, None] * z
    return image * field.exp().to(image)


def apply_gamma(image: Float[Tensor, "channel x y z"], log_gamma: float) -> Float[Tensor, "channel x y z"]:
    """``sign(v) |v|^g`` with ``g = exp(log_gamma)``."""
    return image.sign() * image.abs() ** math.exp(log_gamma)


def lower_resolution(image: Float[Tensor, "channel x y z"], factor: float) -> Float[Tensor, "channel x y z"]:
    """Resample linearly to voxels ``factor`` times as large and back onto the same grid."""
    coarse = resample_axes(image, [factor] * 3)
    return resample_axes(coarse, [1.0 / factor] * 3, shape=image.shape[1:])


def add_noise(
    image: Float[Tensor, "channel x y z"], sigma: float, *, generator: torch.Generator
) -> Float[Tensor, "channel x y z"]:
    """Add white Gaussian noise of standard deviation ``sigma``."""
    return image + sigma * torch.randn(image.shape, generator=generator, dtype=image.dtype)


def draw_bias(max_bias: float, *, generator: torch.Generator) -> Float[Tensor, "term"]:
    """Coefficients for :func:`apply_bias`, each uniform between 0 and ``max_bias``."""
    return max_bias * torch.rand(len(bias_terms()), generator=generator, dtype=torch.float64)


def _centered_unit(size: int) -> Tensor:
    """Coordinates of ``size`` voxel centres from -1 to 1; 0 for a single one."""
    return torch.linspace(-1.0, 1.0, size, dtype=torch.float64) if size > 1 else torch.zeros(1, dtype=torch.float64)
