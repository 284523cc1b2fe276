"""Gaussian low-pass filters: anti-aliased strides and upsampling that keep equivariance (steerable 3.5)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.kernels.taps import edges_mm
from equivox.nn.grids import GridRule, Triple, require_symmetric_grid, triple

VoxelSize = float | int | Sequence[float | int]


@lru_cache(maxsize=64)
def gaussian_taps(scale: float, step: float = 1.0) -> tuple[float, ...]:
    """Normalised taps along one axis for content made coarser by ``scale`` steps of the finest axis.

    Parameters
    ----------
    scale
        In voxels of the finest axis, at least 1: ``sigma = sqrt(scale^2 - 1) / 2``, cut at ``2.5 sigma``.
    step
        Voxel of this axis over the finest one; taps lie at its multiples within the same length.
    """
    sigma = 0.5 * math.sqrt(scale * scale - 1.0)
    if sigma == 0.0:
        return (1.0,)
    count = int(1 + 5.0 * sigma)
    reach = int((count // 2) / step + 1e-9)
    weights = [math.exp(-0.5 * (index * step / sigma) ** 2) for index in range(-reach, reach + 1)]
    return tuple(weight / sum(weights) for weight in weights)


class LowPass3d(nn.Module):
    """Isotropic Gaussian low-pass with ``sigma = sqrt(scale^2 - 1) / 2`` voxels, and a stride.

    Applied channel by channel, so it suits every layout. It is applied axis by axis: a Gaussian is separable.

    Parameters
    ----------
    scale
        By how much the content is made coarser, at least 1; 2 before a stride of 2. In voxels of the finest axis.
    stride
        Voxels between outputs, one number or (x, y, z).
    normalize_border
        Divide by the filtered indicator of the volume, so that a constant stays constant up to the border. The
        published filters pad zeros, which darkens it.
    voxel_size_mm
        Edge of a voxel, one number or (x, y, z): the filter is isotropic in mm, with fewer taps along thick axes.
    grid
        ``"symmetric"`` refuses sides that the stride meets off centre, ``"any"`` takes all.

    Raises
    ------
    ConfigError
        If the scale or a stride is below 1.
    GridSymmetryError
        In ``forward``: ``side - 1`` must be a multiple of the stride (odd sides for 2), or turns are not exact.
    """

    def __init__(
        self,
        scale: float = 2.0,
        *,
        stride: int | Sequence[int] = 1,
        normalize_border: bool = False,
        voxel_size_mm: VoxelSize = 1.0,
        grid: GridRule = "symmetric",
    ) -> None:
        super().__init__()
        strides = (stride,) * 3 if isinstance(stride, int) else tuple(stride)
        if scale < 1.0 or len(strides) != 3 or min(strides) < 1:
            raise ConfigError(f"a low-pass of scale {scale} and stride {stride} does not exist; both are at least 1.")
        self.scale = float(scale)
        self.stride: Triple = (strides[0], strides[1], strides[2])
        self.normalize_border = normalize_border
        self.steps = relative_steps(voxel_size_mm)
        self.grid: GridRule = grid

    @property
    def taps(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """The filter along x, y and z, each of sum 1."""
        x, y, z = (gaussian_taps(self.scale, step) for step in self.steps)
        return x, y, z

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x_out y_out z_out"]:
        """Filter every channel and keep every ``stride``-th voxel."""
        if self.grid == "symmetric":
            require_symmetric_grid(field.shape[2:], (1, 1, 1), (0, 0, 0), self.stride, type(self).__name__)
        bands = []
        for side, taps, stride in zip(field.shape[2:], self.taps, self.stride, strict=True):
            band = band_matrix(field, side, taps, stride)
            bands.append(band / band.sum(1, keepdim=True) if self.normalize_border else band)
        return apply_bands(field, bands)

    def extra_repr(self) -> str:
        """Scale and stride."""
        return f"scale={self.scale}, stride={self.stride}"


class BlurPool3d(LowPass3d):
    """Anti-aliased subsampling: :class:`LowPass3d` of scale ``stride``, then every ``stride``-th voxel.

    Parameters
    ----------
    stride
        Factor by which sides shrink: ``side`` becomes ``(side - 1) / stride + 1``. One number or (x, y, z): axes with
        1 keep their voxels (the filter's scale is the largest).
    normalize_border
        Keep a constant constant up to the border (default).
    voxel_size_mm, grid
        As for :class:`LowPass3d`.
    """

    def __init__(
        self,
        stride: int | Sequence[int] = 2,
        *,
        normalize_border: bool = True,
        voxel_size_mm: VoxelSize = 1.0,
        grid: GridRule = "symmetric",
    ) -> None:
        super().__init__(
            float(max(triple(stride, "stride"))),
            stride=stride,
            normalize_border=normalize_border,
            voxel_size_mm=voxel_size_mm,
            grid=grid,
        )


class Upsample3d(nn.Module):
    """Spread a field over a finer grid by the transposed low-pass; undoes the sizes of :class:`BlurPool3d`.

    A side of ``n`` becomes ``(n - 1) stride + 1``: the old voxels keep their places, so the grid's centre stays, and
    nothing is stretched.

    Parameters
    ----------
    stride
        One number or (x, y, z).
    normalization
        ``"phase"``: every output voxel's weights sum to 1, so that a constant stays constant everywhere.
        ``"published"``: the low-pass times ``stride^3`` (e3nn), whose phases differ (for 2: by 0.85 to 1.16, a
        checkerboard) and which darkens the border.
    voxel_size_mm
        Of the finer grid, as for :class:`LowPass3d`.

    Notes
    -----
    A transposed steerable convolution would use some of a kernel's taps for each phase and lose what matches them;
    upsample, then convolve at stride 1: :class:`equivox.nn.SteerableUpConv3d`.
    """

    def __init__(
        self,
        stride: int | Sequence[int] = 2,
        *,
        normalization: Literal["phase", "published"] = "phase",
        voxel_size_mm: VoxelSize = 1.0,
    ) -> None:
        super().__init__()
        if normalization not in ("phase", "published"):
            raise ConfigError(f"normalization is 'phase' or 'published', got {normalization!r}.")
        self.stride = triple(stride, "stride")
        self.normalization = normalization
        self.steps = relative_steps(voxel_size_mm)

    @property
    def taps(self) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
        """The filter along x, y and z of the finer grid, each of sum 1; a single tap where nothing is spread."""
        scale = float(max(self.stride))
        x, y, z = (
            gaussian_taps(scale, step) if stride > 1 else (1.0,)
            for step, stride in zip(self.steps, self.stride, strict=True)
        )
        return x, y, z

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x_out y_out z_out"]:
        """Spread every channel."""
        bands = []
        for side, taps, stride in zip(field.shape[2:], self.taps, self.stride, strict=True):
            band = band_matrix(field, (side - 1) * stride + 1, taps, stride).mT
            bands.append(band / band.sum(1, keepdim=True) if self.normalization == "phase" else band * stride)
        return apply_bands(field, bands)

    def extra_repr(self) -> str:
        """Stride."""
        return f"stride={self.stride}, normalization={self.normalization}"


def relative_steps(voxel_size_mm: VoxelSize) -> tuple[float, float, float]:
    """Voxel edges along (x, y, z) over the smallest.

    Raises
    ------
    ConfigError
        If they are not one or three positive numbers.
    """
    x, y, z = edges_mm(voxel_size_mm)
    finest = min(x, y, z)
    return x / finest, y / finest, z / finest


def band_matrix(like: Tensor, side: int, taps: Sequence[float], stride: int) -> Float[Tensor, "out side"]:
    """Rows: the taps about every ``stride``-th voxel of an axis of ``side`` voxels; zero-padded."""
    weights = torch.tensor(list(taps), dtype=torch.float64, device="cpu").to(like)
    reach = len(taps) // 2
    kept = torch.arange(0, side, stride, device=like.device)
    offset = torch.arange(side, device=like.device)[None, :] - kept[:, None]
    return torch.where(offset.abs() <= reach, weights[offset.clamp(-reach, reach) + reach], weights.new_zeros(()))


def apply_bands(field: Tensor, bands: Sequence[Tensor]) -> Tensor:
    """A matrix along each axis; this beats convolutions of one channel each."""
    x, y, z = bands
    result = torch.matmul(y, torch.matmul(field, z.mT))
    return torch.matmul(x, result.flatten(3)).unflatten(3, result.shape[3:])
