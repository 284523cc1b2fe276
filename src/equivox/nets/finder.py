"""A network that finds a head in a whole stack: cubes of 2x2x2 voxels go into a U-Net, one logit per voxel comes out.

The U-Net works on the grid of the cubes, so a whole field of view at 4 mm costs what it would cost at 8 mm. What it
sees are three channels that depend little on the scanner's gain: squashed intensity, contrast against the
surroundings, and the field of view.
"""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.nets.unet import Norm, UNet

CUBE = 2
"""Voxels along the side of a cube that becomes one cell."""


class FinderNet(nn.Module):
    """Logit of "brain" at every voxel of a stack.

    Parameters
    ----------
    levels, features, norm
        Of the U-Net, see :class:`equivox.nets.unet.UNet`.
    contrast_cells
        Side, in cells, of the box against which local contrast is measured; odd.
    """

    def __init__(self, levels: int = 3, features: int = 16, *, norm: Norm = "batch", contrast_cells: int = 5) -> None:
        super().__init__()
        if contrast_cells < 1 or contrast_cells % 2 == 0:
            raise ValueError(f"contrast_cells must be odd and positive, got {contrast_cells}")
        self.contrast_cells = contrast_cells
        self.trunk = UNet(3 * CUBE**3, CUBE**3, levels, features, norm=norm)

    @property
    def divisor(self) -> int:
        """Every side of the input must be a multiple of this number of voxels."""
        return CUBE * self.trunk.divisor

    def forward(
        self, image: Float[Tensor, "batch 1 x y z"], valid: Float[Tensor, "batch 1 x y z"]
    ) -> Float[Tensor, "batch 1 x y z"]:
        """Logits. ``image`` is divided by the stack's bright level, ``valid`` is 1 inside the field of view."""
        channels = torch.cat([squash(image) * valid, local_contrast(image, valid, self.contrast_cells), valid], dim=1)
        return cells_to_voxels(self.trunk(voxels_to_cells(channels)))


def squash(image: Float[Tensor, "batch 1 x y z"]) -> Float[Tensor, "batch 1 x y z"]:
    """Map non-negative intensities to [0, 1): bright fat near the coil no longer dwarfs the rest."""
    bounded = image.clamp_min(0)
    return bounded / (bounded + 0.5)


def local_contrast(
    image: Float[Tensor, "batch 1 x y z"], valid: Float[Tensor, "batch 1 x y z"], cells: int
) -> Float[Tensor, "batch 1 x y z"]:
    """Intensity minus local mean over local spread, in a box of ``cells`` cubes inside the field of view, in [-3, 3].

    The moments are taken on averages over cubes and brought back by trilinear interpolation.
    """
    kept = squash(image) * valid
    moments = functional.avg_pool3d(torch.cat([kept, kept.square(), valid], dim=1), CUBE)
    for axis in range(3):
        window = [1, 1, 1]
        window[axis] = cells
        pad = [amount for side in reversed(window) for amount in (side // 2, side // 2)]
        moments = functional.avg_pool3d(functional.pad(moments, pad), window, stride=1)
    mean, square, weight = moments.split(1, dim=1)
    mean = mean / weight.clamp_min(1e-3)
    spread = (square / weight.clamp_min(1e-3) - mean.square()).clamp_min(0).sqrt()
    mean, spread = functional.interpolate(
        torch.cat([mean, spread], dim=1), scale_factor=float(CUBE), mode="trilinear", align_corners=False
    ).split(1, dim=1)
    return ((kept - mean) / (spread + 0.03)).clamp(-3, 3) * valid


def voxels_to_cells(field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel_out x2 y2 z2"]:
    """Stack each cube of voxels into channels; sides must be even."""
    batch, channels, x, y, z = field.shape
    cubes = field.reshape(batch, channels, x // CUBE, CUBE, y // CUBE, CUBE, z // CUBE, CUBE)
    return cubes.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(batch, channels * CUBE**3, x // CUBE, y // CUBE, z // CUBE)


def cells_to_voxels(field: Float[Tensor, "batch channel x y z"]) -> Float[Tensor, "batch channel_out x2 y2 z2"]:
    """Undo :func:`voxels_to_cells`."""
    batch, channels, x, y, z = field.shape
    cubes = field.reshape(batch, channels // CUBE**3, CUBE, CUBE, CUBE, x, y, z)
    return cubes.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, channels // CUBE**3, x * CUBE, y * CUBE, z * CUBE)
