"""Cubic B-splines on a grid whose axes are those of the data: a small matrix per axis, not 64 taps per point."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Coefficients = np.ndarray[tuple[int, ...], np.dtype[np.floating]]


@dataclass(frozen=True, slots=True)
class StraightGrid:
    """Points at every combination of three lists of places.

    Parameters
    ----------
    places
        For each axis of the coefficients the positions along it, in their own indices.
    order
        Which axis of the result each of them is.
    """

    places: tuple[Float[Tensor, " _"], ...]
    order: tuple[int, ...]

    def values(self, coefficients: Coefficients) -> Float[Tensor, "x y z"]:
        """What `scipy.ndimage.map_coordinates` gives for these coefficients at order 3: 0 beyond the first and last."""
        found = torch.from_numpy(coefficients).double()
        for axis, places in enumerate(self.places):
            weights = spline_weights(places, found.shape[axis])
            found = torch.tensordot(weights, found, dims=([1], [axis])).movedim(0, axis)
        back = [self.order.index(axis) for axis in range(3)]
        return found.permute(back)


def spline_weights(places: Float[Tensor, " place"], count: int) -> Float[Tensor, "place {count}"]:
    """Weights of ``count`` cubic B-splines at places; none outside [0, count - 1], mirrored at the ends.

    Examples
    --------
    >>> spline_weights(torch.tensor([2.0], dtype=torch.float64), 5)[0, 1:4].mul(6).round().tolist()
    [1.0, 4.0, 1.0]
    """
    first = places.floor()
    t = places - first
    four = torch.stack(
        [(1 - t) ** 3, 4 - 6 * t**2 + 3 * t**3, 1 + 3 * t + 3 * t**2 - 3 * t**3, t**3], dim=1
    ) / 6.0  # fmt: skip
    inside = (places >= 0) & (places <= count - 1)
    taps = first.long()[:, None] + torch.arange(-1, 3)
    taps = (count - 1 - (count - 1 - taps.abs()).abs()).clamp(0, count - 1)
    weights = torch.zeros(len(places), count, dtype=torch.float64)
    return weights.scatter_add_(1, taps, four * inside[:, None])
