"""Random fields and elementary shapes of the simulators, batched over samples.

Points are stacked as (N, 3, P) in mm; shapes return signed distances (N, P), negative inside.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor


def uniform(count: int, low: float, high: float, *, generator: torch.Generator) -> Float[Tensor, "count 1"]:
    """Column of independent draws from U(low, high): one per sample."""
    return low + (high - low) * torch.rand(count, 1, generator=generator)


def normal(count: int, sigma: float, *, generator: torch.Generator) -> Float[Tensor, "count 1"]:
    """Column of independent draws from N(0, sigma^2)."""
    return sigma * torch.randn(count, 1, generator=generator)


def chance(count: int, probability: float, *, generator: torch.Generator) -> Float[Tensor, "count 1"]:
    """Column of ones (with the given probability) and zeros."""
    return (torch.rand(count, 1, generator=generator) < probability).float()


def unit_vectors(count: int, *, generator: torch.Generator) -> Float[Tensor, "count 3"]:
    """Directions uniform on the sphere."""
    return torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=-1)


def gaussian_fields(
    count: int,
    channels: int,
    shape: tuple[int, int, int],
    sigma_voxels: Float[Tensor, "count channels"],
    *,
    generator: torch.Generator,
) -> Float[Tensor, "count channels points"]:
    """Gaussian random fields of unit variance: white noise under an isotropic Gaussian of SD ``sigma_voxels``.

    The filter acts in Fourier space, so the field is periodic over the grid and its statistics do not prefer the
    grid's axes as long as ``sigma_voxels`` is above about 0.6.
    """
    noise = torch.randn(count, channels, *shape, generator=generator)
    spectrum = torch.fft.rfftn(noise, dim=(-3, -2, -1))
    axes = [torch.fft.fftfreq(shape[0]), torch.fft.fftfreq(shape[1]), torch.fft.rfftfreq(shape[2])]
    square = axes[0][:, None, None] ** 2 + axes[1][None, :, None] ** 2 + axes[2][None, None, :] ** 2
    exponent = (-2 * math.pi**2) * sigma_voxels[:, :, None, None, None] ** 2
    spectrum = spectrum * torch.exp(exponent * square)
    spectrum[..., 0, 0, 0] = 0
    field = torch.fft.irfftn(spectrum, s=shape, dim=(-3, -2, -1)).flatten(2)
    return field / field.std(-1, keepdim=True).clamp_min(1e-6)


def soft_inside(
    distance_mm: Float[Tensor, "count points"], edge_mm: float | Float[Tensor, "count 1"]
) -> Float[Tensor, "count points"]:
    """1 well inside, 0 well outside, 1/2 on the surface; ``edge_mm`` is the logistic scale (the image's blur)."""
    return torch.sigmoid(-distance_mm / edge_mm)


def length(vectors: Float[Tensor, "count component points"]) -> Float[Tensor, "count points"]:
    """Euclidean length over the middle axis (torch's norm is some ten times slower along a strided axis)."""
    square = vectors[:, 0] * vectors[:, 0]
    for component in range(1, vectors.shape[1]):
        square.addcmul_(vectors[:, component], vectors[:, component])
    return square.sqrt_()


def sphere(
    points_mm: Float[Tensor, "count 3 points"], center_mm: Float[Tensor, "count 3"], radius_mm: Float[Tensor, "count 1"]
) -> Float[Tensor, "count points"]:
    """Signed distance to a sphere."""
    return length(points_mm - center_mm[:, :, None]) - radius_mm


def ellipsoid(
    points_mm: Float[Tensor, "count 3 points"], center_mm: Float[Tensor, "count 3"], semi_mm: Float[Tensor, "count 3"]
) -> Float[Tensor, "count points"]:
    """Approximate signed distance to an axis-aligned ellipsoid (exact on the surface, scaled by the mean semi-axis)."""
    level = length((points_mm - center_mm[:, :, None]) / semi_mm[:, :, None])
    return (level - 1.0) * semi_mm.mean(1, keepdim=True)


def tube(
    points_mm: Float[Tensor, "count 3 points"],
    start_mm: Float[Tensor, "count 3"],
    direction: Float[Tensor, "count 3"],
    length_mm: Float[Tensor, "count 1"],
    radius_start_mm: Float[Tensor, "count 1"],
    radius_end_mm: Float[Tensor, "count 1"],
) -> Float[Tensor, "count points"]:
    """Signed distance to a capsule whose radius changes linearly from its start to its end."""
    relative = points_mm - start_mm[:, :, None]
    along = (relative * direction[:, :, None]).sum(1).clamp_min(0.0)
    along = torch.minimum(along, length_mm)
    radius = radius_start_mm + (radius_end_mm - radius_start_mm) * along / length_mm
    return length(relative - along[:, None] * direction[:, :, None]) - radius


def blend(
    image: Float[Tensor, "count points"], weight: Float[Tensor, "count points"], value: Tensor
) -> Float[Tensor, "count points"]:
    """Paint ``value`` over ``image`` where ``weight`` is 1."""
    return image + weight * (value - image)
