"""The rotation of volumes as the published SOE does it, restated for parity and for its baselines.

Array axes are (z, y, x); the content moves by the inverse of the matrix; the centre is ``n // 2``, one voxel off on
even grids at right angles; coordinates are clamped to the smallest side. For anything else use
:func:`equivox.geometry.rotate.rotate_volume`.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor


def rotate_volume_published(
    volume: Float[Tensor, "batch channel z y x"],
    matrix: Float[Tensor, "3 3"],
    *,
    interpolation: Literal["trilinear", "nearest"] = "trilinear",
) -> Float[Tensor, "batch channel z y x"]:
    """``out(p) = in(R (p - c) + c)`` with ``p = (x, y, z)`` and ``c = (W // 2, H // 2, D // 2)``; one matrix for all.

    Parameters
    ----------
    volume
        Array axes (z, y, x).
    matrix
        Acts on column vectors (x, y, z); the target of a latent's rows ``V`` is ``V @ matrix``.
    interpolation
        ``"trilinear"`` between floor and ceiling, or ``"nearest"``: truncation of the clamped coordinate.

    References
    ----------
    .. [1] He et al., "SOE: SO(3)-Equivariant 3D MRI Encoding", MLCN 2024.
    """
    depth, height, width = volume.shape[2:]
    z, y, x = torch.meshgrid(
        *[torch.arange(side, dtype=torch.float32, device=volume.device) for side in (depth, height, width)],
        indexing="ij",
    )
    center = torch.tensor([width // 2, height // 2, depth // 2], dtype=torch.float32, device=volume.device)
    points = torch.stack([x, y, z], dim=-1).reshape(-1, 3) - center
    where = points @ matrix.to(points).mT + center
    where = where.clamp(0, min(depth, height, width) - 1)
    if interpolation == "nearest":
        return _at(volume, where.long())
    low = where.floor()
    share = (where - low).to(volume)
    result = torch.zeros_like(volume)
    for corner in range(8):
        upper = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1], device=volume.device, dtype=torch.bool)
        index = torch.where(upper, where.ceil(), low).long()
        weight = torch.where(upper, share, 1 - share).prod(dim=-1)
        result = result + _at(volume, index) * weight.view(volume.shape[2:])
    return result


def _at(volume: Tensor, index: Tensor) -> Tensor:
    """Values at integer points (x, y, z), shaped as the volume."""
    return volume[:, :, index[:, 2], index[:, 1], index[:, 0]].view(volume.shape)
