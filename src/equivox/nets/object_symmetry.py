"""What a network can say of an object's rotation, given the object's own symmetry, and how it is read.

An equivariant network answers a symmetric object with symmetric fields, so what it is asked for has to be something
that the object's symmetry leaves alone:

========== ================================ ==========================================================================
symmetry   the object                       fields, pooled and read
========== ================================ ==========================================================================
``mirror`` looks the same mirrored in x     pseudovector x (up to sign; handedness settles it) and vectors y, z
``c2``     is the same after a half turn    vector z, and a tensor of degree 2, ``x x^T - y y^T``, in which x and y may
           about z                          change their signs together, as they do in the half turn
``none``   has no symmetry                  three vectors
========== ================================ ==========================================================================
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.harmonics import spherical_harmonics
from equivox.geometry.irreps import Irreps
from equivox.geometry.rotations import geodesic_angle, nearest_rotation, rotation_about
from equivox.nets.readout import LEAST_CONDITION, LEAST_HANDEDNESS, ReadOut, axis_spread_deg, pool_axes, read_out

ObjectSymmetry = Literal["mirror", "c2", "none"]


def output_irreps(symmetry: ObjectSymmetry, group: Literal["O3", "SO3"]) -> Irreps:
    """Fields of a network's output."""
    if symmetry == "c2":
        return Irreps("1x1o + 1x2e" if group == "O3" else "1x1 + 1x2")
    return Irreps("1x1e + 2x1o" if group == "O3" else "3x1")


def tensor_of_axes(first: Float[Tensor, "*batch 3"], second: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 5"]:
    """``first first^T - second second^T`` of two unit vectors at right angles, as a field of degree 2 and length 1."""
    both = [spherical_harmonics(2, axis, normalization="norm") for axis in (first, second)]
    return (both[0] - both[1]) / math.sqrt(3.0)


def pool_field(field: Float[Tensor, "batch channel x y z"], symmetry: ObjectSymmetry) -> Float[Tensor, "batch channel"]:
    """Pool a network's map over space: means of unit fields, but the mirror's pseudovector (see :func:`pool_axes`)."""
    if symmetry == "mirror":
        return pool_axes(field)
    flat = field.flatten(2)
    return torch.cat([_unit(part, 1).mean(-1) for part in _parts(flat, symmetry)], dim=1)


def read_field(field: Float[Tensor, "batch channel x y z"], symmetry: ObjectSymmetry) -> ReadOut:
    """Rotations from object to image coordinates of a network's map; one of the equivalent ones where there are more.

    Of ``c2`` the confidence is the product of the voxels' agreement on the two fields; of ``none`` the volume that the
    three axes span, 0 where they are left-handed.
    """
    pooled = pool_field(field, symmetry)
    if symmetry == "mirror":
        return read_out(pooled)
    if symmetry == "c2":
        return _read_half_turn(pooled)
    axes = _unit(pooled.double().unflatten(-1, (3, 3)), -1)
    columns = axes.mT
    volume = torch.linalg.det(columns).clamp(0.0, 1.0)
    values = torch.linalg.svdvals(columns)
    low = (values[..., 1] + values[..., 2] < LEAST_CONDITION) | (volume < LEAST_HANDEDNESS)
    rotation = nearest_rotation(columns)
    return ReadOut(rotation.to(field), values.to(field), volume.to(field), low)


def spread_deg(field: Float[Tensor, "batch channel x y z"], symmetry: ObjectSymmetry) -> Float[Tensor, "batch"]:
    """How far the voxels' vectors scatter about their mean: the mean angle [degrees]."""
    if symmetry != "c2":
        return axis_spread_deg(field)
    unit = _unit(field.flatten(2)[:, :3].double(), 1)
    mean = _unit(unit.mean(-1, keepdim=True), 1)
    return torch.rad2deg(torch.acos((unit * mean).sum(1).clamp(-1, 1))).mean(-1).to(field)


def symmetric_angle(
    first: Float[Tensor, "*batch 3 3"], second: Float[Tensor, "*batch 3 3"], symmetry: ObjectSymmetry
) -> Float[Tensor, "*batch"]:
    """Angle [rad] between two rotations from object to image, the smallest over the equivalent ones.

    A mirror leaves no two rotations equivalent, since it is none itself.
    """
    return geodesic_angle(first, nearest_equivalent(first, second, symmetry))


def nearest_equivalent(
    wanted: Float[Tensor, "*batch 3 3"], rotation: Float[Tensor, "*batch 3 3"], symmetry: ObjectSymmetry
) -> Float[Tensor, "*batch 3 3"]:
    """Of the rotations (object to image) that look like ``rotation`` the one that is nearest to ``wanted``."""
    if symmetry != "c2":
        return rotation
    other = rotation @ rotation_about("z", 180.0, dtype=rotation.dtype).to(rotation.device)
    nearer = geodesic_angle(wanted, other) < geodesic_angle(wanted, rotation)
    return torch.where(nearer[..., None, None], other, rotation)


def _read_half_turn(pooled: Float[Tensor, "*batch 8"]) -> ReadOut:
    """z, and in the plane across it the direction in which the tensor is largest."""
    work = pooled.double()
    vector, tensor = work[..., :3], work[..., 3:]
    z = _unit(vector, -1)
    helper = torch.eye(3, dtype=work.dtype, device=work.device)[z.abs().argmin(-1)]
    a = _unit(torch.linalg.cross(helper, z), -1)
    b = torch.linalg.cross(z, a)
    cosine = (tensor * tensor_of_axes(a, b)).sum(-1)
    sine = (tensor * tensor_of_axes(_unit(a + b, -1), _unit(a - b, -1))).sum(-1)
    angle = 0.5 * torch.atan2(sine, cosine)
    x = angle.cos()[..., None] * a + angle.sin()[..., None] * b
    rotation = torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)
    agreed, planar = vector.norm(dim=-1), torch.hypot(cosine, sine)
    confidence = (agreed * planar).clamp(0.0, 1.0)
    low = (agreed < LEAST_CONDITION) | (planar < LEAST_HANDEDNESS)
    values = torch.stack([torch.ones_like(agreed), agreed.clamp(max=1.0), planar.clamp(max=1.0)], dim=-1)
    return ReadOut(rotation.to(pooled), values.to(pooled), confidence.to(pooled), low)


def _parts(flat: Float[Tensor, "batch channel voxel"], symmetry: ObjectSymmetry) -> tuple[Tensor, ...]:
    return flat.split([3, 5] if symmetry == "c2" else [3, 3, 3], dim=1)


def _unit(vectors: Tensor, dim: int) -> Tensor:
    return vectors / vectors.norm(dim=dim, keepdim=True).clamp_min(1e-12)
