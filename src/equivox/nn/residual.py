"""Gated blocks of 3D steerable CNNs: a convolution with its norm, gate, dropout and stride, alone and residual.

Built as the published networks really are (steerable.md 3.4 to 3.6): the norm acts on the input of a convolution and is
without parameters, a residual block has one non-linearity (after its first convolution) and none after the sum, and its
shortcut is a whole convolution where the layout or the stride changes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.kernels.radial import GaussianShells, RadialFamily
from equivox.kernels.sampled import TapFamily
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.dropout import FieldDropout
from equivox.nn.gate import Gate
from equivox.nn.grids import GridRule
from equivox.nn.lowpass import LowPass3d
from equivox.nn.norm import FieldBatchNorm
from equivox.nn.pool import AveragePool3d

Subsample = Literal["plain", "lowpass", "average"]
"""How a stride is made: every n-th output of the convolution; a Gaussian low-pass of scale n after the gate; or an
average over windows of the kernel's size, the zeros of the padding counted."""


class PaddedBatchNorm(FieldBatchNorm):
    """Batch norm without parameters that pads zeros first, as published convolutions with a folded norm do.

    The statistics are those of the field, the padding is normalised with it: ``-mean / deviation`` in scalars. So a
    convolution without padding of the result is the published one up to the border.

    Parameters
    ----------
    irreps
        Channel layout.
    padding
        Voxels of zeros on each side.
    momentum, dtype, device
        As for :class:`FieldBatchNorm`; second moments are sums over components.
    """

    def __init__(
        self,
        irreps: IrrepsLike,
        padding: int = 0,
        *,
        momentum: float = 0.1,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__(irreps, momentum=momentum, affine=False, second_moment="norm", dtype=dtype, device=device)
        self.padding = padding

    def forward(self, field: Float[Tensor, "batch channel *space"]) -> Float[Tensor, "batch channel *padded"]:
        """Pad and normalise. In training the running statistics move."""
        if self.training:
            mean, second = self._moments(field.flatten(2), over_batch=True)
            with torch.no_grad():
                self.running_mean.lerp_(mean[0].to(self.running_mean), self.momentum)
                self.running_var.lerp_(second[0].to(self.running_var), self.momentum)
        else:
            mean, second = self.running_mean[None], self.running_var[None]
        return self._normalise(functional.pad(field, [self.padding] * (2 * (field.ndim - 2))), mean, second)


class GatedConv3d(nn.Module):
    """Norm of the input, steerable convolution, gate, dropout, stride: one block of a published network.

    Parameters
    ----------
    irreps_in, irreps_out
        Channel layouts of SO(3), or of O(3) with even scalars.
    kernel_size
        Taps per axis.
    padding
        Zeros on each side; ``"same"`` is half the kernel.
    stride, subsample
        Factor by which sides shrink, and how.
    norm
        ``"input"``: :class:`PaddedBatchNorm` before the convolution.
    momentum
        Of the norm.
    activation
        ReLU on scalars, sigmoid gates on all others, with learned biases; ``False``: the convolution alone.
    dropout
        Chance of a whole field to be dropped.
    radial
        Radial family; default: the published Gaussian shells on the whole cube.
    grid
        ``"symmetric"`` refuses sides that a stride meets off centre; ``"any"`` takes all, as the published networks do.

    Raises
    ------
    ConfigError
        If a value is out of range.
    GridSymmetryError
        In ``forward``, if a stride meets the grid off centre.
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_out: IrrepsLike,
        kernel_size: int = 5,
        *,
        padding: int | Literal["same"] = "same",
        stride: int = 1,
        subsample: Subsample = "lowpass",
        norm: Literal["input"] | None = None,
        momentum: float = 0.1,
        activation: bool = True,
        dropout: float = 0.0,
        radial: RadialFamily | TapFamily | None = None,
        grid: GridRule = "symmetric",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        if stride < 1 or (padding != "same" and padding < 0):
            raise ConfigError(
                f"a block with stride {stride} and padding {padding} does not exist; give 1 and 0 or more."
            )
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        scalars = Irreps([block for block in self.irreps_out if block[1].is_scalar])
        gated = Irreps([block for block in self.irreps_out if not block[1].is_scalar])
        self.gate = (
            Gate(scalars, gated, constants="none", bias=True, dtype=dtype, device=device) if activation else None
        )
        pad = kernel_size // 2 if padding == "same" else padding
        self.norm = (
            PaddedBatchNorm(self.irreps_in, pad, momentum=momentum, dtype=dtype, device=device) if norm else None
        )
        self.conv = SteerableConv3d(
            self.irreps_in,
            self.irreps_out if self.gate is None else self.gate.irreps_in,
            kernel_size,
            radial=GaussianShells.for_kernel(kernel_size, ball=False) if radial is None else radial,
            padding=0 if norm else pad,
            stride=stride if subsample == "plain" else 1,
            grid=grid,
            dtype=dtype,
            device=device,
        )
        self.dropout = FieldDropout(self.irreps_out, dropout) if dropout else None
        self.pool: nn.Module | None = None
        if stride > 1 and subsample == "lowpass":
            self.pool = LowPass3d(float(stride), stride=stride, grid=grid)
        elif stride > 1 and subsample == "average":
            self.pool = AveragePool3d(kernel_size, stride=stride, padding=kernel_size // 2, grid=grid)

    def forward(self, field: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x2 y2 z2"]:
        """Apply the block."""
        result: Tensor = self.conv(field if self.norm is None else self.norm(field))
        for layer in (self.gate, self.dropout, self.pool):
            if layer is not None:
                result = layer(result)
        return result


class GatedResidual3d(nn.Module):
    """Two convolutions and a shortcut (steerable.md 3.6): gate after the first, nothing after the sum.

    Parameters
    ----------
    irreps_in, irreps_between, irreps_out
        Layouts before, between and after the two convolutions.
    kernel_size
        Taps per axis, also of the shortcut.
    stride
        Of the first convolution and of the shortcut, by average pooling.
    momentum, dropout, radial, grid
        As for :class:`GatedConv3d`.

    Notes
    -----
    The shortcut is the identity where neither layout nor size changes, else a convolution of the same size.
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_between: IrrepsLike,
        irreps_out: IrrepsLike,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        momentum: float = 0.01,
        dropout: float = 0.0,
        radial: RadialFamily | TapFamily | None = None,
        grid: GridRule = "symmetric",
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)

        def block(before: IrrepsLike, after: IrrepsLike, stride: int, activation: bool) -> GatedConv3d:
            return GatedConv3d(
                before, after, kernel_size, stride=stride, subsample="average", norm="input", momentum=momentum,
                activation=activation, dropout=dropout, radial=radial, grid=grid, dtype=dtype, device=device,
            )  # fmt: skip

        self.first = block(irreps_in, irreps_between, stride, True)
        self.second = block(irreps_between, irreps_out, 1, False)
        changes = stride > 1 or self.irreps_in != self.irreps_out
        self.shortcut = block(irreps_in, irreps_out, stride, False) if changes else None

    def forward(self, field: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x2 y2 z2"]:
        """Apply the block."""
        around: Tensor = field if self.shortcut is None else self.shortcut(field)
        inside: Tensor = self.second(self.first(field))
        return inside + around
