"""Gated non-linearity: scalars through a function, every other field scaled by a function of its own scalar."""

from __future__ import annotations

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irrep, Irreps, IrrepsLike
from equivox.nn.activations import FUNCTIONS, PARITY, Constants, second_moment_constant
from equivox.nn.layout import require_channels


class Gate(nn.Module):
    """``out = act(scalars) + sigmoid(gates) * gated`` (direct sums), with factors that keep the second moment.

    The input layout ``irreps_in`` is what a convolution before the gate should produce: scalars, one gate per gated
    copy, and the gated fields, sorted by degree, odd before even, neighbours merged. The output layout
    ``irreps_out`` is the scalars (after their functions), then the gated fields, as given.

    Parameters
    ----------
    irreps_scalars
        Blocks of degree 0.
    irreps_gated
        Blocks of any degree; gates are even scalars, one per copy, consumed in this order.
    even, odd
        Function of even and of odd scalars. An odd scalar needs an odd function (stays odd) or an even one (becomes
        even).
    gate, odd_gate
        Function of even and of odd gates. An odd function of an odd gate flips the parity of what it scales.
    constants
        ``"exact"`` factors, the ``"published"`` Monte-Carlo ones (for imported weights), ``"none"``, or a mapping
        from function names.
    irreps_gates
        Blocks of degree 0 with as many copies as ``irreps_gated``; default: even scalars.
    bias
        Adds a learned bias (0 at first) to even scalars and even gates before their functions.

    Raises
    ------
    ConfigError
        If scalars or gates are not of degree 0, gates and gated copies differ in number, or a function does not fit a
        parity.

    Examples
    --------
    >>> gate = Gate("3x0e + 2x0o", "2x1o + 1x2e")
    >>> str(gate.irreps_in), str(gate.irreps_out)
    ('2x0o+6x0e+2x1o+1x2e', '3x0e+2x0o+2x1o+1x2e')
    """

    def __init__(
        self,
        irreps_scalars: IrrepsLike,
        irreps_gated: IrrepsLike,
        *,
        even: str = "relu",
        odd: str = "tanh",
        gate: str = "sigmoid",
        odd_gate: str = "tanh",
        constants: Constants = "exact",
        irreps_gates: IrrepsLike | None = None,
        bias: bool = False,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        scalars, gated = Irreps(irreps_scalars), Irreps(irreps_gated)
        if irreps_gates is None:
            irreps_gates = [(multiplicity, Irrep(0, 0 if gated.is_so3 else 1)) for multiplicity, _ in gated]
        gates, gated = align_copies(Irreps(irreps_gates), gated, "gates", "fields")
        if any(irrep.degree for _, irrep in scalars + gates):
            raise ConfigError(f"scalars and gates of a gate have degree 0, got {scalars} and {gates}.")
        self.irreps_scalars, self.irreps_gates, self.irreps_gated = scalars, gates, gated
        self._functions = [odd if irrep.parity < 0 else even for _, irrep in scalars]
        self._functions += [odd_gate if irrep.parity < 0 else gate for _, irrep in gates]
        self._factors = {name: second_moment_constant(name, constants) for name in set(self._functions)}
        parities = [
            _output_parity(name, irrep) for name, (_, irrep) in zip(self._functions, scalars + gates, strict=True)
        ]
        out = [(multiplicity, Irrep(0, parity)) for (multiplicity, _), parity in zip(scalars, parities, strict=False)]
        for (multiplicity, irrep), parity in zip(gated, parities[len(scalars) :], strict=True):
            out.append((multiplicity, Irrep(irrep.degree, irrep.parity * parity)))
        self.irreps_out = Irreps(out).simplify()
        parts = scalars + gates + gated
        order = parts.sort_order()
        self.irreps_in = parts.sort().simplify()
        widths = [multiplicity * irrep.dimension for multiplicity, irrep in parts]
        starts = [0] * len(parts)
        position = 0
        for block in order:
            starts[block] = position
            position += widths[block]
        self._slices = [slice(start, start + width) for start, width in zip(starts, widths, strict=True)]
        biased = sum(m for m, irrep in scalars + gates if irrep.is_scalar) if bias else 0
        self.bias = nn.Parameter(torch.zeros(biased, dtype=dtype, device=device)) if bias else None

    def forward(self, field: Float[Tensor, "batch channel_in *space"]) -> Float[Tensor, "batch channel_out *space"]:
        """Apply the gate; channels as in ``irreps_in`` and ``irreps_out``."""
        require_channels(field, self.irreps_in, "Gate", spatial=None)
        blocks = self._with_bias([field[:, part] for part in self._slices])
        count = len(self._functions)
        active = [self._activate(name, block) for name, block in zip(self._functions, blocks[:count], strict=True)]
        pieces = active[: len(self.irreps_scalars)]
        gates = active[len(self.irreps_scalars) :]
        for (multiplicity, irrep), factor, block in zip(self.irreps_gated, gates, blocks[count:], strict=True):
            if irrep.dimension == 1:
                pieces.append(factor * block)
            else:
                copies = block.unflatten(1, (multiplicity, irrep.dimension))
                pieces.append((factor.unsqueeze(2) * copies).flatten(1, 2))
        return torch.cat(pieces, dim=1)

    def _activate(self, name: str, value: Tensor) -> Tensor:
        """Function times its factor."""
        result = FUNCTIONS[name](value)
        factor = self._factors[name]
        return result if factor == 1.0 else result * factor

    def _with_bias(self, blocks: list[Tensor]) -> list[Tensor]:
        """Add the bias to even scalars, then to even gates."""
        if self.bias is None:
            return blocks
        read = 0
        for index, (multiplicity, irrep) in enumerate(self.irreps_scalars + self.irreps_gates):
            if irrep.is_scalar:
                shift = self.bias[read : read + multiplicity]
                blocks[index] = blocks[index] + shift.view(1, -1, *[1] * (blocks[index].ndim - 2))
                read += multiplicity
        return blocks

    def runs(self) -> tuple[list[tuple[slice, str, float]], list[tuple[slice, str, float, slice, int]]]:
        """Where channels lie: per run of scalars its channels, function and factor; per run of gated fields the gates',
        their function and factor, the fields' channels and their dimension.
        """
        count = len(self._functions)
        named = [
            (part, name, self._factors[name])
            for part, name in zip(self._slices[:count], self._functions, strict=True)
            if part.stop > part.start
        ]
        kinds = sum(1 for multiplicity, _ in self.irreps_scalars if multiplicity)
        scalars, gates = named[:kinds], named[kinds:]
        fields = [
            (part, irrep.dimension)
            for part, (multiplicity, irrep) in zip(self._slices[count:], self.irreps_gated, strict=True)
            if multiplicity
        ]
        return scalars, [(*gate, *field) for gate, field in zip(gates, fields, strict=True)]

    def channel_bias(self) -> Float[Tensor, "channel_in"] | None:
        """The bias as one number per channel of the input, zero where there is none; ``None`` without a bias."""
        if self.bias is None:
            return None
        spread = self.bias.new_zeros(self.irreps_in.dimension)
        read = 0
        for part, (multiplicity, irrep) in zip(self._slices, self.irreps_scalars + self.irreps_gates, strict=False):
            if irrep.is_scalar:
                spread[part] = self.bias.detach()[read : read + multiplicity]
                read += multiplicity
        return spread

    def extra_repr(self) -> str:
        """Layouts."""
        return f"{self.irreps_in} -> {self.irreps_out}"


def align_copies(first: Irreps, second: Irreps, name: str, other: str) -> tuple[Irreps, Irreps]:
    """Split blocks so that block number n of both layouts has equal multiplicity; copy number n meets copy number n.

    Raises
    ------
    ConfigError
        If the layouts differ in their number of copies; ``name`` and ``other`` say what they are.
    """
    if first.multiplicity != second.multiplicity:
        raise ConfigError(f"{first} are {first.multiplicity} {name} for {second.multiplicity} {other} {second}.")
    pairs: list[tuple[Irrep, Irrep]] = list(zip(first.copies(), second.copies(), strict=True))
    runs = [(sum(1 for _ in run), pair) for pair, run in itertools.groupby(pairs)]
    return Irreps([(n, one) for n, (one, _) in runs]), Irreps([(n, two) for n, (_, two) in runs])


def _output_parity(function: str, irrep: Irrep) -> int:
    """Parity of ``function(scalar)``."""
    if irrep.parity >= 0:
        return irrep.parity  # 0 for SO(3)
    parity = PARITY.get(function, 0)
    if parity == 0:
        raise ConfigError(
            f"{function} is neither even nor odd, so it cannot act on the odd scalar {irrep}; use tanh (stays odd) "
            f"or abs (becomes even)."
        )
    return parity
