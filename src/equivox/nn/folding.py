"""Kernels from parameters: differentiable in training, folded once and kept in evaluation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from equivox.kernels.assembly import assemble, assemble_adjoint
from equivox.kernels.plan import KernelPlan
from equivox.nn.compiled import traced_kernels


class _Assemble(torch.autograd.Function):
    """The linear map from weights to a kernel; its derivative is the adjoint, and the other way round."""

    @staticmethod
    def forward(plan: KernelPlan, weight: Tensor, self_weight: Tensor | None) -> tuple[Tensor, ...]:
        return assemble(plan, weight, self_weight)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[KernelPlan, Tensor, Tensor | None], output: tuple[Tensor, ...]) -> None:
        ctx.plan, _, self_weight = inputs
        ctx.has_self = self_weight is not None

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, Tensor | None]:
        grad_weight, grad_self = _Adjoint.apply(ctx.plan, *grads)  # type: ignore[no-untyped-call]
        return None, grad_weight, grad_self if ctx.has_self else None


class _Adjoint(torch.autograd.Function):
    """Adjoint of :class:`_Assemble`."""

    @staticmethod
    def forward(plan: KernelPlan, *grad_kernels: Tensor) -> tuple[Tensor, Tensor]:
        return assemble_adjoint(plan, grad_kernels)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.plan = inputs[0]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *_Assemble.apply(ctx.plan, grads[0], grads[1]))  # type: ignore[no-untyped-call]


def make_kernels(plan: KernelPlan, weight: Tensor, self_weight: Tensor | None) -> tuple[Tensor, ...]:
    """Kernels of a plan's groups, (out, in, x, y, z) each, differentiable any number of times (once in a
    compiled graph).

    Half precision parameters are summed in float32 and the result is cast; autocast does not reach in here.
    """
    low = weight.dtype in (torch.float16, torch.bfloat16)
    with torch.autocast(weight.device.type, enabled=False):
        work = weight.float() if low else weight
        work_self = self_weight.to(work.dtype) if self_weight is not None else None
        kernels: tuple[Tensor, ...]
        if torch.compiler.is_compiling():
            kernels = traced_kernels(plan, work, work_self)
        else:
            kernels = _Assemble.apply(plan, work, work_self)  # type: ignore[no-untyped-call]
    return tuple(kernel.to(weight.dtype).unflatten(2, plan.grid.taps) for kernel in kernels)


class FoldedKernels:
    """The kept kernels of one layer, valid for exactly the parameter values that they were made of.

    Validity is judged by value (a copy of the parameters is compared, which costs next to nothing beside a
    convolution), so no way of changing a parameter can leave a stale kernel behind: optimiser steps,
    ``load_state_dict``, ``.data`` assignment, ``.to``.
    """

    def __init__(self) -> None:
        self._kernels: tuple[Tensor, ...] | None = None
        self._made_of: tuple[Tensor | None, Tensor | None] = (None, None)

    def get(self, plan: KernelPlan, weight: Tensor, self_weight: Tensor | None) -> tuple[Tensor, ...]:
        """The kernels for these parameters, without gradient; made anew if these differ from last time.

        A compiled graph cannot compare values and makes them at every call, which is never wrong.
        """
        if torch.compiler.is_compiling():
            return make_kernels(plan, weight, self_weight)
        if self._kernels is None or not (_same(self._made_of[0], weight) and _same(self._made_of[1], self_weight)):
            with torch.inference_mode(False), torch.no_grad():
                self._kernels = None  # free the old ones before new ones are made
                kept = [None if p is None else p.detach().clone() for p in (weight, self_weight)]
                assert kept[0] is not None
                self._kernels = make_kernels(plan, kept[0], kept[1])
                self._made_of = (kept[0], kept[1])
        return self._kernels

    def clear(self) -> None:
        """Forget the kernel."""
        self._kernels = None
        self._made_of = (None, None)

    def __reduce__(self) -> tuple[type[FoldedKernels], tuple[()]]:
        """Copies and pickles start empty."""
        return (FoldedKernels, ())


def _same(kept: Tensor | None, now: Tensor | None) -> bool:
    """Equal values, dtype and device."""
    if kept is None or now is None:
        return kept is now
    return (
        kept.dtype == now.dtype
        and kept.device == now.device
        and kept.shape == now.shape
        and torch.equal(kept, now.detach())
    )
