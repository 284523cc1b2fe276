"""The segmentation U-Net of E(3)-Pose: plain convolutions, sizes as parameters.

At the defaults it is the published network (1,460,323 parameters). One norm at the end of each block, after the second
activation, is the published order.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

Activation = Literal["elu", "relu"]
Norm = Literal["batch", "instance", "group"]


class ConvBlock(nn.Module):
    """Two 3x3x3 convolutions with activations, then one norm.

    Parameters
    ----------
    channels_in, channels_out
        Channels before and after.
    activation
        ``"elu"`` (alpha 1) or ``"relu"``.
    norm
        ``"batch"`` as published; ``"instance"`` or ``"group"`` (8 channels a group, or one group of all channels where
        8 does not divide them) do not depend on the batch, so that training at batch size 1 works.
    """

    def __init__(self, channels_in: int, channels_out: int, *, activation: Activation, norm: Norm) -> None:
        super().__init__()
        self.first = nn.Conv3d(channels_in, channels_out, 3, padding=1)
        self.second = nn.Conv3d(channels_out, channels_out, 3, padding=1)
        self.norm = _make_norm(norm, channels_out)
        self.activation = activation

    def forward(self, field: Float[Tensor, "batch channel_in x y z"]) -> Float[Tensor, "batch channel_out x y z"]:
        """Apply the block; the grid keeps its size."""
        field = self._activate(self.first(field))
        field = self._activate(self.second(field))
        return self.norm(field)

    def _activate(self, field: Tensor) -> Tensor:
        """Work in place: a convolution's backward does not need its own output."""
        return functional.elu_(field) if self.activation == "elu" else functional.relu_(field)


class UNet(nn.Module):
    """Encoder and decoder with skip connections, from an image to one logit per class and voxel.

    Level ``l`` has ``features * multiplier**l`` channels; levels are joined by max-pooling and by trilinear
    upsampling (the skip comes first in the concatenation). No final activation.

    Parameters
    ----------
    channels_in
        Channels of the image.
    classes
        Classes, background included.
    levels
        Resolution levels: one more than poolings.
    features
        Channels of the finest level.
    multiplier
        Factor of the channels from one level to the next.
    activation, norm
        See :class:`ConvBlock`.

    Raises
    ------
    ValueError
        If a size is not positive, or in ``forward`` if a side is not a multiple of ``2**(levels - 1)``.

    References
    ----------
    .. [1] Muthukrishnan et al., "Equivariant Symmetry-Aware Head Pose Estimation for Fetal MRI", arXiv 2512.04890.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in UNet().parameters())
    1460323
    """

    def __init__(
        self,
        channels_in: int = 1,
        classes: int = 3,
        levels: int = 4,
        features: int = 16,
        multiplier: int = 2,
        *,
        activation: Activation = "elu",
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if min(channels_in, classes, levels, features, multiplier) < 1:
            raise ValueError(
                f"sizes of a UNet must be positive, got channels_in={channels_in}, classes={classes}, "
                f"levels={levels}, features={features}, multiplier={multiplier}"
            )
        if activation not in ("elu", "relu"):
            raise ValueError(f"activation must be 'elu' or 'relu', got {activation!r}")
        widths = [features * multiplier**level for level in range(levels)]
        self.levels = levels
        self.encoder = nn.ModuleList(
            ConvBlock(before, after, activation=activation, norm=norm)
            for before, after in zip([channels_in, *widths[:-1]], widths, strict=True)
        )
        self.decoder = nn.ModuleList(
            ConvBlock(widths[level] + widths[level + 1], widths[level], activation=activation, norm=norm)
            for level in reversed(range(levels - 1))
        )
        self.head = nn.Conv3d(widths[0], classes, 1)

    @property
    def divisor(self) -> int:
        """Every side of the input must be a multiple of this number of voxels."""
        return 2 ** (self.levels - 1)

    def forward(self, image: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch class x y z"]:
        """Logits of every class at every voxel."""
        if any(side % self.divisor for side in image.shape[-3:]):
            raise ValueError(
                f"every side must be a multiple of {self.divisor} voxels for {self.levels} levels, "
                f"got {tuple(image.shape[-3:])}; pad or crop the volume"
            )
        skips: list[Tensor] = []
        field = image
        for level, block in enumerate(self.encoder):
            if level:
                skips.append(field)
                field = functional.max_pool3d(field, 2)
            field = block(field)
        for block in self.decoder:
            field = functional.interpolate(field, scale_factor=2.0, mode="trilinear", align_corners=False)
            field = torch.cat([skips.pop(), field], dim=1)
            field = block(field)
        return self.head(field)


def _make_norm(norm: Norm, channels: int) -> nn.Module:
    """Build the norm of a block with learned scale and shift."""
    if norm == "batch":
        return nn.BatchNorm3d(channels)
    if norm == "instance":
        return nn.InstanceNorm3d(channels, affine=True)
    if norm == "group":
        return nn.GroupNorm(channels // 8 if channels % 8 == 0 else 1, channels)
    raise ValueError(f"norm must be 'batch', 'instance' or 'group', got {norm!r}")
