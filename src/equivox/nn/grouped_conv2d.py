"""Grouped convolution on a CPU, group by group where that is faster than the library's own.

With the few channels per group that projected layers have, oneDNN's grouped kernels are slow: a last layer with one
channel out takes 6 times as long as a depthwise convolution with a sum behind it. The numbers are the same up to the
order of the sums (benchmarks/projected.py compares).
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

LEAST_PLACES = 64
"""On smaller maps calling a convolution per group costs more than it saves (1.3 to 1.5 times at 5 x 5 and 7 x 7)."""


def grouped_conv2d(
    field: Float[Tensor, "batch channel y x"],
    filters: Float[Tensor, "channel_out channel_in rows columns"],
    bias: Float[Tensor, "channel_out"] | None,
    stride: int,
    padding: int,
    dilation: int,
    groups: int,
) -> Float[Tensor, "batch channel_out y_out x_out"]:
    """`torch.nn.functional.conv2d` with groups.

    On a CPU and outside tracing: for inference with one channel out per group a depthwise convolution and a sum; with
    one channel out, or maps of 8 x 8 and more, one convolution per group; else the library's own.
    """
    reach = dilation * (filters.shape[2] - 1) + 1
    places = ((field.shape[2] + 2 * padding - reach) // stride + 1) * (
        (field.shape[3] + 2 * padding - reach) // stride + 1
    )
    worth = len(filters) == groups or places >= LEAST_PLACES
    if groups == 1 or not worth or field.device.type != "cpu" or _traced():
        return functional.conv2d(field, filters, bias, stride, padding, dilation, groups)
    inside = filters.shape[1]
    if len(filters) == groups and not torch.is_grad_enabled():
        planes = filters.reshape(groups * inside, 1, *filters.shape[2:])
        maps = functional.conv2d(field, planes, None, stride, padding, dilation, groups * inside)
        summed = maps.unflatten(1, (groups, inside)).sum(dim=2)
        return summed if bias is None else summed.add_(bias[:, None, None])
    biases = [None] * groups if bias is None else list(bias.chunk(groups))
    parts = zip(field.chunk(groups, dim=1), filters.chunk(groups), biases, strict=True)
    return torch.cat(
        [functional.conv2d(part, own, shift, stride, padding, dilation) for part, own, shift in parts], dim=1
    )


def _traced() -> bool:
    """Whether a graph is being recorded, which should hold one convolution and not one per group."""
    tracing: bool = torch._C._get_tracing_state() is not None
    return tracing or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
