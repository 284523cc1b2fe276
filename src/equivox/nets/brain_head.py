"""The last layers of the brain encoder: from pooled vectors and statistics to the four blocks of a code."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.nets.brain_code import BrainCode
from equivox.nn.vector_frames import cross_product, gram_invariants
from equivox.nn.vector_neurons import VectorLinear, VectorLinearLeakyReLU, mix_vectors, vector_rms_norm

AXIAL_FLOOR = 1e-4
"""Mean square below which axial vectors are not blown up to length 1."""


class BrainHead(nn.Module):
    """Two vector layers for the vectors; one hidden layer, beside a linear map, for the scalars.

    Parameters
    ----------
    polar_in, axial_in
        Pooled vectors.
    statistics
        Pooled invariants.
    polar, axial, scalars, pseudoscalars
        Sizes of the code.
    gram
        Vectors whose Gram matrix joins the statistics.
    generator
        Source of the first weights.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        polar_in: int,
        axial_in: int,
        statistics: int,
        *,
        polar: int,
        axial: int,
        scalars: int,
        pseudoscalars: int,
        gram: int = 12,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.hidden = VectorLinearLeakyReLU(polar_in, polar, generator=generator)
        self.crossed = VectorLinear(polar_in + polar, 2 * axial, generator=generator)
        self.axial = VectorLinear(axial_in + axial, axial, generator=generator)
        self.back = VectorLinear(polar_in + polar, axial, generator=generator)
        self.polar = VectorLinear(polar_in + polar + axial, polar, generator=generator)
        self.gram = VectorLinear(polar_in, gram, generator=generator)
        self.signs = nn.ModuleList(
            [VectorLinear(count, pseudoscalars, generator=generator) for count in (polar, axial)]
        )
        raw = statistics + gram * (gram + 1) // 2
        self.register_buffer("shift", torch.zeros(raw))
        self.register_buffer("scale", torch.ones(raw))
        self.direct = _linear(raw, scalars, generator)
        self.inner = nn.Sequential(_linear(raw, scalars, generator), nn.SiLU(), _linear(scalars, scalars, generator))

    def statistics(
        self, vectors: Float[Tensor, "batch polar_in 3"], statistics: Float[Tensor, "batch statistic"]
    ) -> Float[Tensor, "batch raw"]:
        """All invariants as they are pooled, not yet standardised."""
        mixed = mix_vectors(vectors, self.gram.weight.to(vectors.dtype))
        return torch.cat([statistics, gram_invariants(mixed)], dim=1)

    def forward(
        self,
        polar: Float[Tensor, "batch polar_in 3"],
        axial: Float[Tensor, "batch axial_in 3"],
        statistics: Float[Tensor, "batch statistic"],
    ) -> BrainCode:
        """Make the code; the vectors of both kinds have the root mean square 1 per sample.

        Statistics vary by as little as 0.5 % between brains, so that standardising them multiplies their rounding: they
        stay in the precision they come in (float64 from the encoder) until that is done.
        """
        dtype = self.shift.dtype
        raw = ((self.statistics(polar, statistics) - self.shift) / self.scale).to(dtype)
        lengths, axial = vector_rms_norm(polar).to(dtype), axial.to(dtype)
        wide = torch.cat([lengths, self.hidden(lengths)], dim=1)
        first, second = self.crossed(wide).chunk(2, dim=1)
        pseudo = self.axial(torch.cat([axial, cross_product(first, second)], dim=1))
        pseudo = vector_rms_norm(pseudo, eps=AXIAL_FLOOR)
        turned = cross_product(self.back(wide), pseudo)
        vectors = vector_rms_norm(self.polar(torch.cat([wide, turned], dim=1)))
        signs = (self.signs[0](vectors) * self.signs[1](pseudo)).sum(2)
        return BrainCode(vectors, pseudo, self.direct(raw) + self.inner(raw), signs)

    @torch.no_grad()
    def settle(self, raw: Iterable[Float[Tensor, "batch raw"]]) -> None:
        """Standardise the invariants by their mean and spread over some scans; what does not vary counts nothing."""
        rows = torch.cat([part.double() for part in raw])
        spread = rows.std(dim=0)
        self.shift.copy_(rows.mean(dim=0))
        self.scale.copy_(torch.where(spread > 1e-6 * rows.abs().amax(0).clamp_min(1e-6), spread, torch.inf))


def _linear(before: int, after: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, before, after)
    with torch.no_grad():
        layer.weight.normal_(std=before**-0.5, generator=generator)
        layer.bias.zero_()
    return layer
