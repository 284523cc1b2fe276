"""A head's rotation from its two eyes and the shape of its brain: the landmark rule.

y runs from the brain's centre to the middle of the eyes, z stands upright on it and on the line from eye to eye, x
completes them. Which end of z is up is decided by the brain's long axis, since eyes lie low. The frame is then tilted
by 20 degrees about x.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from equivox.geometry.rotations import rotation_about

TILT_DEG = 20.0
NEIGHBOURS = ndimage.generate_binary_structure(3, 2)
"""18 neighbours: faces and edges."""


def rotation_from_eyes(brain: Bool[Tensor, "x y z"], eyes: Bool[Tensor, "x y z"]) -> Float[Tensor, "3 3"] | None:
    """Array axes from head axes; None unless there are exactly two eyes and a brain.

    Voxels must be isotropic. The sense of x, the left-right axis, is that of the components' numbering: arbitrary.

    References
    ----------
    .. [1] Muthukrishnan et al., arXiv 2512.04890, simulation of motion correction; the published code falls back on the
       identity without a word where the eyes are not two.
    """
    labels, count = ndimage.label(eyes.numpy(), structure=NEIGHBOURS)
    points = brain.nonzero().double()
    if count != 2 or len(points) < 4:
        return None
    found = torch.from_numpy(labels)
    first, second = ((found == number).nonzero().double().mean(0) for number in (1, 2))
    center = points.mean(0)
    across = _unit(second - first)
    forward = _unit((first + second) / 2 - center)
    upward = _unit(torch.linalg.cross(across, forward))
    offsets = points - center
    _, vectors = torch.linalg.eigh(offsets.mT @ offsets)
    normal = torch.linalg.cross(across, vectors[:, -1])
    if float(normal @ forward) > 0:
        normal = -normal
    if float(upward @ normal) < 0:
        upward = -upward
    across = torch.linalg.cross(forward, upward)
    return torch.stack([across, forward, upward], dim=1) @ rotation_about("x", TILT_DEG)


def _unit(vector: Tensor) -> Tensor:
    return vector / vector.norm().clamp_min(1e-12)
