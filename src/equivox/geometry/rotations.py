"""Rotations in three dimensions, and rigid poses between named frames.

A rotation is a 3x3 matrix that acts on column vectors from the left, ``v' = R v``. Quaternions are scalar last,
``(x, y, z, w)``, with ``w >= 0``. Everything here is a pure function of tensors; conversions rest on RoMa.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import GeometryError

ROTATION_TOLERANCE = 1e-4
"""How far ``R^T R`` may be from the identity, and det from +1, for a matrix to be called a rotation."""


def require_rotation(matrix: Float[Tensor, "*batch 3 3"], *, name: str = "rotation") -> None:
    """Raise :class:`GeometryError` unless every matrix is orthogonal with determinant +1 within 1e-4."""
    if not bool(torch.isfinite(matrix).all()):
        raise GeometryError(f"{name} holds NaN or infinite entries; give a finite 3x3 matrix.")
    work = matrix.double()
    identity = torch.eye(3, dtype=torch.float64, device=matrix.device)
    worst = float((work.mT @ work - identity).abs().max()) if work.numel() else 0.0
    if worst > ROTATION_TOLERANCE:
        raise GeometryError(f"{name} is not orthogonal (R^T R differs from 1 by {worst:.2g}); give a 3x3 rotation.")
    smallest = float(torch.linalg.det(work).min()) if work.numel() else 1.0
    if smallest < 0:
        raise GeometryError(f"{name} has determinant {smallest:+.3f}: a reflection; give one with determinant +1.")


@dataclass(frozen=True, slots=True)
class Pose:
    """Rigid transform between two named frames: ``p_target = rotation @ p_source + translation_mm``.

    Parameters
    ----------
    rotation
        3x3, determinant +1 (checked within 1e-4).
    translation_mm
        Position of the source frame's origin in the target frame, in mm.
    source, target
        Names of the frames, for example ``"head"`` and ``"world"``.

    Raises
    ------
    GeometryError
        If ``rotation`` is not a rotation or a number is not finite.

    Examples
    --------
    >>> world_from_head = Pose(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]), source="head", target="world")
    >>> world_from_head.inverse().apply(torch.tensor([[1.0, 2.0, 3.0]]))
    tensor([[0., 0., 0.]])
    """

    rotation: Float[Tensor, "3 3"]
    translation_mm: Float[Tensor, "3"]
    source: str
    target: str

    def __post_init__(self) -> None:
        require_rotation(self.rotation, name=f"rotation of {self.target}_from_{self.source}")
        if not bool(torch.isfinite(self.translation_mm).all()):
            raise GeometryError(f"translation of {self.target}_from_{self.source} is not finite.")

    @classmethod
    def from_matrix(cls, matrix: Float[Tensor, "4 4"], *, source: str, target: str) -> Pose:
        """Read a homogeneous 4x4 matrix whose last row is (0, 0, 0, 1)."""
        return cls(matrix[:3, :3].clone(), matrix[:3, 3].clone(), source=source, target=target)

    def matrix(self) -> Float[Tensor, "4 4"]:
        """Homogeneous 4x4 matrix, ``target_from_source``."""
        full = torch.eye(4, dtype=self.rotation.dtype, device=self.rotation.device)
        full[:3, :3] = self.rotation
        full[:3, 3] = self.translation_mm
        return full

    def inverse(self) -> Pose:
        """Swap source and target."""
        back = self.rotation.mT
        return Pose(back, -(back @ self.translation_mm), source=self.target, target=self.source)

    def compose(self, other: Pose) -> Pose:
        """``target_from_source`` after ``other``: the frames must meet (``other.target == self.source``)."""
        if other.target != self.source:
            raise GeometryError(
                f"{self.target}_from_{self.source} cannot follow {other.target}_from_{other.source}: "
                f"the frames {self.source!r} and {other.target!r} differ."
            )
        return Pose(
            self.rotation @ other.rotation,
            self.rotation @ other.translation_mm + self.translation_mm,
            source=other.source,
            target=self.target,
        )

    def apply(self, points_mm: Float[Tensor, "*points 3"]) -> Float[Tensor, "*points 3"]:
        """Map points from the source frame to the target frame."""
        return points_mm @ self.rotation.mT + self.translation_mm

    def quaternion_xyzw(self) -> Float[Tensor, "4"]:
        """Unit quaternion, scalar last, ``w >= 0``."""
        return quaternion_from_rotation(self.rotation)

    def euler_xyz_deg(self) -> Float[Tensor, "3"]:
        """Angles about the fixed axes x, then y, then z: ``R = Rz Ry Rx``, in degrees."""
        return torch.rad2deg(euler_xyz_from_rotation(self.rotation))


def rotation_about(axis: str, angle_deg: float, *, dtype: torch.dtype = torch.float64) -> Float[Tensor, "3 3"]:
    """Rotation by ``angle_deg`` about one coordinate axis (``"x"``, ``"y"`` or ``"z"``), right-hand rule.

    Quarter turns are exact.

    Examples
    --------
    >>> rotation_about("z", 90.0) @ torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    tensor([0., 1., 0.], dtype=torch.float64)
    """
    quarter, rest = divmod(angle_deg, 90.0)
    if rest == 0.0:
        cosine, sine = [(1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)][int(quarter) % 4]
    else:
        cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    first, second = {"x": (1, 2), "y": (2, 0), "z": (0, 1)}[axis]
    matrix = torch.eye(3, dtype=dtype)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[second, first] = sine
    matrix[first, second] = -sine
    return matrix


def random_rotations(
    count: int, *, generator: torch.Generator, dtype: torch.dtype = torch.float64, max_angle_deg: float | None = None
) -> Float[Tensor, "count 3 3"]:
    """Rotations uniform on SO(3) (normalised Gaussian quaternions; mean angle 126.5 degrees).

    With ``max_angle_deg`` the draw is uniform on the ball of rotations up to that angle: the axis is uniform on the
    sphere and the angle ``w`` has the density ``1 - cos w`` of the Haar measure, cut at the limit.
    """
    device = generator.device
    if max_angle_deg is None or max_angle_deg >= 180.0:
        quaternion = torch.randn(count, 4, generator=generator, dtype=torch.float64, device=device)
        return rotation_from_quaternion(quaternion).to(dtype)
    axis = torch.randn(count, 3, generator=generator, dtype=torch.float64, device=device)
    limit = math.radians(max_angle_deg)
    level = torch.rand(count, generator=generator, dtype=torch.float64, device=device) * (limit - math.sin(limit))
    low, high = torch.zeros_like(level), torch.full_like(level, limit)
    for _ in range(60):  # bisection of w - sin w = level, monotone
        middle = 0.5 * (low + high)
        above = middle - middle.sin() > level
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    return rotation_from_vector(axis / axis.norm(dim=-1, keepdim=True) * low[:, None]).to(dtype)


def rotation_from_vector(rotation_vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Exponential map: axis times angle [rad] to rotation."""
    return _roma().rotvec_to_rotmat(rotation_vector)


def rotation_vector(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Logarithm: rotation to axis times angle [rad], angle in [0, pi]."""
    return _roma().rotmat_to_rotvec(rotation)


def quaternion_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4"]:
    """Unit quaternions ``(x, y, z, w)`` with ``w >= 0``."""
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    rows = []
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):  # the largest component first: Shepperd's four cases
        row: list[Tensor] = [trace] * 4
        row[i] = 1.0 - trace + 2.0 * rotation[..., i, i]
        row[j] = rotation[..., j, i] + rotation[..., i, j]
        row[k] = rotation[..., k, i] + rotation[..., i, k]
        row[3] = rotation[..., k, j] - rotation[..., j, k]
        rows.append(torch.stack(row, dim=-1))
    last = [rotation[..., k, j] - rotation[..., j, k] for j, k in ((1, 2), (2, 0), (0, 1))]
    rows.append(torch.stack([*last, 1.0 + trace], dim=-1))
    largest = torch.cat([rotation.diagonal(dim1=-2, dim2=-1), trace[..., None]], dim=-1).argmax(dim=-1)
    case = largest[..., None, None].expand(*largest.shape, 1, 4)
    quaternion = torch.stack(rows, dim=-2).gather(-2, case)[..., 0, :]
    quaternion = quaternion / quaternion.norm(dim=-1, keepdim=True)
    return torch.where(quaternion[..., 3:] < 0, -quaternion, quaternion)


def rotation_from_quaternion(quaternion_xyzw: Float[Tensor, "*batch 4"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation of a quaternion, scalar last, of any non-zero length."""
    x, y, z, w = (quaternion_xyzw / quaternion_xyzw.norm(dim=-1, keepdim=True)).unbind(-1)
    rows = [
        torch.stack([1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)], dim=-1),
        torch.stack([2.0 * (x * y + z * w), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - x * w)], dim=-1),
        torch.stack([2.0 * (x * z - y * w), 2.0 * (y * z + x * w), 1.0 - 2.0 * (x * x + y * y)], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def euler_xyz_from_rotation(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3"]:
    """Angles [rad] about fixed axes x, y, z with ``R = Rz(c) Ry(b) Rx(a)``; at ``|b| = 90`` degrees, ``c = 0``."""
    sine = (-rotation[..., 2, 0]).clamp(-1.0, 1.0)
    b = torch.asin(sine)
    locked = sine.abs() > 1.0 - 1e-12
    a = torch.atan2(rotation[..., 2, 1], rotation[..., 2, 2])
    c = torch.atan2(rotation[..., 1, 0], rotation[..., 0, 0])
    a_locked = torch.atan2(sine.sign() * rotation[..., 0, 1], rotation[..., 1, 1])
    return torch.stack([torch.where(locked, a_locked, a), b, torch.where(locked, torch.zeros_like(c), c)], dim=-1)


def rotation_from_euler_xyz(angles: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation about the fixed axes x, then y, then z by ``angles`` [rad]: ``R = Rz Ry Rx`` (SciPy's ``"xyz"``)."""
    return _roma().euler_to_rotmat("xyz", [angles[..., 0], angles[..., 1], angles[..., 2]])


def rotation_angle(rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle of each rotation in [0, pi] rad, accurate for small angles too."""
    skew = torch.stack(
        [
            rotation[..., 2, 1] - rotation[..., 1, 2],
            rotation[..., 0, 2] - rotation[..., 2, 0],
            rotation[..., 1, 0] - rotation[..., 0, 1],
        ],
        dim=-1,
    )
    trace = rotation.diagonal(dim1=-2, dim2=-1).sum(-1)
    return torch.atan2(skew.norm(dim=-1), trace - 1.0)


def geodesic_angle(first: Float[Tensor, "*batch 3 3"], second: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch"]:
    """Angle [rad] of the rotation that turns one into the other."""
    return rotation_angle(first.mT @ second)


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """Rotation nearest in the Frobenius norm, determinant +1 always (special orthogonal Procrustes)."""
    if not torch.compiler.is_compiling():
        _keep_outside_inference(matrix.device)
    return _roma().special_procrustes(matrix)


def chordal_mean(
    rotations: Float[Tensor, "*batch count 3 3"], weights: Float[Tensor, "*batch count"] | None = None
) -> Float[Tensor, "*batch 3 3"]:
    """Rotation that minimises the sum of squared Frobenius distances to the given ones."""
    total = rotations.sum(-3) if weights is None else (rotations * weights[..., None, None]).sum(-3)
    return nearest_rotation(total)


@lru_cache(maxsize=2)
def _cube_symmetries(improper: bool) -> Tensor:
    matrices = []
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            matrix = torch.zeros(3, 3, dtype=torch.float64)
            for row, (column, sign) in enumerate(zip(order, signs, strict=True)):
                matrix[row, column] = sign
            if improper or float(torch.linalg.det(matrix)) > 0:
                matrices.append(matrix)
    matrices.sort(key=lambda m: -float(m.trace()))
    return torch.stack(matrices)


def cube_group(*, improper: bool = False) -> Float[Tensor, "count 3 3"]:
    """The 24 rotations of the cube, identity first; with ``improper`` all 48 symmetries."""
    return _cube_symmetries(improper).clone()


@lru_cache
def _keep_outside_inference(device: torch.device) -> None:
    """Let the library make what it keeps per device now: made in inference mode, it would refuse gradients later."""
    with torch.inference_mode(False):
        _roma().special_procrustes(torch.eye(3, device=device))


def _roma() -> Any:
    """The library of conversions, loaded when it is needed: its import loads torch's compiler, 1.5 CPU seconds."""
    import roma

    return roma
