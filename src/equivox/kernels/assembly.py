"""From weights to convolution kernels: a linear map, applied by matrix products, and its adjoint.

For each pair of blocks in a plan the kernel block is ``weights @ basis``, one matrix product with a cached basis that
all layers of the same type share.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.kernels.basis3d import pair_matrix
from equivox.kernels.plan import KernelPlan, PairTerm


def _views(plan: KernelPlan, kernels: Sequence[Tensor], block_out: int, block_in: int) -> Tensor:
    """The kernel block of a pair as a view (copies out, d_out, copies in, d_in, taps) of its group's kernel."""
    number = next(n for n, group in enumerate(plan.groups) if block_out in group.blocks_out)
    group = plan.groups[number]
    ranges = []
    for layout, blocks, block in (
        (plan.irreps_out, group.blocks_out, block_out),
        (plan.irreps_in, group.blocks_in, block_in),
    ):
        widths = [layout[b][0] * layout[b][1].dimension for b in blocks]
        position = blocks.index(block)
        ranges.append(slice(sum(widths[:position]), sum(widths[: position + 1])))
    mul_out, irrep_out = plan.irreps_out[block_out]
    mul_in, irrep_in = plan.irreps_in[block_in]
    part = kernels[number][ranges[0], ranges[1]]
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
) -> tuple[Tensor, ...]:
    """Kernels (out, in, taps) of a plan's groups. Not differentiable by itself: see ``nn.folding``.

    Parameters
    ----------
    plan
        From :func:`make_plan`.
    weight
        ``plan.weight_shape``.
    self_weight
        Flat, ``plan.self_count`` entries, or ``None``.
    """
    kernels = tuple(weight.new_zeros(shape) for shape in plan.kernel_shapes())
    for term in plan.pairs:
        (mul_in, irrep_in), (mul_out, irrep_out) = plan.irreps_in[term.block_in], plan.irreps_out[term.block_out]
        matrix = _matrix(plan, term, weight)
        target = _views(plan, kernels, term.block_out, term.block_in)
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
            center = _views(plan, kernels, entry.block_out, entry.block_in)[..., plan.grid.center]
            center.diagonal(dim1=1, dim2=3).add_(mixing[..., None])
    return kernels


def assemble_adjoint(
    plan: KernelPlan, grad_kernels: tuple[Tensor, ...]
) -> tuple[Float[Tensor, "*weight"], Float[Tensor, "self"]]:
    """Adjoint of :func:`assemble`: gradients of the weights and of the self-connection from those of the kernels."""
    grad_weight = grad_kernels[0].new_zeros(plan.weight_shape)
    grad_self = grad_kernels[0].new_zeros(plan.self_count)
    for term in plan.pairs:
        matrix = _matrix(plan, term, grad_kernels[0])
        source = _views(plan, grad_kernels, term.block_out, term.block_in)
        if plan.by_shell:
            rows = source.permute(0, 2, 1, 3, 4).reshape(-1, matrix.shape[1]) @ matrix.mT
            grad_weight[term.weight_slices[0]] = rows.flatten() * term.scale
        else:
            rows = (matrix @ source.permute(2, 0, 1, 3, 4).reshape(-1, matrix.shape[1]).mT) * term.scale
            for part, piece in zip(term.weight_slices, rows.split(plan.radial.count), strict=True):
                grad_weight[:, part] = piece
    for entry in plan.self_terms:
        center = _views(plan, grad_kernels, entry.block_out, entry.block_in)[..., plan.grid.center]
        grad_self[entry.weights] = center.diagonal(dim1=1, dim2=3).sum(-1).mT.flatten() * entry.scale
    return grad_weight, grad_self
