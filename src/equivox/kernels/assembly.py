"""From weights to a convolution kernel: a linear map, written down once per layer and applied by matrix products.

A :class:`KernelPlan` lists the pairs of channel blocks that a layer connects. For each pair the kernel block is
``weights @ basis``, one matrix product with a cached basis that all layers of the same type share. Blocks that no path
reaches or reads are not in the kernel at all: its channels are the *active* ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps
from equivox.kernels.basis3d import TapGrid, filter_degrees, pair_basis, pair_matrix
from equivox.kernels.radial import GaussianShells, RadialFamily

Scaling = Literal["published", "unit"]


@dataclass(frozen=True, slots=True)
class PairTerm:
    """One pair of blocks: where its weights lie, which basis it uses, where its kernel block goes."""

    block_in: int
    block_out: int
    weight_slices: tuple[slice, ...]
    degrees: tuple[int, ...]
    elements: int
    scale: float


@dataclass(frozen=True, slots=True)
class SelfTerm:
    """Point-wise mixing of two blocks of equal irrep, added to the centre tap."""

    block_in: int
    block_out: int
    weights: slice
    scale: float


@dataclass(frozen=True)
class KernelPlan:
    """Everything that :func:`assemble` needs, apart from the weights; immutable and shared between equal layers.

    ``weight_shape`` is (radial functions, n_w) path by path for the smooth-finite family (e3nn's layout, so published
    weights are copied as they are) and (n,) block by block for Gaussian shells.
    """

    irreps_in: Irreps
    irreps_out: Irreps
    grid: TapGrid
    radial: RadialFamily
    pairs: tuple[PairTerm, ...]
    self_terms: tuple[SelfTerm, ...]
    weight_shape: tuple[int, ...]
    self_count: int
    by_shell: bool
    unit_norm: bool
    active_in: tuple[int, ...]
    active_out: tuple[int, ...]

    def channels(self, side: Literal["in", "out"]) -> list[slice]:
        """Full-layout channels of the active blocks."""
        layout, active = (self.irreps_in, self.active_in) if side == "in" else (self.irreps_out, self.active_out)
        slices = layout.slices()
        return [slices[block] for block in active]

    def kernel_shape(self) -> tuple[int, int, int]:
        """(active out channels, active in channels, taps)."""
        return (
            sum(s.stop - s.start for s in self.channels("out")),
            sum(s.stop - s.start for s in self.channels("in")),
            self.grid.count,
        )


@lru_cache(maxsize=256)
def make_plan(
    irreps_in: Irreps,
    irreps_out: Irreps,
    grid: TapGrid,
    radial: RadialFamily,
    lmax: int | None,
    self_connection: bool,
    scaling: Scaling,
) -> KernelPlan:
    """Enumerate the paths of a layer (e3pose 5.5 for smooth-finite radials, steerable 1.6 for Gaussian shells).

    Raises
    ------
    ConfigError
        If SO(3) and O(3) layouts meet, or a self-connection is asked of a kernel without a centre tap.
    """
    if len(irreps_in) and len(irreps_out) and irreps_in.is_so3 != irreps_out.is_so3:
        raise ConfigError(
            f"a layer from {irreps_in} to {irreps_out} mixes SO(3) and O(3); give both sides parity or none."
        )
    if self_connection and grid.center is None:
        raise ConfigError(f"a self-connection needs a centre tap; kernel size {grid.taps} has an even axis.")
    by_shell = isinstance(radial, GaussianShells)
    pairs, weight_shape = (_shell_pairs if by_shell else _path_pairs)(irreps_in, irreps_out, grid, radial, lmax)
    if scaling == "unit":
        pairs = _unit_scales(pairs, irreps_in, irreps_out)
    self_terms, self_count = _self_terms(irreps_in, irreps_out) if self_connection else ((), 0)
    terms: list[PairTerm | SelfTerm] = [*pairs, *self_terms]
    return KernelPlan(
        irreps_in=irreps_in,
        irreps_out=irreps_out,
        grid=grid,
        radial=radial,
        pairs=tuple(pairs),
        self_terms=self_terms,
        weight_shape=weight_shape,
        self_count=self_count,
        by_shell=by_shell,
        unit_norm=by_shell or scaling == "unit",
        active_in=tuple(sorted({term.block_in for term in terms})),
        active_out=tuple(sorted({term.block_out for term in terms})),
    )


def _path_pairs(
    irreps_in: Irreps, irreps_out: Irreps, grid: TapGrid, radial: RadialFamily, lmax: int | None
) -> tuple[list[PairTerm], tuple[int, ...]]:
    """e3nn's order: input block, filter degree, output block; one (copies in, copies out) slice per path."""
    found: dict[tuple[int, int], list[tuple[int, slice]]] = {}
    fan_in = [0] * len(irreps_out)
    offset = 0
    highest = max((ir.degree for _, ir in irreps_in), default=0) + max((ir.degree for _, ir in irreps_out), default=0)
    for a, (mul_in, irrep_in) in enumerate(irreps_in):
        for degree in range((highest if lmax is None else lmax) + 1):
            for b, (mul_out, irrep_out) in enumerate(irreps_out):
                if degree in filter_degrees(irrep_in, irrep_out, lmax) and mul_in * mul_out:
                    found.setdefault((a, b), []).append((degree, slice(offset, offset + mul_in * mul_out)))
                    fan_in[b] += mul_in
                    offset += mul_in * mul_out
    pairs = []
    for (a, b), paths in found.items():
        scale = math.sqrt(irreps_out[b][1].dimension / fan_in[b]) / grid.count
        degrees, slices = zip(*paths, strict=True)
        pairs.append(PairTerm(a, b, slices, degrees, len(paths) * radial.count, scale))
    return pairs, (radial.count, offset)


def _shell_pairs(
    irreps_in: Irreps, irreps_out: Irreps, grid: TapGrid, radial: RadialFamily, lmax: int | None
) -> tuple[list[PairTerm], tuple[int, ...]]:
    """Order of 3D steerable CNNs: output block, input block, then (copies out, copies in, elements)."""
    pairs = []
    offset = 0
    total = irreps_in.multiplicity
    for b, (mul_out, irrep_out) in enumerate(irreps_out):
        for a, (mul_in, irrep_in) in enumerate(irreps_in):
            degrees = filter_degrees(irrep_in, irrep_out, lmax)
            count = len(pair_basis(irrep_in.degree, irrep_out.degree, degrees, grid, radial, True).labels)
            if count and mul_in * mul_out:
                size = mul_in * mul_out * count
                scale = math.sqrt(irrep_out.dimension / (count * total))
                pairs.append(PairTerm(a, b, (slice(offset, offset + size),), degrees, count, scale))
                offset += size
    return pairs, (offset,)


def _unit_scales(pairs: Sequence[PairTerm], irreps_in: Irreps, irreps_out: Irreps) -> list[PairTerm]:
    """Scales that give every reached output component unit variance for white unit-variance input."""
    fan_in: dict[int, int] = {}
    for term in pairs:
        fan_in[term.block_out] = fan_in.get(term.block_out, 0) + term.elements * irreps_in[term.block_in][0]
    return [
        PairTerm(
            t.block_in,
            t.block_out,
            t.weight_slices,
            t.degrees,
            t.elements,
            math.sqrt(irreps_out[t.block_out][1].dimension / fan_in[t.block_out]),
        )
        for t in pairs
    ]


def _self_terms(irreps_in: Irreps, irreps_out: Irreps) -> tuple[tuple[SelfTerm, ...], int]:
    """Loop over input blocks, then output blocks; (copies in, copies out) each."""
    terms = []
    offset = 0
    for a, (mul_in, irrep_in) in enumerate(irreps_in):
        for b, (mul_out, irrep_out) in enumerate(irreps_out):
            if irrep_in == irrep_out and mul_in * mul_out:
                size = mul_in * mul_out
                scale = 1 / math.sqrt(irreps_in.count(irrep_in))
                terms.append(SelfTerm(a, b, slice(offset, offset + size), scale))
                offset += size
    return tuple(terms), offset


def _views(plan: KernelPlan, kernel: Tensor, block_out: int, block_in: int) -> Tensor:
    """The kernel block of a pair as a view (copies out, d_out, copies in, d_in, taps)."""
    starts = []
    for layout, active, block in (
        (plan.irreps_out, plan.active_out, block_out),
        (plan.irreps_in, plan.active_in, block_in),
    ):
        widths = [layout[b][0] * layout[b][1].dimension for b in active]
        position = active.index(block)
        starts.append(slice(sum(widths[:position]), sum(widths[: position + 1])))
    mul_out, irrep_out = plan.irreps_out[block_out]
    mul_in, irrep_in = plan.irreps_in[block_in]
    part = kernel[starts[0], starts[1]]
    return part.unflatten(1, (mul_in, irrep_in.dimension)).unflatten(0, (mul_out, irrep_out.dimension))


def _matrix(plan: KernelPlan, term: PairTerm, like: Tensor) -> Tensor:
    """Basis matrix of a pair in the dtype and on the device of ``like``."""
    degree_in, degree_out = plan.irreps_in[term.block_in][1].degree, plan.irreps_out[term.block_out][1].degree
    return pair_matrix(
        degree_in,
        degree_out,
        term.degrees,
        plan.grid,
        plan.radial,
        plan.by_shell,
        plan.unit_norm,
        like.dtype,
        like.device,
    )


def assemble(
    plan: KernelPlan, weight: Float[Tensor, "*weight"], self_weight: Float[Tensor, "self"] | None
) -> Float[Tensor, "channel_out channel_in taps"]:
    """Kernel of the active channels. Not differentiable by itself (it writes in place): see ``nn.folding``.

    Parameters
    ----------
    plan
        From :func:`make_plan`.
    weight
        ``plan.weight_shape``.
    self_weight
        Flat, ``plan.self_count`` entries, or ``None``.
    """
    kernel = weight.new_zeros(plan.kernel_shape())
    for term in plan.pairs:
        (mul_in, irrep_in), (mul_out, irrep_out) = plan.irreps_in[term.block_in], plan.irreps_out[term.block_out]
        matrix = _matrix(plan, term, weight)
        target = _views(plan, kernel, term.block_out, term.block_in)
        if plan.by_shell:
            rows = weight[term.weight_slices[0]].reshape(-1, term.elements) * term.scale
            block = (
                (rows @ matrix)
                .unflatten(0, (mul_out, mul_in))
                .unflatten(2, (irrep_out.dimension, irrep_in.dimension, -1))
            )
            target.copy_(block.permute(0, 2, 1, 3, 4))
        else:
            rows = torch.cat([weight[:, part] for part in term.weight_slices]) * term.scale
            block = (
                (rows.mT @ matrix)
                .unflatten(0, (mul_in, mul_out))
                .unflatten(2, (irrep_out.dimension, irrep_in.dimension, -1))
            )
            target.copy_(block.permute(1, 2, 0, 3, 4))
    if self_weight is not None:
        for entry in plan.self_terms:
            mul_in, mul_out = plan.irreps_in[entry.block_in][0], plan.irreps_out[entry.block_out][0]
            mixing = self_weight[entry.weights].view(mul_in, mul_out).mT * entry.scale
            center = _views(plan, kernel, entry.block_out, entry.block_in)[..., plan.grid.center]
            center.diagonal(dim1=1, dim2=3).add_(mixing[..., None])
    return kernel


def assemble_adjoint(
    plan: KernelPlan, grad_kernel: Float[Tensor, "channel_out channel_in taps"]
) -> tuple[Float[Tensor, "*weight"], Float[Tensor, "self"]]:
    """Adjoint of :func:`assemble`: gradients of the weights and of the self-connection from that of the kernel."""
    grad_weight = grad_kernel.new_zeros(plan.weight_shape)
    grad_self = grad_kernel.new_zeros(plan.self_count)
    for term in plan.pairs:
        matrix = _matrix(plan, term, grad_kernel)
        source = _views(plan, grad_kernel, term.block_out, term.block_in)
        if plan.by_shell:
            rows = source.permute(0, 2, 1, 3, 4).reshape(-1, matrix.shape[1]) @ matrix.mT
            grad_weight[term.weight_slices[0]] = rows.flatten() * term.scale
        else:
            rows = (matrix @ source.permute(2, 0, 1, 3, 4).reshape(-1, matrix.shape[1]).mT) * term.scale
            for part, piece in zip(term.weight_slices, rows.split(plan.radial.count), strict=True):
                grad_weight[:, part] = piece
    for entry in plan.self_terms:
        center = _views(plan, grad_kernel, entry.block_out, entry.block_in)[..., plan.grid.center]
        grad_self[entry.weights] = center.diagonal(dim1=1, dim2=3).sum(-1).mT.flatten() * entry.scale
    return grad_weight, grad_self
