"""Gaussian random fields on the grid of a stack, on any device.

A field is drawn on a coarse grid, smoothed there and interpolated: cheap beside filtering every voxel.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

KNOT_RATIO = 1.1
"""Distance of the knots over the wanted sigma: with a kernel of 0.8 knots and linear interpolation sigma comes out."""
KERNEL_KNOTS = 0.8


def smooth_field(
    shape: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
    sigma_mm: float,
    *,
    generator: torch.Generator,
    channels: int = 1,
) -> Float[Tensor, "channel x y z"]:
    """White noise under a Gaussian of SD ``sigma_mm``, unit variance, on the generator's device.

    The field's statistics do not prefer an axis (to within the linear interpolation between knots, which are about one
    sigma apart).
    """
    knots = [max(round(n * s / (KNOT_RATIO * sigma_mm)), 1) + 6 for n, s in zip(shape, spacing_mm, strict=True)]
    noise = torch.randn(1, channels, *knots, generator=generator, device=generator.device)
    smooth = gaussian_blur(noise, KERNEL_KNOTS, radius=2)[0]
    smooth = smooth[:, 2:-2, 2:-2, 2:-2]  # the kernel's reach
    smooth = smooth / smooth.std(dim=(1, 2, 3), keepdim=True).clamp_min(1e-6)
    return functional.interpolate(smooth[None], size=shape, mode="trilinear", align_corners=True)[0]


def gaussian_blur(
    image: Float[Tensor, "batch channel x y z"], sigma_voxels: float, *, radius: int = 3
) -> Float[Tensor, "batch channel x y z"]:
    """Separable Gaussian, borders repeated."""
    if sigma_voxels <= 0:
        return image
    taps = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    weight = torch.exp(-0.5 * (taps / sigma_voxels) ** 2)
    weight = weight / weight.sum()
    for axis in (2, 3, 4):
        size = image.shape[axis]
        if size < 2:
            continue
        index = torch.arange(size, device=image.device)
        total = weight[radius] * image
        for step in range(1, radius + 1):
            up = image.index_select(axis, (index + step).clamp_max(size - 1))
            down = image.index_select(axis, (index - step).clamp_min(0))
            total = total + weight[radius + step] * (up + down)
        image = total
    return image
