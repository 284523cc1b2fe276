"""Normalisation per field: one scale per irrep copy, one mean per even scalar (e3pose 5.8, steerable 3.4).

Only even scalars have a mean to remove: an odd scalar or a vector may not be shifted. Second moments are averaged over
components (``"component"``) or summed (``"norm"``); variances carry no Bessel correction.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.nn.layout import require_channels

SecondMoment = Literal["component", "norm"]
Reduce = Literal["mean", "max"]


class _FieldNorm(nn.Module):
    """What all norms share: parameters, and the step from moments to output."""

    weight: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        irreps: IrrepsLike,
        *,
        eps: float = 1e-5,
        affine: bool = True,
        second_moment: SecondMoment = "component",
        reduce: Reduce = "mean",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.irreps = Irreps(irreps)
        self.eps = eps
        self.second_moment: SecondMoment = second_moment
        self.reduce: Reduce = reduce
        copies = self.irreps.copies()
        self.scalar_count = sum(irrep.is_scalar for irrep in copies)
        self._scalar_channels = [
            part for part, (_, irrep) in zip(self.irreps.slices(), self.irreps, strict=True) if irrep.is_scalar
        ]
        if affine:
            self.weight = nn.Parameter(torch.ones(len(copies), dtype=dtype, device=device))
            self.bias = nn.Parameter(torch.zeros(self.scalar_count, dtype=dtype, device=device))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)

    def _from_scalars(self, values: Tensor) -> Tensor:
        """(…, scalar) to (…, channel): zeros for all that is not an even scalar."""
        pieces, read = [], 0
        for multiplicity, irrep in self.irreps:
            if irrep.is_scalar:
                pieces.append(values[..., read : read + multiplicity])
                read += multiplicity
            else:
                pieces.append(values.new_zeros(*values.shape[:-1], multiplicity * irrep.dimension))
        return torch.cat(pieces, dim=-1)

    def _to_scalars(self, values: Tensor) -> Tensor:
        """(…, channel) to (…, scalar)."""
        parts = [values[..., part] for part in self._scalar_channels]
        return torch.cat(parts, dim=-1) if parts else values[..., :0]

    def _per_copy(self, values: Tensor) -> Tensor:
        """(…, channel) to (…, copy): sum or mean over components."""
        pieces = []
        for part, (multiplicity, irrep) in zip(self.irreps.slices(), self.irreps, strict=True):
            components = values[..., part].unflatten(-1, (multiplicity, irrep.dimension))
            pieces.append(components.mean(-1) if self.second_moment == "component" else components.sum(-1))
        return torch.cat(pieces, dim=-1)

    def _per_channel(self, values: Tensor) -> Tensor:
        """(…, copy) to (…, channel)."""
        pieces, read = [], 0
        for multiplicity, irrep in self.irreps:
            part = values[..., read : read + multiplicity]
            pieces.append(part.repeat_interleave(irrep.dimension, dim=-1) if irrep.dimension > 1 else part)
            read += multiplicity
        return torch.cat(pieces, dim=-1)

    def _over_blocks(self, values: Tensor, *, scalars: bool) -> Tensor:
        """Replace the values of a block's copies by their mean; of all blocks, or of even scalars only."""
        counts = [multiplicity for multiplicity, irrep in self.irreps if irrep.is_scalar or not scalars]
        means = [part.mean(-1, keepdim=True).expand_as(part) for part in values.split(counts, dim=-1) if part.shape[-1]]
        return torch.cat(means, dim=-1) if means else values

    def _moments(self, flat: Tensor, *, over_batch: bool = False, over_blocks: bool = False) -> tuple[Tensor, Tensor]:
        """Mean of even scalars (batch, scalar) and second moment about it (batch, copy).

        Over the batch: one row. Over blocks: equal for all copies of a block.
        """
        variance, average = torch.var_mean(flat, dim=-1, correction=0)
        mean = self._to_scalars(average)
        if over_batch:
            mean = mean.mean(dim=0, keepdim=True)
        if over_blocks:
            mean = self._over_blocks(mean, scalars=True)
        center = self._from_scalars(mean)
        if self.reduce == "max":
            square = (flat - center[..., None]).square()
            second = self._per_copy(square.transpose(1, 2)).amax(dim=1)
        else:
            second = self._per_copy(variance + (average - center).square())
        if over_blocks:
            second = self._over_blocks(second, scalars=False)
        return mean, second.mean(dim=0, keepdim=True) if over_batch else second

    def _normalise(self, field: Tensor, mean: Tensor, second: Tensor) -> Tensor:
        """``(x - mean) (second + eps)^(-1/2) weight + bias``; moments (batch or 1, scalar or copy)."""
        scale, shift = self._affine_map(mean, second)
        axes = (...,) + (None,) * (field.ndim - 2)
        return torch.addcmul(shift[axes], field, scale[axes])

    def _affine_map(self, mean: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """``(x - mean) (second + eps)^(-1/2) weight + bias`` as a scale and a shift per channel (…, channel)."""
        scale = (second + self.eps).rsqrt()
        if self.weight is not None:
            scale = scale * self.weight
        scale = self._per_channel(scale)
        shift = -self._from_scalars(mean) * scale
        if self.bias is not None:
            shift = shift + self._from_scalars(self.bias)
        return scale, shift

    def extra_repr(self) -> str:
        """Layout."""
        return f"{self.irreps}, eps={self.eps}, second_moment={self.second_moment}"


class FieldInstanceNorm(_FieldNorm):
    """Normalise each field over the space of each sample; the same in training and evaluation.

    Parameters
    ----------
    irreps
        Channel layout.
    eps
        Added to the second moment.
    affine
        Learn a weight per copy (1 at first) and a bias per even scalar (0 at first).
    second_moment
        ``"component"`` averages over the components of a field, ``"norm"`` adds them up.
    reduce
        Over space: ``"mean"``, or ``"max"`` of the squared norm.
    dtype, device
        Of the parameters.

    Notes
    -----
    The published default of E(3)-Pose.
    """

    def forward(self, field: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Normalise; shape unchanged."""
        require_channels(field, self.irreps, "FieldInstanceNorm", spatial=None)
        mean, second = self._moments(field.flatten(2))
        return self._normalise(field, mean, second)


class FieldGroupNorm(_FieldNorm):
    """Normalise each block of the layout over its copies and the space of each sample: one group per block.

    Even scalars of a block share one mean, all copies of a block one second moment. The same in training and
    evaluation, and independent of the batch.

    Parameters
    ----------
    irreps
        Channel layout; a block per group, so ``"4x0 + 4x0"`` are two groups. With blocks of one copy this is
        :class:`FieldInstanceNorm`.
    eps, affine, second_moment, reduce, dtype, device
        As for :class:`FieldInstanceNorm`.
    """

    def forward(self, field: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Normalise; shape unchanged."""
        require_channels(field, self.irreps, "FieldGroupNorm", spatial=None)
        mean, second = self._moments(field.flatten(2), over_blocks=True)
        return self._normalise(field, mean, second)


class FieldBatchNorm(_FieldNorm):
    """Normalise each field over batch and space; running statistics in evaluation.

    Parameters
    ----------
    irreps, eps, affine, second_moment, reduce, dtype, device
        As for :class:`FieldInstanceNorm`.
    momentum
        ``running = (1 - momentum) running + momentum new``; the stored variance is the biased second moment.

    Notes
    -----
    State: ``weight``, ``bias``, ``running_mean`` (even scalars), ``running_var`` (all copies).
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        irreps: IrrepsLike,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        second_moment: SecondMoment = "component",
        reduce: Reduce = "mean",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(
            irreps, eps=eps, affine=affine, second_moment=second_moment, reduce=reduce, dtype=dtype, device=device
        )
        self.momentum = momentum
        self.register_buffer("running_mean", torch.zeros(self.scalar_count, dtype=dtype, device=device))
        self.register_buffer("running_var", torch.ones(self.irreps.multiplicity, dtype=dtype, device=device))

    def affine_map(self) -> tuple[Float[Tensor, "channel"], Float[Tensor, "channel"]]:
        """What the layer does in evaluation: a scale and a shift per channel."""
        return self._affine_map(self.running_mean, self.running_var)

    def forward(self, field: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *space"]:
        """Normalise; shape unchanged. In training the running statistics move."""
        require_channels(field, self.irreps, "FieldBatchNorm", spatial=None)
        if not self.training:
            return self._normalise(field, self.running_mean[None], self.running_var[None])
        flat = field.flatten(2)
        mean, second = self._moments(flat, over_batch=True)
        with torch.no_grad():
            self.running_mean.lerp_(mean[0].to(self.running_mean), self.momentum)
            self.running_var.lerp_(second[0].to(self.running_var), self.momentum)
        return self._normalise(field, mean, second)
