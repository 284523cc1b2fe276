"""Kernel assembly as one opaque operator, so that ``torch.compile`` traces a layer without a break.

A compiler that looked into the assembly would unroll it into hundreds of small products, and would look for the
cached bases among the inputs. It sees one call instead. Plans travel by :attr:`KernelPlan.key`, a digest of what they
were made from, so a compiled graph that is kept on disk never meets another layer's plan.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equivox.kernels.assembly import assemble, assemble_adjoint
from equivox.kernels.plan import KernelPlan, plan_of

_FORWARD = "(Tensor weight, Tensor? self_weight, str plan) -> Tensor[]"
_ADJOINT = "(Tensor[] kernels, str plan) -> (Tensor, Tensor)"


def _assemble(weight: Tensor, self_weight: Tensor | None, plan: str) -> list[Tensor]:
    return list(assemble(plan_of(plan), weight, self_weight))


def _assemble_shapes(weight: Tensor, self_weight: Tensor | None, plan: str) -> list[Tensor]:
    return [weight.new_empty(shape) for shape in plan_of(plan).kernel_shapes()]


def _adjoint(kernels: list[Tensor], plan: str) -> tuple[Tensor, Tensor]:
    return assemble_adjoint(plan_of(plan), tuple(kernel.contiguous() for kernel in kernels))


def _adjoint_shapes(kernels: list[Tensor], plan: str) -> tuple[Tensor, Tensor]:
    made = plan_of(plan)
    return kernels[0].new_empty(made.weight_shape), kernels[0].new_empty(made.self_count)


def _keep(ctx: Any, inputs: tuple[Tensor, Tensor | None, str], output: list[Tensor]) -> None:
    ctx.has_self, ctx.plan = inputs[1] is not None, inputs[2]


def _gradient(ctx: Any, grads: list[Tensor]) -> tuple[Tensor, Tensor | None, None]:
    grad_weight, grad_self = adjoint_op(grads, ctx.plan)
    return grad_weight, grad_self if ctx.has_self else None, None


assemble_op = torch.library.custom_op("equivox::assemble", _assemble, mutates_args=(), schema=_FORWARD)
adjoint_op = torch.library.custom_op("equivox::assemble_adjoint", _adjoint, mutates_args=(), schema=_ADJOINT)
assemble_op.register_fake(_assemble_shapes)
adjoint_op.register_fake(_adjoint_shapes)
assemble_op.register_autograd(_gradient, setup_context=_keep)


def traced_kernels(plan: KernelPlan, weight: Tensor, self_weight: Tensor | None) -> tuple[Tensor, ...]:
    """Kernels (out, in, taps) of a plan's groups, as one node of a graph; once differentiable."""
    return tuple(assemble_op(weight, self_weight, plan.key))
