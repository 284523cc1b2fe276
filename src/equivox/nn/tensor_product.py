"""Products of fields at a point: the only polynomial non-linearity between degrees (steerable 3.3)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irrep, Irreps, IrrepsLike
from equivox.geometry.wigner import coupling_tensor
from equivox.nn.gate import align_copies
from equivox.nn.layout import require_channels


class TensorProduct(nn.Module):
    """Copy by copy product of two fields: ``out^l = sqrt(2 l + 1) C^{l l1 l2} x1 x2`` for every possible ``l``.

    Copy number n of the first layout meets copy number n of the second. Unit-variance inputs give unit variance.

    Parameters
    ----------
    irreps_first, irreps_second
        Layouts with equal numbers of copies. Both O(3) (parities multiply) or both SO(3).
    highest_degree
        Leave out results above it.

    Attributes
    ----------
    irreps_out
        For each run of equal pairs the results by ascending degree.

    Raises
    ------
    ConfigError
        If the numbers of copies differ, or nothing is left below ``highest_degree``.

    Examples
    --------
    >>> product = TensorProduct("2x1o", "2x1o")
    >>> str(product.irreps_out)
    '2x0e+2x1e+2x2e'
    >>> product(torch.randn(1, 6, 4, 4, 4), torch.randn(1, 6, 4, 4, 4)).shape
    torch.Size([1, 18, 4, 4, 4])
    """

    def __init__(
        self, irreps_first: IrrepsLike, irreps_second: IrrepsLike, *, highest_degree: int | None = None
    ) -> None:
        super().__init__()
        self.irreps_first, self.irreps_second = Irreps(irreps_first), Irreps(irreps_second)
        self._first, self._second = align_copies(self.irreps_first, self.irreps_second, "first", "second")
        limit = math.inf if highest_degree is None else highest_degree
        self._results: list[list[Irrep]] = []
        for (_, one), (_, two) in zip(self._first, self._second, strict=True):
            self._results.append([irrep for irrep in one * two if irrep.degree <= limit])
        self.irreps_out = Irreps(
            [(count, irrep) for (count, _), kept in zip(self._first, self._results, strict=True) for irrep in kept]
        )
        if not self.irreps_out.dimension:
            raise ConfigError(
                f"no product of {self.irreps_first} and {self.irreps_second} has a degree up to {highest_degree}."
            )

    def forward(
        self, first: Float[Tensor, "batch channel1 *space"], second: Float[Tensor, "batch channel2 *space"]
    ) -> Float[Tensor, "batch channel_out *space"]:
        """Multiply."""
        require_channels(first, self.irreps_first, "TensorProduct", spatial=None)
        require_channels(second, self.irreps_second, "TensorProduct", spatial=None)
        pieces = []
        runs = zip(self._first, self._first.slices(), self._second, self._second.slices(), self._results, strict=True)
        for (count, one), part1, (_, two), part2, kept in runs:
            left = first[:, part1].unflatten(1, (count, one.dimension))
            right = second[:, part2].unflatten(1, (count, two.dimension))
            if not (one.degree and two.degree):
                pieces += [(left * right).flatten(1, 2)] * len(kept)
                continue
            for irrep in kept:
                coupling = _coupling(irrep.degree, one.degree, two.degree).to(first)
                pieces.append(torch.einsum("kij,bui...,buj...->buk...", coupling, left, right).flatten(1, 2))
        return torch.cat(pieces, dim=1)

    def extra_repr(self) -> str:
        """Layouts."""
        return f"{self.irreps_first} x {self.irreps_second} -> {self.irreps_out}"


class TensorProductActivation(nn.Module):
    """Non-linearity: keep a field, and append the product of each copy with itself.

    Parameters
    ----------
    irreps
        Layout of the input.
    highest_degree
        Leave out products above it; default: the input's highest degree.

    Attributes
    ----------
    irreps_out
        The input's layout, then the products.

    Notes
    -----
    Odd-degree parts of ``x x`` (antisymmetric couplings, as the cross product of a vector with itself) vanish and are
    left out.
    """

    def __init__(self, irreps: IrrepsLike, *, highest_degree: int | None = None) -> None:
        super().__init__()
        self.irreps_in = Irreps(irreps)
        limit = max(irrep.degree for _, irrep in self.irreps_in) if highest_degree is None else highest_degree
        self.product = TensorProduct(self.irreps_in, self.irreps_in, highest_degree=limit)
        self._kept: list[slice] = []
        products = []
        for block, part in zip(self.product.irreps_out, self.product.irreps_out.slices(), strict=True):
            if block[1].degree % 2 == 0:
                products.append(block)
                self._kept.append(part)
        self.irreps_out = self.irreps_in + Irreps(products)

    def forward(self, field: Float[Tensor, "batch channel_in *space"]) -> Float[Tensor, "batch channel_out *space"]:
        """Apply."""
        products = self.product(field, field)
        return torch.cat([field, *(products[:, part] for part in self._kept)], dim=1)


@lru_cache(maxsize=256)
def _coupling(out: int, one: int, two: int) -> Tensor:
    """``sqrt(2 l + 1) C`` in float64; not to be written to."""
    with torch.inference_mode(False):
        return math.sqrt(2 * out + 1) * coupling_tensor(out, one, two)
