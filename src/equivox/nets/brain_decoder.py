"""Back from an encoder to a volume, equivariantly: from its last field, or from its code alone.

Turn the brain and the decoded volume turns along, so that one orientation per scan is enough to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.nets.brain_code import BrainCode
from equivox.nn.binomial_pool import BinomialUpsample3d
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.gate import Gate
from equivox.nn.masked import MaskedFieldNorm
from equivox.nn.vector_neurons import VectorLinear

WIDTHS: tuple[tuple[int, int], ...] = ((12, 6), (6, 3))
"""Scalars and polar vectors after each doubling of the grid."""

LAST_SCALE = 0.1
"""Factor on the first weights of the last convolution. Fields that were spread by a binomial hardly differ from tap to
tap, so that taps add up to five times what independent ones would: a decoder began at a mean square of 25 where
intensities have one half, and spent its first hundreds of steps on that."""


class BrainDecoder(nn.Module):
    """From a field at a quarter of the grid to one scalar per voxel of the whole grid.

    Twice: spread by the transposed binomial, steerable convolution, norm, gate; at last a linear convolution.

    Parameters
    ----------
    irreps_in
        Layout of the field.
    widths
        Scalars and polar vectors after each doubling.
    generator
        Source of the first weights.
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        *,
        widths: Sequence[Sequence[int]] = WIDTHS,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        before = Irreps(irreps_in)
        gates, convolutions, norms = [], [], []
        for scalars, vectors in widths:
            gate = Gate(f"{scalars}x0e", f"{vectors}x1o", even="silu")
            convolutions.append(SteerableConv3d(before, gate.irreps_in, 3, lmax=2, generator=generator))
            norms.append(MaskedFieldNorm(gate.irreps_in))
            gates.append(gate)
            before = gate.irreps_out
        self.upsample = BinomialUpsample3d(8)
        self.convolutions, self.norms = nn.ModuleList(convolutions), nn.ModuleList(norms)
        self.gates = nn.ModuleList(gates)
        self.last = SteerableConv3d(before, "1x0e", 3, lmax=2, generator=generator)
        self.last.scale_blocks_([LAST_SCALE])

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch 1 x2 y2 z2"]:
        """Decode; sides become four times as long."""
        for convolution, norm, gate in zip(self.convolutions, self.norms, self.gates, strict=True):
            field = convolution(self.upsample(field))
            field = gate(norm(field, torch.ones_like(field[:, :1])))
        result: Tensor = self.last(field)
        return result


class CodeDecoder(nn.Module):
    """From scalars and polar vectors alone to a volume: shells about the centre carry them, then a decoder.

    Parameters
    ----------
    scalars, polar
        Sizes of the code.
    side
        Of the volume, a multiple of 4.
    width
        Scalar and vector fields that are laid out at a quarter of the grid.
    shells
        Gaussian shells about the centre.
    generator
        Source of the first weights.
    """

    def __init__(
        self,
        scalars: int,
        polar: int,
        side: int,
        *,
        width: int = 8,
        shells: int = 4,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.side, self.width, self.shells = side // 4, width, shells
        self.spread = nn.utils.skip_init(nn.Linear, scalars, width * shells)
        with torch.no_grad():
            self.spread.weight.normal_(std=scalars**-0.5, generator=generator)
            self.spread.bias.zero_()
        self.along = VectorLinear(polar, width * shells, generator=generator)
        self.toward = VectorLinear(polar, width * shells, generator=generator)
        self.decoder = BrainDecoder(f"{2 * width}x0e+{width}x1o", generator=generator)

    def forward(self, code: BrainCode) -> Float[Tensor, "batch 1 x y z"]:
        """Decode; only scalars and polar vectors are read."""
        shells, places = (one.to(code.scalars) for one in _shells(self.side, self.shells))
        grid = (self.side,) * 3
        plain = self.spread(code.scalars).unflatten(1, (self.width, self.shells))
        fields = [torch.einsum("bws,sp->bwp", plain, shells)]
        toward = self.toward(code.polar).unflatten(1, (self.width, self.shells))
        fields.append(torch.einsum("bwsx,xp,sp->bwp", toward, places, shells))
        along = self.along(code.polar).unflatten(1, (self.width, self.shells))
        fields.append(torch.einsum("bwsx,sp->bwxp", along, shells).flatten(1, 2))
        result: Tensor = self.decoder(torch.cat(fields, dim=1).unflatten(2, grid))
        return result


@lru_cache(maxsize=8)
def _shells(side: int, count: int) -> tuple[Tensor, Tensor]:
    """Gaussian shells (shell, voxel) and places (3, voxel) that are +-1 at the faces; not to be written to."""
    with torch.inference_mode(False):
        axis = (torch.arange(side, dtype=torch.float64) - (side - 1) / 2) / (side / 2)
        places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(1)
        radius = places.norm(dim=0)
        centers = torch.linspace(0.0, 0.9, count, dtype=torch.float64)
        width = 0.9 / max(count - 1, 1) * 0.7
        return torch.exp(-0.5 * ((radius[None] - centers[:, None]) / width) ** 2), places
