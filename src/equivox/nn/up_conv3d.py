"""Steerable convolution to a finer grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.kernels.radial import RadialFamily
from equivox.kernels.sampled import TapFamily
from equivox.nn.conv3d import SteerableConv3d
from equivox.nn.lowpass import Upsample3d, VoxelSize


class SteerableUpConv3d(nn.Module):
    """What a transposed convolution is for, without its checkerboard: upsample, then convolve at stride 1.

    A transposed convolution uses another subset of its taps for every phase of the finer grid, so that kernels which
    are equivariant as a whole are not so phase by phase. Here every output voxel sees the whole kernel.

    Parameters
    ----------
    irreps_in, irreps_out, kernel_size, radial, generator, dtype, device
        As for :class:`SteerableConv3d`, on the finer grid.
    stride
        Factor from the coarse to the fine grid, one number or (x, y, z): a side of ``n`` becomes
        ``(n - 1) stride + 1``.
    voxel_size_mm
        Of the finer grid.

    Examples
    --------
    >>> SteerableUpConv3d("4x0e + 2x1o", "2x0e", 3)(torch.zeros(1, 10, 5, 5, 5)).shape
    torch.Size([1, 2, 9, 9, 9])
    """

    def __init__(
        self,
        irreps_in: IrrepsLike,
        irreps_out: IrrepsLike,
        kernel_size: int | Sequence[int] = 5,
        *,
        stride: int | Sequence[int] = 2,
        voxel_size_mm: VoxelSize = 1.0,
        radial: RadialFamily | TapFamily | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.irreps_in, self.irreps_out = Irreps(irreps_in), Irreps(irreps_out)
        self.upsample = Upsample3d(stride, voxel_size_mm=voxel_size_mm)
        self.convolution = SteerableConv3d(
            irreps_in,
            irreps_out,
            kernel_size,
            voxel_size_mm=voxel_size_mm,
            radial=radial,
            generator=generator,
            dtype=dtype,
            device=device,
        )

    def forward(self, field: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x2 y2 z2"]:
        """Apply."""
        result: Tensor = self.convolution(self.upsample(field))
        return result
