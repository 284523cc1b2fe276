"""Gaussian low-pass filters: anti-aliased strides that keep equivariance (steerable 3.5)."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError


@lru_cache(maxsize=64)
def _gaussian_taps(scale: float) -> tuple[float, ...]:
    """Normalised taps along one axis for a grid made coarser by ``scale``."""
    sigma = 0.5 * math.sqrt(scale * scale - 1.0)
    if sigma == 0.0:
        return (1.0,)
    count = int(1 + 5.0 * sigma)
    count += 1 - count % 2
    weights = [math.exp(-0.5 * ((index - count // 2) / sigma) ** 2) for index in range(count)]
    return tuple(weight / sum(weights) for weight in weights)


class LowPass3d(nn.Module):
    """Isotropic Gaussian low-pass with ``sigma = sqrt(scale^2 - 1) / 2`` voxels, and a stride.

    Applied channel by channel, so it suits every layout. It is applied axis by axis: a Gaussian is separable.

    Parameters
    ----------
    scale
        By how much the content is made coarser, at least 1; 2 before a stride of 2.
    stride
        Voxels between outputs.
    normalize_border
        Divide by the filtered indicator of the volume, so that a constant stays constant up to the border. The
        published filters pad zeros, which darkens it.

    Raises
    ------
    ConfigError
        If the scale is below 1.

    Notes
    -----
    A stride of 2 meets the grid symmetrically, and so keeps quarter turns exactly, on odd sides.
    """

    def __init__(self, scale: float = 2.0, *, stride: int = 1, normalize_border: bool = False) -> None:
        super().__init__()
        if scale < 1.0 or stride < 1:
            raise ConfigError(f"a low-pass of scale {scale} and stride {stride} does not exist; both are at least 1.")
        self.scale = float(scale)
        self.stride = stride
        self.normalize_border = normalize_border

    def forward(self, field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel x_out y_out z_out"]:
        """Filter every channel and keep every ``stride``-th voxel."""
        result = self._filter(field)
        if self.normalize_border:
            result = result / self._filter(torch.ones_like(field[:1, :1]))
        return result

    def _filter(self, field: Tensor) -> Tensor:
        """Zero-padded separable filter with stride: a banded matrix per axis beats one-channel kernels."""
        x, y, z = (self._band(field, side) for side in field.shape[2:])
        result = torch.matmul(y, torch.matmul(field, z.mT))
        return torch.matmul(x, result.flatten(3)).unflatten(3, result.shape[3:])

    def _band(self, field: Tensor, side: int) -> Tensor:
        """(out, in): the taps about every ``stride``-th voxel of an axis of ``side`` voxels."""
        taps = torch.tensor(_gaussian_taps(self.scale), dtype=torch.float64, device="cpu").to(field)
        reach = len(taps) // 2
        kept = torch.arange(0, side, self.stride, device=field.device)
        offset = torch.arange(side, device=field.device)[None, :] - kept[:, None]
        return torch.where(offset.abs() <= reach, taps[offset.clamp(-reach, reach) + reach], taps.new_zeros(()))

    def extra_repr(self) -> str:
        """Scale and stride."""
        return f"scale={self.scale}, stride={self.stride}"


class BlurPool3d(LowPass3d):
    """Anti-aliased subsampling: :class:`LowPass3d` of scale ``stride``, then every ``stride``-th voxel.

    Parameters
    ----------
    stride
        Factor by which sides shrink (rounded up).
    normalize_border
        Keep a constant constant up to the border (default).
    """

    def __init__(self, stride: int = 2, *, normalize_border: bool = True) -> None:
        super().__init__(float(stride), stride=stride, normalize_border=normalize_border)
