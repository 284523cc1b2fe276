"""From a trained equivariant network to plain torch modules with the same numbers.

Kernels are made once, batch norms become scales and shifts and disappear into the convolutions before (or, for the
published blocks, after) them, biases of gates move there too, dropout goes, pools lose their checks. What is left knows
nothing of representations: it runs as fast as it can, and ``torch.export`` and ONNX take it.
"""

from __future__ import annotations

import copy
import itertools
from collections import Counter
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.dropout import FieldDropout
from equivox.nn.folding import make_kernels
from equivox.nn.gate import Gate
from equivox.nn.linear import FieldLinear
from equivox.nn.lowpass import LowPass3d, Upsample3d
from equivox.nn.norm import FieldBatchNorm, FieldGroupNorm, FieldInstanceNorm
from equivox.nn.plain import (
    Affine,
    Bands,
    ChannelMixing,
    GroupedConv3d,
    MatrixOverRotations,
    PlainGate,
    SampleNorm,
    WindowedMaximum,
)
from equivox.nn.pool import AveragePool3d, NormMaxPool3d
from equivox.nn.projected_conv2d import ProjectedConv2d
from equivox.nn.residual import GatedConv3d, PaddedBatchNorm
from equivox.nn.rotation_norm import RotationBatchNorm2d

PlainConv = nn.Conv2d | nn.Conv3d


def fold(network: nn.Module) -> nn.Module:
    """A copy of a network for inference, made of plain torch modules; the network itself is left as it is.

    Parameters
    ----------
    network
        Any module that holds layers of :mod:`equivox.nn`: they are replaced wherever they are. A batch norm is folded
        into the convolution before it in an ``nn.Sequential``, and in a module that names children which it applies
        one after another in a class attribute ``fold_chain`` (for example ``fold_chain = ("conv", "norm")``).

    Returns
    -------
    The copy, in evaluation mode, without gradients. Strided layers take any grid: the check of sides is gone.

    Notes
    -----
    The numbers are those of ``network.eval()`` to rounding (1e-6 relative in float32). Layers that are plain already
    (``GlobalPool``, ``NormActivation``, ``TensorProduct`` and all of ``torch.nn``) stay as they are.

    Examples
    --------
    >>> from equivox.nn import FieldBatchNorm, Gate
    >>> gate = Gate("4x0e", "2x1o")
    >>> network = nn.Sequential(SteerableConv3d("1x0e", gate.irreps_in, 3), FieldBatchNorm(gate.irreps_in), gate)
    >>> [type(layer).__name__ for layer in fold(network)]
    ['Conv3d', 'Identity', 'PlainGate']
    """
    tensors = [tensor for tensor in (*network.parameters(), *network.buffers()) if tensor.is_floating_point()]
    kinds = {(tensor.device, tensor.dtype) for tensor in tensors}
    with torch.inference_mode(False), torch.no_grad():
        folded = _walk(copy.deepcopy(network).eval(), {})
        _fuse_chains(folded)
        if len(kinds) == 1:
            device, dtype = kinds.pop()
            folded.to(device=device, dtype=dtype)
        folded.requires_grad_(False)
    return folded.eval()


def _walk(module: nn.Module, done: dict[int, tuple[nn.Module, nn.Module]]) -> nn.Module:
    """Replace a module, or what is inside it; one that is used twice stays one."""
    if id(module) in done:
        return done[id(module)][1]
    replaced = _plain(module)
    done[id(module)] = (module, replaced)  # keeps the original alive, so that its id is not given again
    if replaced is not module:
        return replaced
    for name, child in list(module._modules.items()):
        if child is not None:
            setattr(module, name, _walk(child, done))
    return module


def _fuse_chains(network: nn.Module) -> None:
    """Join neighbours; what several places use is left alone, since each place would need its own."""
    uses = Counter(id(child) for module in network.modules() for child in module._modules.values())
    for module in network.modules():
        named = tuple(module._modules) if isinstance(module, nn.Sequential) else getattr(type(module), "fold_chain", ())
        for first, second in itertools.pairwise(named):
            before, after = getattr(module, first), getattr(module, second)
            fused = _fuse(before, after) if uses[id(before)] == 1 else None
            if fused is not None:
                setattr(module, first, fused)
                setattr(module, second, nn.Identity())


def _fuse(before: nn.Module, after: nn.Module) -> nn.Module | None:
    """A convolution that does the work of an affine map or batch norm after it as well; or nothing."""
    if isinstance(before, nn.Conv3d) and isinstance(after, nn.BatchNorm3d) and after.running_mean is not None:
        return fuse_conv_bn_eval(before, after)
    if not isinstance(after, Affine) or after.padding:
        return None
    if isinstance(before, nn.Conv2d | nn.Conv3d):
        return _scaled(before, after.scale, after.shift)
    if isinstance(before, GroupedConv3d) and _all_written(before):
        for convolution, written in zip(before.convolutions, before.written, strict=True):
            assert isinstance(convolution, nn.Conv3d)
            rows = _channels(written)
            _scaled(convolution, after.scale[rows], after.shift[rows])
        return before
    return None


def _scaled(convolution: PlainConv, scale: Tensor, shift: Tensor) -> PlainConv:
    """In place: ``scale * convolution(x) + shift``."""
    convolution.weight.mul_(scale.reshape(-1, *(1,) * (convolution.weight.ndim - 1)))
    bias = shift.clone() if convolution.bias is None else convolution.bias * scale + shift
    convolution.bias = nn.Parameter(bias)
    return convolution


def _all_written(grouped: GroupedConv3d) -> bool:
    """Whether some convolution writes every channel."""
    return sum(len(_channels(written)) for written in grouped.written) == grouped.channels


def _channels(slices: list[slice] | Any) -> list[int]:
    """Channel numbers of some slices."""
    return [channel for part in slices for channel in range(part.start, part.stop)]


@singledispatch
def _plain(module: nn.Module) -> nn.Module:
    """The plain form of one layer; the module itself if it has none."""
    return module


@_plain.register
def _(module: SteerableConv3d) -> nn.Module:
    kernels = make_kernels(module.plan, module.weight, module.self_connection)
    convolutions = []
    for kernel in kernels:
        convolution = nn.utils.skip_init(
            nn.Conv3d, kernel.shape[1], kernel.shape[0], module.grid.taps, stride=module.stride,
            padding=module.padding, dilation=module.dilation, bias=False, dtype=kernel.dtype, device=kernel.device,
        )  # fmt: skip
        convolution.weight.copy_(kernel)
        convolutions.append(convolution)
    whole = len(kernels) == 1 and kernels[0].shape[:2] == (module.irreps_out.dimension, module.irreps_in.dimension)
    if whole:
        return convolutions[0]
    read, written = module.channels_of_groups()
    return GroupedConv3d(convolutions, read, written, module.irreps_out.dimension)


@_plain.register
def _(module: ProjectedConv2d) -> nn.Module:
    mixing, module.mixing = module.mixing, None
    convolution = module.fold()
    return convolution if mixing is None else nn.Sequential(convolution, MatrixOverRotations(mixing.matrix()))


@_plain.register
def _(module: RotationBatchNorm2d) -> nn.Module:
    return Affine(*module.affine_map())


@_plain.register
def _(module: FieldDropout) -> nn.Module:
    return nn.Identity()


@_plain.register
def _(module: FieldBatchNorm) -> nn.Module:
    return Affine(*module.affine_map())


@_plain.register
def _(module: PaddedBatchNorm) -> nn.Module:
    return Affine(*module.affine_map(), padding=module.padding)


@_plain.register(FieldInstanceNorm)
@_plain.register(FieldGroupNorm)
def _(module: FieldInstanceNorm | FieldGroupNorm) -> nn.Module:
    if module.reduce != "mean":
        return module
    by_block = isinstance(module, FieldGroupNorm)
    channels = module.irreps.dimension
    centre, pool = torch.zeros(2, channels, channels, dtype=torch.float64)
    weight, bias = torch.ones(channels, dtype=torch.float64), torch.zeros(channels, dtype=torch.float64)
    copy_number = scalar_number = 0
    for part, (count, irrep) in zip(module.irreps.slices(), module.irreps, strict=True):
        same = torch.eye(count, dtype=torch.float64)
        if by_block:
            same = torch.full_like(same, 1 / max(count, 1))
        components = torch.ones(irrep.dimension, irrep.dimension, dtype=torch.float64)
        if module.second_moment == "component":
            components = components / irrep.dimension
        pool[part, part] = torch.kron(same, components)
        if irrep.is_scalar:
            centre[part, part] = same
        if module.weight is not None and module.bias is not None:
            own = module.weight[copy_number : copy_number + count]
            weight[part] = own.double().repeat_interleave(irrep.dimension)
            if irrep.is_scalar:
                bias[part] = module.bias[scalar_number : scalar_number + count].double()
        copy_number += count
        scalar_number += count if irrep.is_scalar else 0
    return SampleNorm(centre, pool, weight, bias, eps=module.eps)


@_plain.register
def _(module: Gate) -> nn.Module:
    return _plain_gate(module, with_bias=True)[0]


def _plain_gate(gate: Gate, *, with_bias: bool) -> tuple[PlainGate, Tensor | None]:
    """The gate, and its bias as one number per channel of the input."""
    runs = gate.runs()
    bias = gate.channel_bias()
    return PlainGate(*runs, bias if with_bias else None), bias


@_plain.register
def _(module: GatedConv3d) -> nn.Module:
    convolution = _plain(module.conv)
    layers: list[nn.Module] = []
    if module.norm is not None:
        affine = _plain(module.norm)
        assert isinstance(affine, Affine)
        if isinstance(convolution, nn.Conv3d):
            shift = torch.einsum("oixyz,i->o", convolution.weight.double(), affine.shift.double())
            shift = shift.to(convolution.weight)
            convolution.weight.mul_(affine.scale[:, None, None, None])
            convolution.padding = (module.norm.padding,) * 3
            convolution.bias = nn.Parameter(shift)
        else:
            layers.append(affine)
    layers.append(convolution)
    if module.gate is not None:
        joined = isinstance(convolution, nn.Conv3d)
        gate, bias = _plain_gate(module.gate, with_bias=not joined)
        if joined and bias is not None:
            assert isinstance(convolution, nn.Conv3d)
            _scaled(convolution, torch.ones_like(bias), bias)
        layers.append(gate)
    if module.pool is not None:
        layers.append(_plain(module.pool))
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


@_plain.register
def _(module: LowPass3d) -> nn.Module:
    return Bands(module.taps, module.stride, transposed=False, normalise=module.normalize_border)


@_plain.register
def _(module: Upsample3d) -> nn.Module:
    normalise = module.normalization == "phase"
    return Bands(module.taps, module.stride, transposed=True, normalise=normalise)


@_plain.register
def _(module: AveragePool3d) -> nn.Module:
    return nn.AvgPool3d(
        module.window, stride=module.stride, padding=module.padding, count_include_pad=module.count_padding
    )


@_plain.register
def _(module: NormMaxPool3d) -> nn.Module:
    blocks = [
        (part, irrep.dimension, irrep.is_scalar or (irrep.degree == 0 and module.odd_scalars == "signed"))
        for part, (count, irrep) in zip(module.irreps.slices(), module.irreps, strict=True)
        if count
    ]
    return WindowedMaximum(blocks, module.window)


@_plain.register
def _(module: FieldLinear) -> nn.Module:
    matrix, shift = module.matrix()
    return ChannelMixing(matrix, shift)
