"""The four 4x4 matrices that the original writes, from a pose in the world."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import Pose, nearest_rotation


def published_matrix(
    world_from_head: Pose,
    affine: Float[Tensor, "4 4"],
    *,
    scanner_space: bool = False,
    input_to_canonical: bool = False,
) -> Float[Tensor, "4 4"]:
    """A pose in the original's frame and direction, float64, its 3x3 part always a rotation.

    ========================= ===================================================================================
    flags                     maps
    ========================= ===================================================================================
    none                      head to voxel indices of the file: rotation along the array axes, centre in voxels.
                              Not a map between two metric frames where voxels are not 1 mm cubes
    scanner_space             head to world (RAS mm)
    input_to_canonical        inverse of the first
    both                      world to head
    ========================= ===================================================================================

    Parameters
    ----------
    world_from_head
        The pose.
    affine
        Of the input file: voxel index to world mm.
    scanner_space, input_to_canonical
        The original's flags.

    Notes
    -----
    A left-handed file has no rotation from head to array axes that is also right in the world. There the head's
    left-right axis, whose sense means nothing to the networks, is reversed in the voxel frame, so that the matrix is a
    rotation as in the original; the world matrices are right and proper (the original's had determinant -1).
    """
    rotation = world_from_head.rotation.double().cpu()
    center = world_from_head.translation_mm.double().cpu()
    if not scanner_space:
        work = affine.double()
        direction = work[:3, :3] / work[:3, :3].norm(dim=0)
        rotation = direction.mT @ rotation
        if float(torch.linalg.det(rotation)) < 0:
            rotation = torch.cat([-rotation[:, :1], rotation[:, 1:]], dim=1)
        rotation = nearest_rotation(rotation)
        center = torch.linalg.solve(work[:3, :3], center - work[:3, 3])
    return matrix_of(rotation, center, inverse=input_to_canonical)


def matrix_of(
    rotation: Float[Tensor, "3 3"], center: Float[Tensor, "3"], *, inverse: bool = False
) -> Float[Tensor, "4 4"]:
    """``[rotation, center]`` as 4x4 float64, or its inverse."""
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation.mT if inverse else rotation
    matrix[:3, 3] = -(rotation.mT @ center) if inverse else center
    return matrix
