"""RELION's angles rot, tilt, psi and cryoSPARC's rotation vectors, as rotation matrices and back.

The matrix is that of RELION's convention: ``A = Rz(-psi) Ry(-tilt) Rz(-rot)`` with active right-handed rotations. It
takes volume coordinates to image coordinates, ``I(x, y) = ∫ V(Aᵀ (x, y, z)) dz``, so it is the rotation that turns the
particle into the pose that the image shows; its third row is the viewing direction in the volume's frame. CryoSPARC's
``alignments3D/pose`` is the rotation vector of ``Aᵀ``.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.rotations import rotation_from_vector, rotation_vector

POLE = 1e-9
"""Sine of the tilt below which rot and psi are not told apart; rot is then 0."""


def matrix_from_relion(
    rot_deg: Float[Tensor, "*batch"], tilt_deg: Float[Tensor, "*batch"], psi_deg: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3 3"]:
    """Rotation of ``rlnAngleRot``, ``rlnAngleTilt``, ``rlnAnglePsi`` in degrees; any angle is allowed.

    Examples
    --------
    >>> angles = torch.tensor([30.0, 0.0, 45.0], dtype=torch.float64)
    >>> matrix_from_relion(*angles)[1]  # rot and psi add up at the pole
    tensor([-0.9659,  0.2588,  0.0000], dtype=torch.float64)
    """
    phi, theta, psi = (torch.deg2rad(angle) for angle in (rot_deg, tilt_deg, psi_deg))
    cf, sf, ct, st, cp, sp = phi.cos(), phi.sin(), theta.cos(), theta.sin(), psi.cos(), psi.sin()
    rows = [
        torch.stack([cp * ct * cf - sp * sf, cp * ct * sf + sp * cf, -cp * st], dim=-1),
        torch.stack([-sp * ct * cf - cp * sf, -sp * ct * sf + cp * cf, sp * st], dim=-1),
        torch.stack([st * cf, st * sf, ct], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def relion_from_matrix(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Angles (rot, tilt, psi) in degrees, tilt in [0, 180]; at tilt 0 and 180 rot is 0.

    Examples
    --------
    >>> relion_from_matrix(torch.eye(3, dtype=torch.float64)).tolist()
    [0.0, 0.0, 0.0]
    """
    sine = torch.hypot(rotation[..., 2, 0], rotation[..., 2, 1])
    tilt = torch.atan2(sine, rotation[..., 2, 2])
    rot = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 0])
    rot = torch.where(sine < POLE, torch.zeros_like(rot), rot)
    # A Rz(rot) = Rz(-psi) Ry(-tilt), whose second column is (sin psi, cos psi, 0) at every tilt
    column = rot.cos()[..., None] * rotation[..., :, 1] - rot.sin()[..., None] * rotation[..., :, 0]
    psi = torch.atan2(column[..., 0], column[..., 1])
    return torch.rad2deg(torch.stack([rot, tilt, psi], dim=-1)) + 0.0  # no negative zeros


def rotation_vector_from_matrix(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """CryoSPARC's pose [rad]: the rotation vector of the transpose, of length at most pi."""
    return rotation_vector(rotation.mT.contiguous())


def matrix_from_rotation_vector(vector_rad: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation of cryoSPARC's ``alignments3D/pose`` [rad] in RELION's sense (its transpose taken)."""
    return rotation_from_vector(vector_rad).mT
