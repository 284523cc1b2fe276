"""Means, norms and soft masks for objects that fill a part of the grid only: what lies outside never counts."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.nn.layout import require_channels


def soft_ball_mask(side: int, *, width: float = 0.7, dtype: torch.dtype = torch.float32) -> Float[Tensor, "x y z"]:
    """``sigmoid((side / 2 - 2 w - r) / w)``: 1 inside a ball, 0 in the corners, with an edge of ``w`` voxels.

    The width is in voxels of this grid, so the edge stays resolved however coarse the grid is.
    """
    axis = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    radius = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt()
    return torch.sigmoid((side / 2 - 2 * width - radius) / width).to(dtype)


def masked_mean(
    field: Float[Tensor, "batch channel x y z"], mask: Float[Tensor, "batch 1 x y z"]
) -> Float[Tensor, "batch channel"]:
    """``sum(m f) / sum(m)`` per sample and channel, summed as :func:`precise_sum` does and in the field's precision."""
    return precise_mean(field, mask).to(field.dtype)


def precise_mean(
    field: Float[Tensor, "batch channel x y z"], mask: Float[Tensor, "batch 1 x y z"]
) -> Float[Tensor, "batch channel"]:
    """:func:`masked_mean`, left in the precision of its sums."""
    return precise_sum(field * mask) / precise_sum(mask).clamp_min(1e-6)


def precise_sum(field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel"]:
    """Sums over the grid in float64 (float32 where the device has none).

    One float32 sum over a grid is off by up to 1e-5 of itself, in another way for each order of the voxels: a brain
    turned by 90 degrees would have another mean. Rows of one axis are short enough for float32.
    """
    return field.sum(4).to(sum_dtype(field)).sum(dim=(2, 3))


def sum_dtype(like: Tensor) -> torch.dtype:
    """The precision of sums that must not depend on their order."""
    return torch.float32 if like.device.type == "mps" else torch.float64


class MaskedFieldNorm(nn.Module):
    """Give every field the root mean square 1 over the mask, per sample; even scalars lose their mean first.

    Axial vectors (and all fields of the parity ``(-1)^(l+1)``) share the mean square of the polar fields of their
    degree where there are any: on their own they are near zero, and a norm would blow up what is aliasing.

    Parameters
    ----------
    irreps
        Layout.
    eps
        Added to mean squares.

    Attributes
    ----------
    weight
        Factor per copy, 1 at first.
    bias
        Per even scalar, 0 at first.
    """

    def __init__(self, irreps: IrrepsLike, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.irreps = Irreps(irreps)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(self.irreps.multiplicity))
        self.bias = nn.Parameter(torch.zeros(sum(irrep.is_scalar for irrep in self.irreps.copies())))

    def forward(
        self, field: Float[Tensor, "batch channel x y z"], mask: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch channel x y z"]:
        """Normalise; the mask weighs the statistics and is not applied to the field."""
        require_channels(field, self.irreps, "MaskedFieldNorm")
        polar: dict[int, Tensor] = {}
        blocks = list(zip(self.irreps.slices(), self.irreps, strict=True))
        fields: list[Tensor] = []
        sizes: list[Tensor] = []
        rests: list[Tensor | None] = []
        for part, (count, irrep) in blocks:
            one, rest = field[:, part], None
            if irrep.is_scalar:  # a mean far above the spread would cost the digits of both: it goes first
                one = one - masked_mean(one, mask)[:, :, None, None, None]
                rest = precise_mean(one, mask)
            square = precise_mean(one.square(), mask)
            if rest is not None:
                square = (square - rest.square()).clamp_min(0.0)
            size = square.unflatten(1, (count, irrep.dimension)).mean(2)
            if irrep.degree and irrep.parity == (-1) ** irrep.degree:
                polar[irrep.degree] = size.mean(1, keepdim=True)
            fields.append(one)
            sizes.append(size)
            rests.append(rest)
        pieces, copies, scalars = [], 0, 0
        for (_, (count, irrep)), one, size, rest in zip(blocks, fields, sizes, rests, strict=True):
            if irrep.degree and irrep.parity == -((-1) ** irrep.degree) and irrep.degree in polar:
                size = polar[irrep.degree].expand_as(size)
            factor = self.weight[copies : copies + count] * torch.rsqrt(size + self.eps)
            copies += count
            scale = factor.repeat_interleave(irrep.dimension, dim=1)[:, :, None, None, None]
            if rest is None:
                pieces.append(one * scale.to(field.dtype))
                continue
            shift = self.bias[scalars : scalars + count] - rest * factor
            scalars += count
            pieces.append((one * scale + shift[:, :, None, None, None]).to(field.dtype))
        return torch.cat(pieces, dim=1)

    def extra_repr(self) -> str:
        """Layout."""
        return str(self.irreps)
