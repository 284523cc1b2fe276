"""Non-linearity that acts on the length of each field and keeps its direction."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.nn.activations import FUNCTIONS
from equivox.nn.layout import require_channels


class NormActivation(nn.Module):
    """``out = f(|x| + b) x / |x|`` for every field, scalars included (their sign is kept).

    Parameters
    ----------
    irreps
        Channel layout; also that of the output.
    function
        Name of a function of the length: relu, sigmoid, tanh, silu, softplus, ...
    bias
        Learn ``b``, one per irrep copy (0 at first).
    eps
        Lengths below it count as ``eps``, so the gradient at 0 is finite.
    dtype, device
        Of the parameters.

    Raises
    ------
    ConfigError
        If the function is unknown.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        irreps: IrrepsLike,
        function: str = "sigmoid",
        *,
        bias: bool = True,
        eps: float = 1e-8,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if function not in FUNCTIONS:
            raise ConfigError(f"activation {function!r} is unknown; choose one of {', '.join(sorted(FUNCTIONS))}.")
        self.irreps = Irreps(irreps)
        self.function = function
        self.eps = eps
        if bias:
            self.bias = nn.Parameter(torch.zeros(self.irreps.multiplicity, dtype=dtype, device=device))
        else:
            self.register_parameter("bias", None)

    def forward(self, field: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Apply the function; layout unchanged."""
        require_channels(field, self.irreps, "NormActivation", spatial=None)
        pieces, read = [], 0
        for part, (multiplicity, irrep) in zip(self.irreps.slices(), self.irreps, strict=True):
            copies = field[:, part].unflatten(1, (multiplicity, irrep.dimension))
            length = copies.square().sum(2, keepdim=True).clamp_min(self.eps**2).sqrt()
            shifted = length
            if self.bias is not None:
                shift = self.bias[read : read + multiplicity]
                shifted = length + shift.view(1, -1, *[1] * (length.ndim - 2))
            pieces.append((copies * (FUNCTIONS[self.function](shifted) / length)).flatten(1, 2))
            read += multiplicity
        return torch.cat(pieces, dim=1)

    def extra_repr(self) -> str:
        """Layout and function."""
        return f"{self.irreps}, {self.function}"
