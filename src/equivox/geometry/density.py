"""Points to fields: every point becomes a Gaussian on a cubic grid, one channel per kind of point.

The grid is centred at the origin: voxel k of an axis has its centre at ``(k - (side - 1) / 2) * spacing``, and tensor
axes are (x, y, z). A three-dimensional Gaussian is the product of three one-dimensional ones, so a field costs
matrix products and never an exponential per voxel and point. Positions and spacing share one unit
(ångström for proteins).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import ConfigError, GeometryError

Normalization = Literal["atom", "analytic", "published"]
"""How one point's Gaussian is scaled: see :func:`gaussian_density`."""

PADDING = -1
"""The channel of a row that holds no point."""
PRODUCT_ELEMENTS = 1 << 24
"""Most elements of one outer product held at a time: larger batches go through in parts."""
Weigh = Callable[[Tensor], Tensor]


def grid_centres(
    side: int, spacing: float, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float64
) -> Float[Tensor, " side"]:
    """Coordinates of the voxel centres along one axis of a cubic grid that is centred at the origin.

    >>> grid_centres(4, 2.0).tolist()
    [-3.0, -1.0, 1.0, 3.0]
    """
    return (torch.arange(side, device=device, dtype=dtype) - (side - 1) / 2) * spacing


def gaussian_density(
    positions: Float[Tensor, "batch point 3"],
    channel: Int[Tensor, "batch point"],
    *,
    channels: int,
    side: int,
    spacing: float,
    sigma: float,
    normalization: Normalization = "atom",
) -> Float[Tensor, "batch channel side side side"]:
    """Field of Gaussians ``exp(-|v - x|² / 2 sigma²)`` about the points, summed per channel.

    Parameters
    ----------
    positions
        Coordinates in the frame of the grid; rows whose channel is -1 are padding and may hold anything.
    channel
        Channel of each point, 0 to ``channels - 1``; -1 marks padding.
    channels, side
        Size of the field: channels, and voxels along each of the three axes.
    spacing
        Edge of a voxel, in the unit of ``positions``.
    sigma
        Standard deviation of the Gaussian, same unit.
    normalization
        ``"atom"``: a point's Gaussian has sum 1 over the *endless* grid: points inside count 1, points outside fade
        away. ``"published"``: sum 1 over *this* grid, as the CATH experiment of the 3D steerable CNNs has it: equal
        to ``"atom"`` inside, but a point outside is pressed whole onto the border (the original divides by zero
        beyond about 13 sigma; here the border gets it at any distance). ``"analytic"``: divided by
        ``(2 pi sigma²)^(3/2)``, so that the integral is 1 (the boxes about residues).

    Returns
    -------
    Tensor
        (batch, channel, x, y, z) on the device and in the precision of ``positions``.

    Raises
    ------
    GeometryError
        If a coordinate that is no padding is not finite, or a channel lies outside the field.
    ConfigError
        If a size is not positive or the normalisation has no such name.

    Examples
    --------
    >>> at = torch.tensor([[[0.2, -0.4, 0.9], [50.0, 0.0, 0.0]]])
    >>> kind = torch.tensor([[0, 1]])
    >>> field = gaussian_density(at, kind, channels=2, side=16, spacing=1.0, sigma=0.6)
    >>> [round(mass, 4) for mass in field.sum(dim=(2, 3, 4))[0].tolist()]
    [1.0, 0.0]
    """
    _require_sizes(channels=channels, side=side, spacing=spacing, sigma=sigma, normalization=normalization)
    present = channel != PADDING
    positions = torch.where(present[..., None], positions, 0.0)
    _require_points(positions, channel, channels=channels)
    # one product per element and channel on a CPU, without padding; all in one launch elsewhere
    accumulate = _one_by_one if positions.device.type == "cpu" else _all_at_once
    with torch.autocast(positions.device.type, enabled=False):
        return accumulate(
            positions, channel, channels, side, partial(_axis_weights, side=side, spacing=spacing, sigma=sigma,
                                                        normalization=normalization)
        )  # fmt: skip


def _require_sizes(*, channels: int, side: int, spacing: float, sigma: float, normalization: str) -> None:
    for name, size in (("channels", channels), ("side", side), ("spacing", spacing), ("sigma", sigma)):
        if not (math.isfinite(size) and size > 0):
            raise ConfigError(f"{name} of a density is {size}; give a positive number")
    if normalization not in get_args(Normalization):
        allowed = ", ".join(get_args(Normalization))
        raise ConfigError(f"normalization of a density is {normalization!r}; choose one of {allowed}")


def _require_points(positions: Tensor, channel: Tensor, *, channels: int) -> None:
    if not bool(torch.isfinite(positions).all()):
        raise GeometryError("a coordinate is NaN or infinite; leave that point out or mark it as padding (channel -1)")
    if channel.numel() and (int(channel.max()) >= channels or int(channel.min()) < PADDING):
        span = f"{int(channel.min())} to {int(channel.max())}"
        raise GeometryError(f"channels of the points run from {span}; the field has channels 0 to {channels - 1}")


def _axis_weights(
    positions: Tensor, *, side: int, spacing: float, sigma: float, normalization: Normalization
) -> Tensor:
    """One-dimensional Gaussians (..., 3, side) about positions (..., 3), each divided by its own norm in logarithms.

    Logarithms keep a distant point finite: where its Gaussian underflows, the quotient does not.
    """
    scale = spacing**2 / (2 * sigma**2)
    offset = (positions / spacing + (side - 1) / 2)[..., None]  # in voxels, from the first centre
    exponent = -((offset - torch.arange(side, device=positions.device, dtype=positions.dtype)) ** 2) * scale
    if normalization == "published":
        return _normal_numbers(exponent.softmax(dim=-1))
    if normalization == "analytic":
        return _normal_numbers((exponent - 0.5 * math.log(2 * math.pi * sigma**2)).exp())
    reach = math.ceil(9 * sigma / spacing) + 1  # what lies beyond nine sigma is below rounding
    steps = torch.arange(-reach, reach + 1, device=positions.device, dtype=positions.dtype)
    endless = (-((steps - (offset - offset.round())) ** 2) * scale).logsumexp(dim=-1, keepdim=True)
    return _normal_numbers((exponent - endless).exp())


def _normal_numbers(weights: Tensor) -> Tensor:
    """Zero where a product of three weights would leave the normal numbers, which a CPU multiplies 20 times slower."""
    return weights.masked_fill(weights < torch.finfo(weights.dtype).tiny ** (1 / 3), 0.0)


def _one_by_one(positions: Tensor, channel: Tensor, channels: int, side: int, weigh: Weigh) -> Tensor:
    """Sum over points of x ⊗ y ⊗ z: a matrix product (x, point) by (point, y·z) for each element and channel."""
    batch = len(positions)
    field = positions.new_zeros((batch * channels, side, side * side))
    present = channel != PADDING
    place = (torch.arange(batch, device=channel.device)[:, None] * channels + channel)[present]
    order = place.argsort(stable=True)
    points = positions[present][order]
    starts = torch.bincount(place, minlength=batch * channels).cumsum(0).tolist()
    step = max(1, PRODUCT_ELEMENTS // side**2)
    for index, (first, last) in enumerate(zip([0, *starts[:-1]], starts, strict=True)):
        for start in range(first, last, step):
            x, y, z = weigh(points[start : min(start + step, last)]).unbind(dim=-2)
            field[index].addmm_(x.mT, (y[:, :, None] * z[:, None, :]).flatten(1))
    return field.view(batch, channels, side, side, side)


def _all_at_once(positions: Tensor, channel: Tensor, channels: int, side: int, weigh: Weigh) -> Tensor:
    """The same over the padded batch: (channel·x, point) by (point, y·z) for every element."""
    batch, points = channel.shape
    owned = (channel[..., None] == torch.arange(channels, device=channel.device)).to(positions.dtype)
    field = positions.new_zeros((batch, channels * side, side * side))
    count = max(1, PRODUCT_ELEMENTS // (side * max(side, channels)))  # points held at a time, over the batch
    rows = max(1, count // max(points, 1))
    for first in range(0, batch, rows):
        for start in range(0, points, count):
            part = slice(first, first + rows), slice(start, start + count)
            x, y, z = weigh(positions[part]).unbind(dim=-2)
            left = (owned[part][..., :, None] * x[..., None, :]).flatten(2)
            right = (y[..., :, None] * z[..., None, :]).flatten(2)
            field[part[0]] += left.mT @ right
    return field.view(batch, channels, side, side, side)
