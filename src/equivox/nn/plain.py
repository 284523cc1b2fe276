"""Layers in evaluation as plain torch modules: weights and buffers only, no paths, no caches, no checks of shapes.

:func:`equivox.nn.fold` builds networks of them. Every one takes any batch size and any grid, so that what a tracer
sees depends on neither.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from equivox.nn.activations import FUNCTIONS
from equivox.nn.layout import place_channels, take_channels

Triple = tuple[int, int, int]


class GroupedConv3d(nn.Module):
    """Several convolutions side by side, each from some channels to some channels; all others are zero."""

    def __init__(
        self,
        convolutions: Sequence[nn.Conv3d],
        read: Sequence[Sequence[slice]],
        written: Sequence[Sequence[slice]],
        channels: int,
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(convolutions)
        self.read, self.written, self.channels = read, written, channels

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        parts = [
            convolution(take_channels(field, read))
            for convolution, read in zip(self.convolutions, self.read, strict=True)
        ]
        return place_channels(parts, self.written, self.channels)


class Affine(nn.Module):
    """``scale x + shift`` per channel, after padding with zeros."""

    scale: Tensor
    shift: Tensor

    def __init__(self, scale: Tensor, shift: Tensor, padding: int = 0) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)
        self.padding = padding

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        if self.padding:
            field = functional.pad(field, [self.padding] * (2 * (field.ndim - 2)))
        axes = (...,) + (None,) * (field.ndim - 2)
        return torch.addcmul(self.shift[axes], field, self.scale[axes])


class MatrixOverRotations(nn.Module):
    """Mix the rotations of a map with channels ``r * C + c`` by one matrix, all channels alike."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        by_rotation = field.unflatten(1, (self.matrix.shape[0], -1))
        return torch.einsum("rs,bscyx->brcyx", self.matrix.to(field), by_rotation).flatten(1, 2)


class SampleNorm(nn.Module):
    """Instance and group norm: moments of each sample by two matrices over channels.

    ``centre`` takes the channels' means to what is subtracted, ``pool`` their second moments to what divides.
    """

    centre: Tensor
    pool: Tensor
    weight: Tensor
    bias: Tensor

    def __init__(self, centre: Tensor, pool: Tensor, weight: Tensor, bias: Tensor, eps: float) -> None:
        super().__init__()
        for name, value in (("centre", centre), ("pool", pool), ("weight", weight), ("bias", bias)):
            self.register_buffer(name, value)
        self.eps = eps

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        variance, mean = torch.var_mean(field.flatten(2), dim=-1, correction=0)
        centre = mean @ self.centre.to(mean)
        second = (variance + (mean - centre).square()) @ self.pool.to(mean)
        scale = (second + self.eps).rsqrt() * self.weight.to(mean)
        axes = (...,) + (None,) * (field.ndim - 2)
        return torch.addcmul((self.bias.to(mean) - centre * scale)[axes], field, scale[axes])


class PlainGate(nn.Module):
    """Scalars through their functions, every other field scaled by a function of its own scalar.

    Parameters are lists: one entry per run of channels.
    """

    def __init__(
        self,
        scalars: Sequence[tuple[slice, str, float]],
        gated: Sequence[tuple[slice, str, float, slice, int]],
        bias: Tensor | None,
    ) -> None:
        super().__init__()
        self.scalars, self.gated = scalars, gated
        self.register_buffer("bias", bias)

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        bias = self.get_buffer("bias") if self.bias is not None else None
        if bias is not None:
            field = field + bias[(...,) + (None,) * (field.ndim - 2)]
        pieces = [_activate(name, factor, field[:, part]) for part, name, factor in self.scalars]
        for gate, name, factor, part, dimension in self.gated:
            size = _activate(name, factor, field[:, gate])
            block = field[:, part]
            if dimension == 1:
                pieces.append(size * block)
            else:
                pieces.append((size.unsqueeze(2) * block.unflatten(1, (-1, dimension))).flatten(1, 2))
        return torch.cat(pieces, dim=1) if len(pieces) > 1 else pieces[0]


def _activate(name: str, factor: float, value: Tensor) -> Tensor:
    """A function times its factor."""
    result = FUNCTIONS[name](value)
    return result if factor == 1.0 else result * factor


class Bands(nn.Module):
    """Low-pass with stride, or its transpose, as a banded matrix per axis; constants can be kept up to the border."""

    def __init__(self, taps: Sequence[Sequence[float]], stride: Triple, *, transposed: bool, normalise: bool) -> None:
        super().__init__()
        for axis, weights in zip("xyz", taps, strict=True):
            self.register_buffer(f"taps_{axis}", torch.tensor(list(weights), dtype=torch.float64))
        self.stride, self.transposed, self.normalise = stride, transposed, normalise

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        x, y, z = (self._band(axis, field.shape[axis + 2]).to(field) for axis in range(3))
        batch, channels = field.shape[0], field.shape[1]
        result = torch.matmul(y, torch.matmul(field, z.mT))
        height, width = result.shape[3], result.shape[4]
        return torch.matmul(x, result.flatten(3)).reshape(batch, channels, -1, height, width)

    def _band(self, axis: int, side: int) -> Tensor:
        """(out, in) matrix of an axis."""
        taps, stride = self.get_buffer(f"taps_{'xyz'[axis]}"), self.stride[axis]
        reach = taps.shape[0] // 2
        fine = torch.arange((side - 1) * stride + 1 if self.transposed else side, device=taps.device)
        coarse = torch.arange(side if self.transposed else (side - 1) // stride + 1, device=taps.device) * stride
        offset = fine[None, :] - coarse[:, None]
        if self.transposed:
            offset = offset.mT
        band = torch.where(offset.abs() <= reach, taps[offset.clamp(-reach, reach) + reach], 0.0)
        if self.normalise:
            return band / band.sum(1, keepdim=True)
        return band * stride if self.transposed else band


class WindowedMaximum(nn.Module):
    """In each window scalars by maximum, other fields whole where they are longest."""

    def __init__(self, blocks: Sequence[tuple[slice, int, bool]], window: Triple) -> None:
        super().__init__()
        self.blocks, self.window = blocks, window

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        pieces = []
        for part, dimension, signed in self.blocks:
            block = field[:, part]
            if signed:
                pieces.append(functional.max_pool3d(block, self.window))
                continue
            copies = block.unflatten(1, (-1, dimension))
            length = copies.square().sum(2) if dimension > 1 else block.abs()
            pooled, index = functional.max_pool3d(length, self.window, return_indices=True)
            chosen = index.flatten(2).unsqueeze(2).expand(-1, -1, dimension, -1)
            x, y, z = pooled.shape[2:]
            pieces.append(torch.gather(copies.flatten(3), 3, chosen).reshape(field.shape[0], -1, x, y, z))
        return torch.cat(pieces, dim=1)


class ChannelMixing(nn.Module):
    """A matrix over channels at every point, and a shift."""

    matrix: Tensor

    def __init__(self, matrix: Tensor, shift: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)
        self.register_buffer("shift", shift)

    def forward(self, field: Tensor) -> Tensor:
        """Apply."""
        flat = field.flatten(2) if field.ndim > 2 else field.unsqueeze(2)
        mixed = torch.matmul(self.matrix, flat)
        if self.shift is not None:
            mixed = mixed + self.get_buffer("shift")[:, None]
        return mixed.reshape(field.shape[0], -1, *field.shape[2:])
