"""From pixels to contrast in units of the noise, whatever else lies on the grid.

Carbon edges, gold beads and dirt would set the mean and the scale of an image; here they do not: pixels far from the
rest get no weight, the background is a smooth local mean over what is left, and a region that is louder than the rest
(carbon) is divided by its own spread. Two passes of weighted Gaussian means; robust numbers are medians.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

MAD_TO_SIGMA = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""
OUTLIER_SIGMA = 4.0
"""Beyond so many robust standard deviations a pixel does not take part in the local mean."""
CLIP_SIGMA = 5.0
"""Nothing in the result is further from 0 (projection2d.md 8.8)."""
QUIET = 1.5
"""The scale is taken where the local spread is at most so many times its lower quartile: not on carbon."""
HOT_SIGMA = 12.0
"""Pixels of the full-size image beyond this are cut before they can ring."""
SAMPLE = 1 << 18
"""Pixels that robust numbers of a full-size image are taken from."""


@dataclass(frozen=True, slots=True)
class PixelRange:
    """Median and robust standard deviation of an image's finite pixels, and how many are not finite."""

    median: float
    sigma: float
    not_finite: int

    def cut(self, block: Float[Tensor, "rows x"]) -> Float[Tensor, "rows x"]:
        """Not-finite pixels become the median; the others are clipped at :data:`HOT_SIGMA`."""
        reach = HOT_SIGMA * self.sigma
        filled = torch.nan_to_num(block, nan=self.median, posinf=self.median, neginf=self.median)
        return filled.clamp_(self.median - reach, self.median + reach)


def pixel_range(sample: Float[Tensor, " pixel"]) -> PixelRange:
    """Robust location and scale of a sample of pixels; sigma is 0 for a constant image, NaN without finite pixels."""
    finite = sample[torch.isfinite(sample)]
    lost = sample.numel() - finite.numel()
    if finite.numel() == 0:
        return PixelRange(math.nan, math.nan, lost)
    median = finite.median()
    sigma = MAD_TO_SIGMA * (finite - median).abs().median()
    if float(sigma) == 0.0:  # more than half of the pixels are equal: counts of a sparse image
        sigma = (finite - median).square().mean().sqrt()
    return PixelRange(float(median), float(sigma), lost)


def normalise_micrograph(
    image: Float[Tensor, "y x"],
    *,
    radius_px: float,
    keep: Float[Tensor, "y x"] | None = None,
) -> Float[Tensor, "y x"]:
    """Subtract the smooth background and divide by the spread of the noise.

    Parameters
    ----------
    image
        At the working pixel size.
    radius_px
        Of the particle; the background is smooth over three diameters.
    keep
        0 where a mask excludes pixels, 1 elsewhere; excluded pixels count for nothing and become 0.

    Returns
    -------
    Median near 0, robust standard deviation 1 over most of the image, clipped at 5. ``a * image + b`` (a > 0) gives
    the same.

    Raises
    ------
    ValueError
        If no pixel is kept or the image is constant there.
    """
    allowed = torch.ones_like(image) if keep is None else (keep > 0.5).to(image)
    rough = pixel_range(image[allowed > 0])
    if not (rough.sigma > 0.0):
        raise ValueError("the image is constant")
    work = (image - rough.median) / rough.sigma
    weight = allowed * (work.abs() <= 2.0 * OUTLIER_SIGMA)
    reach = 6.0 * radius_px
    flat = work - _local_mean(work, weight, reach)
    sigma = max(pixel_range(flat[allowed > 0]).sigma, 1e-6)
    weight = allowed * (flat.abs() <= OUTLIER_SIGMA * sigma)
    flat = work - _local_mean(work, weight, reach)
    bound = OUTLIER_SIGMA * sigma
    local = _local_mean(flat.clamp(-bound, bound).square(), allowed, reach).clamp_min(1e-12).sqrt()
    quiet = (allowed > 0) & (local <= QUIET * torch.quantile(_thinned(local[allowed > 0]), 0.25))
    sigma = max(pixel_range(flat[quiet]).sigma, 1e-6)
    loud = (local / local[quiet].median()).clamp_min(1.0)
    return (flat / (sigma * loud)).clamp(-CLIP_SIGMA, CLIP_SIGMA) * allowed


def _thinned(values: Tensor) -> Tensor:
    """At most :data:`SAMPLE` of the values, evenly taken."""
    return values[:: max(1, values.numel() // SAMPLE)]


def _local_mean(image: Tensor, weight: Tensor, sigma_px: float) -> Tensor:
    """Gaussian mean over pixels with weight, computed on a coarse grid; where none are near, further ones count."""
    stride = max(1, int(sigma_px / 6.0))
    total = _coarse(image * weight, stride)
    count = _coarse(weight, stride)
    whole = float((image * weight).sum() / weight.sum().clamp_min(1.0))
    smooth, share = (_blur(part, sigma_px / stride) for part in (total, count))
    mean = (smooth + 1e-4 * whole) / (share + 1e-4)
    return _fine(mean, stride, image.shape)


def _coarse(image: Tensor, stride: int) -> Tensor:
    """Block means; the blocks that jut out take the pixels they have."""
    if stride == 1:
        return image
    return functional.avg_pool2d(image[None, None], stride, ceil_mode=True, count_include_pad=False)[0, 0]


def _fine(image: Tensor, stride: int, shape: torch.Size) -> Tensor:
    """Bilinear interpolation back to full size, block centres in their places."""
    if stride == 1:
        return image
    rows, columns = (_places(size, stride, coarse) for size, coarse in zip(shape, image.shape, strict=True))
    return _interpolate(_interpolate(image, rows, 0), columns, 1)


def _places(size: int, stride: int, coarse: int) -> Tensor:
    """Where pixels of an axis lie between block centres."""
    return ((torch.arange(size, dtype=torch.float32) - (stride - 1) / 2) / stride).clamp(0, coarse - 1)


def _interpolate(image: Tensor, places: Tensor, axis: int) -> Tensor:
    low = places.floor().long().clamp(max=max(0, image.shape[axis] - 2))
    high = (low + 1).clamp(max=image.shape[axis] - 1)
    share = (places - low).to(image)
    share = share[:, None] if axis == 0 else share[None, :]
    return image.index_select(axis, low) * (1 - share) + image.index_select(axis, high) * share


def _blur(image: Tensor, sigma_px: float) -> Tensor:
    """Separable Gaussian without padding beyond the edge: only pixels of the image count."""
    reach = max(1, math.ceil(3.0 * sigma_px))
    offsets = torch.arange(-reach, reach + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / sigma_px) ** 2)
    kernel = kernel / kernel.sum()
    rows = functional.conv2d(image[None, None], kernel[None, None, :, None], padding=(reach, 0))
    return functional.conv2d(rows, kernel[None, None, None, :], padding=(0, reach))[0, 0]
