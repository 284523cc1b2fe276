"""Halve and double grids of even sides with a wide binomial filter; the grid's centre stays where it is.

Even taps and a stride of 2 take a side of ``n`` to ``n / 2`` and the centre ``(n - 1) / 2`` to ``(n / 2 - 1) / 2``, so
every symmetry of the cube stays exact; eight taps leave little to alias at other angles (soe 4.3).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError, GridSymmetryError
from equivox.nn.lowpass import apply_bands


class BinomialPool3d(nn.Module):
    """Separable binomial low-pass of even length, then every second voxel.

    Zeros lie beyond the border. Channel by channel, so it suits every layout.

    Parameters
    ----------
    taps
        Length of the filter, even: 8 for weights 1 7 21 35 35 21 7 1.

    Raises
    ------
    ConfigError
        If the length is odd or below 2.
    GridSymmetryError
        In ``forward``, for odd sides: see :class:`equivox.nn.BlurPool3d`.

    Examples
    --------
    >>> BinomialPool3d()(torch.zeros(1, 2, 8, 8, 8)).shape
    torch.Size([1, 2, 4, 4, 4])
    """

    def __init__(self, taps: int = 8) -> None:
        super().__init__()
        if taps < 2 or taps % 2:
            raise ConfigError(f"a binomial filter of {taps} taps moves the centre of an even grid; take 6 or 8.")
        self.taps = taps

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x2 y2 z2"]:
        """Filter and halve."""
        for side in field.shape[2:]:
            if side % 2:
                raise GridSymmetryError(
                    f"BinomialPool3d meets a side of {side} voxels off centre; pad or crop to an even number."
                )
        return apply_bands(field, [halving_matrix(field, side, self.taps) for side in field.shape[2:]])

    def extra_repr(self) -> str:
        """Length."""
        return f"taps={self.taps}"


class BinomialUpsample3d(nn.Module):
    """The transpose of :class:`BinomialPool3d` times 8: sides double, the centre stays, a constant stays constant.

    Parameters
    ----------
    taps
        Length of the filter, even. A constant stays one away from the border, because both phases of a binomial
        filter have the same sum.
    """

    def __init__(self, taps: int = 8) -> None:
        super().__init__()
        self.taps = BinomialPool3d(taps).taps

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x2 y2 z2"]:
        """Spread to twice the sides."""
        return apply_bands(field, [2 * halving_matrix(field, 2 * side, self.taps).mT for side in field.shape[2:]])

    def extra_repr(self) -> str:
        """Length."""
        return f"taps={self.taps}"


def halving_matrix(like: Tensor, side: int, taps: int) -> Float[Tensor, "half side"]:
    """Rows: binomial weights about the midpoints of voxel pairs."""
    weights = torch.tensor([math.comb(taps - 1, index) / 2 ** (taps - 1) for index in range(taps)]).to(like)
    start = 2 * torch.arange(side // 2, device=like.device) - (taps // 2 - 1)
    offset = torch.arange(side, device=like.device)[None, :] - start[:, None]
    inside = (offset >= 0) & (offset < taps)
    return torch.where(inside, weights[offset.clamp(0, taps - 1)], weights.new_zeros(()))
