"""Non-linearities that act on the length of each field and keep its direction (steerable 3.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.nn.activations import FUNCTIONS, PARITY
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


class _Shrinking(nn.Module):
    """Scalars through a function; every other field scaled by a function of its length and a learned threshold."""

    def __init__(
        self,
        irreps: IrrepsLike,
        scalars: str,
        eps: float,
        dtype: torch.dtype | None,
        device: torch.device | str | None,
    ) -> None:
        super().__init__()
        if scalars not in FUNCTIONS:
            raise ConfigError(f"activation {scalars!r} is unknown; choose one of {', '.join(sorted(FUNCTIONS))}.")
        self.irreps = Irreps(irreps)
        if any(irrep.degree == 0 and irrep.parity < 0 for _, irrep in self.irreps) and PARITY.get(scalars, 0) >= 0:
            raise ConfigError(
                f"{scalars} is not odd, so odd scalars of {self.irreps} would lose their parity; use tanh."
            )
        self.scalars = scalars
        self.eps = eps
        count = sum(multiplicity for multiplicity, irrep in self.irreps if irrep.degree)
        self.bias = nn.Parameter(torch.empty(count, dtype=dtype, device=device))

    def _gain(self, length: Tensor, threshold: Tensor) -> Tensor:
        """Factor of a field of this length."""
        raise NotImplementedError

    def forward(self, field: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Apply; layout unchanged."""
        require_channels(field, self.irreps, type(self).__name__, spatial=None)
        pieces, read = [], 0
        for part, (multiplicity, irrep) in zip(self.irreps.slices(), self.irreps, strict=True):
            if irrep.degree == 0:
                pieces.append(FUNCTIONS[self.scalars](field[:, part]))
                continue
            copies = field[:, part].unflatten(1, (multiplicity, irrep.dimension))
            length = copies.square().sum(2, keepdim=True).clamp_min(self.eps**2).sqrt()
            threshold = self.bias[read : read + multiplicity].view(1, -1, *[1] * (length.ndim - 2))
            pieces.append((copies * self._gain(length, threshold)).flatten(1, 2))
            read += multiplicity
        return torch.cat(pieces, dim=1)

    def extra_repr(self) -> str:
        """Layout and function of scalars."""
        return f"{self.irreps}, scalars={self.scalars}"


class NormSoftplus(_Shrinking):
    """``out = softplus(|x| + eps - b) x / (|x| + eps)`` for fields of degree above 0; scalars through a function.

    The norm non-linearity of 3D steerable CNNs (se3cnn).

    Parameters
    ----------
    irreps
        Channel layout; also that of the output.
    scalars
        Function of scalars; odd scalars need an odd one.
    eps
        Lengths below it count as ``eps``, so the gradient at 0 is finite.
    generator
        Source of the initial thresholds ``b``, uniform in [0.5, 2], one per copy of degree above 0.
    dtype, device
        Of the parameters.
    """

    def __init__(
        self,
        irreps: IrrepsLike,
        *,
        scalars: str = "relu",
        eps: float = 1e-6,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(irreps, scalars, eps, dtype, device)
        with torch.no_grad():
            self.bias.uniform_(0.5, 2.0, generator=generator)

    def _gain(self, length: Tensor, threshold: Tensor) -> Tensor:
        """See the class."""
        return functional.softplus(length + self.eps - threshold) / (length + self.eps)


class NormReLU(_Shrinking):
    """``out = max(|x| - b, 0) x / |x|`` for fields of degree above 0; scalars through a function.

    Parameters
    ----------
    irreps, scalars, eps, dtype, device
        As for :class:`NormSoftplus`; thresholds are 0.1 at first.
    """

    def __init__(
        self,
        irreps: IrrepsLike,
        *,
        scalars: str = "relu",
        eps: float = 1e-6,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(irreps, scalars, eps, dtype, device)
        with torch.no_grad():
            self.bias.fill_(0.1)

    def _gain(self, length: Tensor, threshold: Tensor) -> Tensor:
        """See the class."""
        return torch.relu(length - threshold) / length
