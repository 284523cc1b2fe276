"""How much of a brain has which brightness at which depth, counted in the scan's own voxels.

What an encoder sees is smoothed to its working grid, by which thin fluid between folds and the sharpness of tissues are
lost. These shares are counted before that, so they are what they are however the scan lies in its file. A scan that was
itself resampled has others: smoothing moves voxels between the tissues.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.nets.brain_pooling import gaussian_band

TONES, DEPTHS = 24, 5
"""Bins of brightness from 0 to ``brightest`` and of depth from :data:`NEAREST` to 1."""
DEPTH_MM = 15.0
"""Standard deviation of the Gaussian that turns the mask into a depth: one half at a flat surface, 1 far inside."""
NEAREST = 0.3


def tissue_depths(
    values: Float[Tensor, "count"],
    inside: Bool[Tensor, "x y z"],
    voxel_size_mm: Sequence[float],
    *,
    brightest: float,
) -> Float[Tensor, "share"]:
    """Shares of the brain by brightness (slow) and depth (fast), soft in both; together 1.

    Parameters
    ----------
    values
        Brightness of the voxels inside, in their order in memory; the 95th percentile of the brain is 1.
    inside
        Which voxels are brain.
    voxel_size_mm
        Along the three axes, which stand at right angles.
    brightest
        Centre of the last bin.

    Examples
    --------
    >>> inside = torch.ones(4, 4, 4, dtype=torch.bool)
    >>> shares = tissue_depths(torch.full((64,), 1.5), inside, (2.0, 2.0, 2.0), brightest=1.5)
    >>> len(shares), round(float(shares[-DEPTHS:].sum()), 6)
    (120, 1.0)
    """
    depth = inside.float()
    for axis, step_mm in enumerate(voxel_size_mm):
        band = gaussian_band(depth.shape[axis], DEPTH_MM / step_mm)
        depth = torch.tensordot(band, depth, dims=([1], [axis])).movedim(0, axis)
    tones, layers = _two_bins(values, 0.0, brightest, TONES), _two_bins(depth[inside], NEAREST, 1.0, DEPTHS)
    shares = torch.zeros(TONES * DEPTHS, dtype=torch.float64)
    for tone, share in tones:
        for layer, part in layers:
            shares += torch.bincount(tone * DEPTHS + layer, weights=share * part, minlength=TONES * DEPTHS)
    return shares / len(values)


def _two_bins(values: Tensor, low: float, high: float, count: int) -> list[tuple[Tensor, Tensor]]:
    """The bins below and above every value, and how much of it falls into each."""
    place = ((values.double() - low) * ((count - 1) / (high - low))).clamp(0, count - 1)
    below = place.long().clamp_max(count - 2)
    above = place - below
    return [(below, 1.0 - above), (below + 1, above)]
