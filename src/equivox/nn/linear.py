"""Point-wise equivariant mixing of channels."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.nn.layout import require_channels


class FieldLinear(nn.Module):
    """Mix copies of equal irreps: the most general equivariant linear map at a point (Schur's lemma).

    Parameters
    ----------
    irreps_in, irreps_out
        Channel layouts. An output block that no equal irrep feeds is zero.
    bias
        Learn a bias on even scalars (0 at first); nothing else may have one.
    generator
        Source of the initial weights, N(0, 1); default: torch's own.
    dtype, device
        Of the parameters.

    Attributes
    ----------
    weight
        Flat: for each input block, each output block of equal irrep, (copies in, copies out). Applied weights are
        divided by the root of the number of input copies of that irrep, so unit variance stays unit variance.

    Raises
    ------
    ConfigError
        If the layouts share no irrep.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_out: IrrepsLike,
        *,
        bias: bool = False,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self._terms: list[tuple[int, int, slice, float]] = []
        offset = 0
        for a, (mul_in, irrep_in) in enumerate(self.irreps_in):
            for b, (mul_out, irrep_out) in enumerate(self.irreps_out):
                if irrep_in == irrep_out and mul_in * mul_out:
                    scale = 1.0 / math.sqrt(self.irreps_in.count(irrep_in))
                    self._terms.append((a, b, slice(offset, offset + mul_in * mul_out), scale))
                    offset += mul_in * mul_out
        if not self._terms:
            raise ConfigError(f"{self.irreps_in} and {self.irreps_out} share no irrep: no linear map joins them.")
        self.weight = nn.Parameter(torch.empty(offset, dtype=dtype, device=device))
        scalars = sum(irrep.is_scalar for irrep in self.irreps_out.copies())
        if bias:
            self.bias = nn.Parameter(torch.empty(scalars, dtype=dtype, device=device))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters(generator)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw weights from N(0, 1); biases are 0."""
        with torch.no_grad():
            self.weight.normal_(generator=generator)
            if self.bias is not None:
                self.bias.zero_()

    def forward(self, field: Float[Tensor, "batch channel_in *space"]) -> Float[Tensor, "batch channel_out *space"]:
        """Mix channels at every point."""
        require_channels(field, self.irreps_in, "FieldLinear", spatial=None)
        inputs = [field[:, part] for part in self.irreps_in.slices()]
        results: list[Tensor | None] = [None] * len(self.irreps_out)
        for a, b, part, scale in self._terms:
            (mul_in, irrep), mul_out = self.irreps_in[a], self.irreps_out[b][0]
            mixing = self.weight[part].view(mul_in, mul_out) * scale
            copies = inputs[a].unflatten(1, (mul_in, irrep.dimension))
            mixed = torch.einsum("uw,bu...->bw...", mixing, copies).flatten(1, 2)
            so_far = results[b]
            results[b] = mixed if so_far is None else so_far + mixed
        pieces, read = [], 0
        for (multiplicity, irrep), result in zip(self.irreps_out, results, strict=True):
            if result is None:
                result = field.new_zeros(field.shape[0], multiplicity * irrep.dimension, *field.shape[2:])
            if self.bias is not None and irrep.is_scalar:
                shift = self.bias[read : read + multiplicity]
                result = result + shift.view(1, -1, *[1] * (field.ndim - 2))
                read += multiplicity
            pieces.append(result)
        return torch.cat(pieces, dim=1)

    def matrix(self) -> tuple[Float[Tensor, "channel_out channel_in"], Float[Tensor, "channel_out"] | None]:
        """The layer as one matrix over channels, and its shift."""
        unit = torch.eye(self.irreps_in.dimension, dtype=self.weight.dtype, device=self.weight.device)
        columns = self(unit)
        if self.bias is None:
            return columns.mT, None
        shift = self(torch.zeros_like(unit[:1]))
        return (columns - shift).mT, shift[0]

    def extra_repr(self) -> str:
        """Layouts."""
        return f"{self.irreps_in} -> {self.irreps_out}, bias={self.bias is not None}"
