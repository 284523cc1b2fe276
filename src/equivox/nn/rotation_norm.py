"""Norms for maps with rotations: one mean, one variance and one affine map per channel, shared by all rotations.

Statistics of single rotations would break the symmetry: turning the image permutes rotations (projection2d.md 2.5).
Channels are ordered ``r * C + c``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn


class RotationBatchNorm2d(nn.Module):
    """Batch norm over batch, rotations and pixels.

    Parameters
    ----------
    channels
        Per rotation.
    rotations
        How many; may be changed after training (:attr:`rotations`).
    eps, momentum
        As in ``BatchNorm2d``.
    """

    def __init__(
        self,
        channels: int,
        rotations: int,
        *,
        eps: float = 1e-5,
        momentum: float = 0.1,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.rotations = channels, rotations
        self.norm = nn.BatchNorm2d(channels, eps=eps, momentum=momentum, dtype=dtype, device=device)

    def forward(self, field: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel y x"]:
        """Normalise; some of the rotations may be given only, in evaluation."""
        folded = _by_rotation(field, self.channels, type(self).__name__)
        normed: Tensor = self.norm(folded)
        return normed.reshape(field.shape)

    def affine_map(self) -> tuple[Tensor, Tensor]:
        """Scale and shift per channel (of all rotations) in evaluation."""
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        scale = self.norm.weight * (self.norm.running_var + self.norm.eps).rsqrt()
        shift = self.norm.bias - self.norm.running_mean * scale
        return scale.repeat(self.rotations), shift.repeat(self.rotations)

    def extra_repr(self) -> str:
        """Rotations."""
        return f"rotations={self.rotations}"


class RotationLayerNorm2d(nn.Module):
    """Layer norm over the channels of each rotation and pixel: independent of the batch, for small maps.

    Parameters
    ----------
    channels
        Per rotation.
    eps
        Added to the variance.
    """

    def __init__(
        self,
        channels: int,
        *,
        eps: float = 1e-5,
        dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels, dtype=dtype, device=device))
        self.bias = nn.Parameter(torch.zeros(channels, dtype=dtype, device=device))

    def forward(self, field: Float[Tensor, "batch channel y x"]) -> Float[Tensor, "batch channel y x"]:
        """Normalise."""
        folded = _by_rotation(field, self.channels, type(self).__name__).movedim(1, -1)
        normed = functional.layer_norm(folded, (self.channels,), self.weight, self.bias, self.eps)
        return normed.movedim(-1, 1).reshape(field.shape)


def _by_rotation(field: Tensor, channels: int, name: str) -> Tensor:
    """(batch * rotation, channel, y, x)."""
    if field.shape[1] % channels:
        raise ValueError(f"{name} expects rotations x {channels} channels, got {field.shape[1]}: wrong layout?")
    return field.reshape(-1, channels, *field.shape[2:])
