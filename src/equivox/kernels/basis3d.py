"""Bases of steerable kernels on a voxel grid, per pair of degrees, in float64 and cached by value.

A basis element is ``phi_n(|x|) sum_M C^{l_out, l_in, J}_{m, m', M} Y^J_M(x / |x|)`` at tap positions ``x`` in mm; it
commutes with rotations of the grid when ``conv3d`` (a cross-correlation) applies it. Tensors handed out here are
shared: do not write to them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.harmonics import spherical_harmonics
from equivox.geometry.irreps import Irrep
from equivox.geometry.wigner import coupling_tensor
from equivox.kernels.radial import RadialFamily
from equivox.kernels.sampled import TapFamily
from equivox.kernels.taps import TapGrid

DEAD = 1e-12
"""Elements of smaller norm touch no tap: their weights do nothing."""


@dataclass(frozen=True, slots=True)
class PairBasis:
    """All basis elements between two degrees.

    Parameters
    ----------
    elements
        float64 (element, out component, in component, tap); shared, read only.
    labels
        ``(J, n)`` of each element: filter degree and radial index.
    """

    elements: Float[Tensor, "element d_out d_in taps"]
    labels: tuple[tuple[int, int], ...]


def filter_degrees(irrep_in: Irrep, irrep_out: Irrep, lmax: int | None = None) -> tuple[int, ...]:
    """Degrees ``J`` of harmonics that carry one irrep to another: triangle inequality, and for O(3) parity."""
    degrees = range(abs(irrep_in.degree - irrep_out.degree), irrep_in.degree + irrep_out.degree + 1)
    return tuple(
        degree
        for degree in degrees
        if (lmax is None or degree <= lmax)
        and (irrep_in.is_so3 or irrep_in.parity * (-1) ** degree == irrep_out.parity)
    )


@lru_cache(maxsize=256)
def _radial_taps(grid: TapGrid, radial: RadialFamily) -> Tensor:
    """(count, taps) float64."""
    with torch.inference_mode(False), torch.no_grad():
        return radial.values(grid.positions_mm().norm(dim=-1))


@lru_cache(maxsize=256)
def _harmonic_taps(grid: TapGrid, degree: int) -> Tensor:
    """(2 J + 1, taps) float64, component normalised; zero at the origin above degree 0."""
    with torch.inference_mode(False), torch.no_grad():
        return spherical_harmonics(degree, grid.positions_mm()).mT.contiguous()


@lru_cache(maxsize=1024)
def pair_basis(
    degree_in: int,
    degree_out: int,
    degrees: tuple[int, ...],
    grid: TapGrid,
    radial: RadialFamily | TapFamily,
    shell_outer: bool,
) -> PairBasis:
    """Basis elements ``C^{in, J, out} Y^J phi_n`` between two degrees (harmonics component normalised).

    A family given on taps has its own functions in place of ``Y^J phi_n``.

    Parameters
    ----------
    degree_in, degree_out
        ``l`` of the input and the output field.
    degrees
        Admitted filter degrees ``J``, ascending (:func:`filter_degrees`).
    grid, radial
        Taps and family.
    shell_outer
        Order of elements: radial index outermost (3D steerable CNNs) or ``J`` outermost (e3nn).
    """
    admitted = [(j, n) for j in degrees for n in range(radial.count) if radial.admits(n, j)]
    if shell_outer:
        admitted.sort(key=lambda label: (label[1], label[0]))
    size = (len(admitted), 2 * degree_out + 1, 2 * degree_in + 1, grid.count)
    with torch.inference_mode(False), torch.no_grad():
        elements = torch.empty(size, dtype=torch.float64, device="cpu")
        if isinstance(radial, TapFamily):
            for row, (j, n) in enumerate(admitted):
                coupling = coupling_tensor(degree_in, j, degree_out)
                elements[row] = torch.einsum("ijk,jt->kit", coupling, radial.functions(j, grid)[n])
            return PairBasis(elements, tuple(admitted))
        window = _radial_taps(grid, radial)
        angular = {
            j: torch.einsum("ijk,jt->kit", coupling_tensor(degree_in, j, degree_out), _harmonic_taps(grid, j))
            for j in degrees
        }
        for row, (j, n) in enumerate(admitted):
            torch.mul(angular[j], window[n], out=elements[row])
    return PairBasis(elements, tuple(admitted))


@lru_cache(maxsize=2048)
def pair_matrix(
    degree_in: int,
    degree_out: int,
    degrees: tuple[int, ...],
    grid: TapGrid,
    radial: RadialFamily | TapFamily,
    shell_outer: bool,
    unit_norm: bool,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """:func:`pair_basis` as a matrix (element, d_out d_in taps) in a working dtype; rows of unit norm on request."""
    basis = pair_basis(degree_in, degree_out, degrees, grid, radial, shell_outer)
    with torch.inference_mode(False), torch.no_grad():
        matrix = basis.elements.flatten(1)
        if unit_norm:
            norms = matrix.norm(dim=1, keepdim=True)
            matrix = matrix / torch.where(norms > DEAD, norms, torch.ones_like(norms))
        return matrix.to(device=device, dtype=dtype)
