"""Coupling tensors (real 3j symbols) and rotation matrices of irreps, in float64.

Conventions: the harmonics of :mod:`equivox.geometry.harmonics`, ``Y(R p) = D(R) Y(p)``. The sign of a coupling tensor
is that of the Condon-Shortley Clebsch-Gordan coefficients carried to the real basis; degree (1, 1, 1) is the
Levi-Civita symbol over ``sqrt(6)``.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError, GeometryError
from equivox.geometry.irreps import Irreps, IrrepsLike
from equivox.geometry.rotations import ROTATION_TOLERANCE


@lru_cache(maxsize=512)
def _coupling(first: int, second: int, third: int) -> Tensor:
    """Cached float64 coupling tensor; callers must not write to it."""
    raw = np.zeros((2 * first + 1, 2 * second + 1, 2 * third + 1))
    for m1 in range(-first, first + 1):
        for m2 in range(-second, second + 1):
            if abs(m1 + m2) <= third:
                raw[first + m1, second + m2, third + m1 + m2] = _clebsch_gordan(first, m1, second, m2, third, m1 + m2)
    q1, q2, q3 = _complex_from_real(first), _complex_from_real(second), _complex_from_real(third)
    real = np.einsum("ij,kl,nm,ikn->jlm", q1, q2, q3.conj(), raw).real
    return torch.from_numpy(np.ascontiguousarray(real / np.linalg.norm(real)))


def coupling_tensor(first: int, second: int, third: int) -> Float[Tensor, "first second third"]:
    """Invariant tensor of three degrees: ``C`` with ``(D1 x D2 x D3) C = C``, Frobenius norm 1, float64.

    Raises
    ------
    ConfigError
        If the degrees do not satisfy the triangle inequality: no such tensor exists.

    Examples
    --------
    >>> coupling_tensor(1, 1, 0)[0, 0, 0].item() * 3**0.5
    1.0...
    """
    if min(first, second, third) < 0 or not abs(first - second) <= third <= first + second:
        raise ConfigError(f"degrees {first}, {second}, {third} do not couple: each must be at most the others' sum.")
    return _coupling(first, second, third).clone()


def _clebsch_gordan(j1: int, m1: int, j2: int, m2: int, j3: int, m3: int) -> float:
    """``<j1 m1 j2 m2 | j3 m3>`` by Racah's formula in exact fractions."""
    f = math.factorial
    prefactor = Fraction((2 * j3 + 1) * f(j3 + j1 - j2) * f(j3 - j1 + j2) * f(j1 + j2 - j3), f(j1 + j2 + j3 + 1)) * (
        f(j3 + m3) * f(j3 - m3) * f(j1 - m1) * f(j1 + m1) * f(j2 - m2) * f(j2 + m2)
    )
    total = Fraction(0)
    for k in range(max(0, j2 - j3 - m1, j1 - j3 + m2), min(j1 + j2 - j3, j1 - m1, j2 + m2) + 1):
        below = f(k) * f(j1 + j2 - j3 - k) * f(j1 - m1 - k) * f(j2 + m2 - k)
        total += Fraction((-1) ** k, below * f(j3 - j2 + m1 + k) * f(j3 - j1 - m2 + k))
    return math.copysign(math.sqrt(float(prefactor * total * total)), float(total))


def _complex_from_real(degree: int) -> np.ndarray:
    """Rows: complex ``m``; columns: real index; ``-l ... l``; the phase ``(-i)^l`` makes couplings real."""
    matrix = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    root = 1 / math.sqrt(2)
    for m in range(-degree, degree + 1):
        row, plus, minus = degree + m, degree + abs(m), degree - abs(m)
        if m < 0:
            matrix[row, plus], matrix[row, minus] = root, -1j * root
        elif m == 0:
            matrix[row, row] = 1.0
        else:
            matrix[row, plus], matrix[row, minus] = (-1) ** m * root, 1j * (-1) ** m * root
    return (-1j) ** degree * matrix


def wigner_matrix(degree: int, rotation: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch dimension dimension"]:
    """Matrix of a rotation on degree ``l``: ``Y(R p) = D(R) Y(p)``, orthogonal, a homomorphism.

    Built by coupling degree after degree with the vector representation, so it is a polynomial in the entries of
    ``rotation``: batched, differentiable, without angles or singular cases. Dtype and device follow ``rotation``.

    Parameters
    ----------
    degree
        ``l >= 0``.
    rotation
        Determinant +1 (checked within 1e-4); for reflections see :func:`irreps_matrix`.

    Raises
    ------
    GeometryError
        If a matrix is not a rotation.
    """
    _require_orthogonal(rotation)
    if bool((torch.linalg.det(rotation.double()) < 0).any()):
        raise GeometryError("wigner_matrix got a reflection (det -1); use irreps_matrix with irreps that have parity.")
    return _wigner(degree, rotation)


def _wigner(degree: int, rotation: Tensor) -> Tensor:
    """Unchecked :func:`wigner_matrix`."""
    current = torch.ones_like(rotation[..., :1, :1])
    for step in range(degree):
        coupling = _coupling(step, 1, step + 1).to(rotation)
        current = (2 * step + 3) * torch.einsum("abk,...ac,...bd,cdl->...kl", coupling, current, rotation, coupling)
    return current


def irreps_matrix(
    irreps: IrrepsLike, rotation: Float[Tensor, "*batch 3 3"]
) -> Float[Tensor, "*batch dimension dimension"]:
    """Representation matrix of a channel layout, block diagonal: ``field'(R p) = matrix @ field(p)``.

    Parameters
    ----------
    irreps
        Channel layout. With parity (O(3)), ``rotation`` may also have determinant -1: inversion multiplies a
        component by its parity.
    rotation
        Orthogonal 3x3 matrices.

    Raises
    ------
    GeometryError
        If a matrix is not orthogonal, or is a reflection while the irreps belong to SO(3).
    """
    layout = Irreps(irreps)
    _require_orthogonal(rotation)
    sign = torch.where(torch.linalg.det(rotation.double()) < 0, -1.0, 1.0).to(rotation)
    if layout.is_so3 and bool((sign < 0).any()):
        raise GeometryError(f"irreps {layout} of SO(3) have no reflections; give every block a parity letter e or o.")
    proper = rotation * sign[..., None, None]
    matrices = {degree: _wigner(degree, proper) for degree in {irrep.degree for _, irrep in layout}}
    full = rotation.new_zeros(*rotation.shape[:-2], layout.dimension, layout.dimension)
    offset = 0
    for irrep in layout.copies():
        block = matrices[irrep.degree]
        if irrep.parity < 0:
            block = block * sign[..., None, None]
        full[..., offset : offset + irrep.dimension, offset : offset + irrep.dimension] = block
        offset += irrep.dimension
    return full


def _require_orthogonal(matrix: Tensor) -> None:
    """Raise unless every matrix is orthogonal within the tolerance of rotations."""
    work = matrix.detach().double()
    error = (work.mT @ work - torch.eye(3, dtype=torch.float64, device=work.device)).abs().max() if work.numel() else 0
    if not float(error) <= ROTATION_TOLERANCE:
        raise GeometryError(f"matrix is not orthogonal (R^T R differs from 1 by {float(error):.2g}); give a rotation.")
