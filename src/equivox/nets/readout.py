"""From nine numbers, one pseudovector and two vectors, to a rotation that says how far it can be trusted.

A head is mirror-symmetric about its sagittal plane, so a network that respects mirrors can name its left-right axis
only up to sign: that axis is a pseudovector and handedness settles its sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LEAST_CONDITION = 0.1
"""Below this sum of the two smaller singular values the rotation is ill-conditioned."""
LEAST_HANDEDNESS = 0.05
"""Below this smallest singular value the sign of the pseudovector is close to a coin flip."""


@dataclass(frozen=True, slots=True)
class ReadOut:
    """Rotations read from a batch of nine numbers, and their quality.

    Parameters
    ----------
    rotation
        Canonical to image coordinates, determinant +1 always; column ``i`` is canonical axis ``i`` in the image.
    singular_values
        Of the three normalised axes, largest first; all 1 where the axes are orthogonal.
    confidence
        Volume of the parallelepiped of the normalised axes, ``|det| = s1 s2 s3`` in [0, 1]: 1 where they are
        orthogonal, 0 where two of them agree, the three lie in one plane, or one vanishes.
    low_confidence
        Where the rotation is ill-conditioned (``s2 + s3`` below 0.1) or its handedness undecided (``s3`` below 0.05).
    """

    rotation: Float[Tensor, "*batch 3 3"]
    singular_values: Float[Tensor, "*batch 3"]
    confidence: Float[Tensor, "*batch"]
    low_confidence: Bool[Tensor, "*batch"]


def read_out(nine: Float[Tensor, "*batch 9"]) -> ReadOut:
    """Turn ``(pseudovector, vector, vector)`` into the nearest right-handed rotation, item by item.

    The three axes are normalised and stacked as columns; the pseudovector takes the sign that makes the determinant
    positive; ``R = U diag(1, 1, det(U V^T)) V^T`` of the singular value decomposition. Gradients pass where the
    singular values are distinct. Computed in float64, returned in the dtype of ``nine``.

    Parameters
    ----------
    nine
        Components (x, y, z) of the pseudovector and of the two vectors, in array-axis coordinates of the image.

    Raises
    ------
    ValueError
        If a number is NaN or infinite.

    References
    ----------
    .. [1] Muthukrishnan et al., arXiv 2512.04890, read-out of the E(3)-CNN.

    Examples
    --------
    >>> read_out(torch.tensor([-2.0, 0, 0, 0, 1.0, 0, 0, 0, 3.0])).rotation
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    if not bool(torch.isfinite(nine).all()):
        raise ValueError("the network returned NaN or infinite axes; look at the input volume and the weights")
    axes = nine.double().unflatten(-1, (3, 3))
    axes = axes / axes.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    columns = axes.mT
    determinant = torch.linalg.det(columns)
    sign = torch.where(determinant > 0, 1.0, -1.0)
    columns = torch.cat([columns[..., :1] * sign[..., None, None], columns[..., 1:]], dim=-1)
    left, singular_values, right = torch.linalg.svd(columns)
    handed = torch.linalg.det(left @ right)
    left = torch.cat([left[..., :2], left[..., 2:] * handed.sign()[..., None, None]], dim=-1)
    condition = singular_values[..., 1] + singular_values[..., 2]
    return ReadOut(
        rotation=(left @ right).to(nine.dtype),
        singular_values=singular_values.to(nine.dtype),
        confidence=determinant.abs().clamp(max=1.0).to(nine.dtype),
        low_confidence=(condition < LEAST_CONDITION) | (singular_values[..., 2] < LEAST_HANDEDNESS),
    )


def pool_axes(
    field: Float[Tensor, "batch 9 x y z"],
) -> Float[Tensor, "batch 9"]:
    """Pool the network's map over space, each item on its own.

    The pseudovector is taken at the voxel where it is longest (the first in raster order on ties); each of the two
    vectors is the mean of the voxels' unit vectors. So the norm of a pooled vector, in [0, 1], says how far the voxels
    agree.
    """
    flat = field.flatten(2)
    pseudo, vectors = flat[:, :3], flat[:, 3:].unflatten(1, (2, 3))
    longest = pseudo.square().sum(1).argmax(-1)
    chosen = pseudo.take_along_dim(longest[:, None, None], dim=2).squeeze(2)
    unit = vectors / vectors.norm(dim=2, keepdim=True).clamp_min(1e-12)
    mean = unit.sum(-1) / (flat.shape[-1] + 1e-8)
    return torch.cat([chosen, mean.flatten(1)], dim=1)


def axis_spread_deg(field: Float[Tensor, "batch 9 x y z"]) -> Float[Tensor, "batch"]:
    """How far the voxels' two vectors scatter about their mean direction: the mean angle in degrees."""
    vectors = field.flatten(2)[:, 3:].unflatten(1, (2, 3)).double()
    unit = vectors / vectors.norm(dim=2, keepdim=True).clamp_min(1e-12)
    mean = unit.mean(-1, keepdim=True)
    mean = mean / mean.norm(dim=2, keepdim=True).clamp_min(1e-12)
    cosine = (unit * mean).sum(2).clamp(-1.0, 1.0)
    return torch.rad2deg(torch.acos(cosine)).mean((1, 2)).to(field.dtype)
