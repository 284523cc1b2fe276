"""Moment conditions: when a kernel on finitely many taps acts on smooth fields as an equivariant one does.

The transfer function of a kernel ``k`` is ``sum_x k(x) exp(-i w x)``. Its Taylor term of degree ``n`` in ``w`` turns as
degree ``J`` must exactly when ``sum_x k_m(x) |x|^n Y^L_m'(x / |x|) = c_n delta_LJ delta_mm'`` for ``L = n, n - 2, ...``
and some number ``c_n``. All conditions up to degree ``D`` leave a relative equivariance error of order ``|w|^(D+2-J)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from equivox.geometry.harmonics import spherical_harmonics

TOLERANCE = 1e-9
"""Singular values of the conditions (rows of unit norm, orthonormal functions) below this are zero.

It must be absolute: where symmetry meets every condition already, the matrix is rounding noise, and a tolerance
relative to its largest entry would find a rank in that noise."""


@dataclass(frozen=True)
class MatchedSpace:
    """The combinations of some functions that meet the moment conditions up to one order.

    Parameters
    ----------
    order
        ``D``.
    combinations
        Orthonormal rows (dimension, functions).
    useful
        How many independent sequences of gains ``c_J, c_J+2, ... c_D`` the space reaches. The rest of it has no moments
        at all: invisible to smooth fields and not equivariant on rough ones. A space with 0 is worthless.
    """

    order: int
    combinations: Float[np.ndarray, "dimension functions"]
    useful: int

    @property
    def dimension(self) -> int:
        """Number of independent functions."""
        return len(self.combinations)


def matched_space(
    basis: Float[np.ndarray, "functions dimension taps"], positions: Float[np.ndarray, "taps 3"], order: int
) -> MatchedSpace:
    """Find all combinations of ``basis`` that meet the moment conditions up to ``order``.

    Parameters
    ----------
    basis
        Orthonormal functions of one degree, ``dimension = 2 J + 1``.
    positions
        Taps, in any unit.
    order
        Highest degree ``D`` of the conditions; of the parity of ``J``.
    """
    if not len(basis):
        return MatchedSpace(order, np.zeros((0, 0)), 0)
    conditions, gains = moment_conditions(basis, positions, order)
    if len(conditions):
        _, values, right = np.linalg.svd(conditions, full_matrices=True)
        combinations = right[int((values > TOLERANCE).sum()) :]
    else:
        combinations = np.eye(len(basis))
    useful = 0
    if len(combinations) and len(gains):
        useful = int((np.linalg.svd(gains @ combinations.T, compute_uv=False) > TOLERANCE).sum())
    return MatchedSpace(order, combinations, useful)


def moment_conditions(
    functions: Float[np.ndarray, "functions dimension taps"], positions: Float[np.ndarray, "taps 3"], order: int
) -> tuple[Float[np.ndarray, "conditions functions"], Float[np.ndarray, "gains functions"]]:
    """Evaluate every condition, and every gain ``c_n``, on some functions.

    Parameters
    ----------
    functions
        Of one degree.
    positions
        Taps, in any unit.
    order
        Highest degree ``D``.

    Returns
    -------
    The numbers that must vanish, each of a functional of unit norm; and the gains ``c_J, c_J+2 ... c_D``, likewise.
    """
    degree = functions.shape[1] // 2
    distance = np.linalg.norm(positions, axis=1)
    distance = distance / max(float(distance.max()), 1e-300)
    angular = {
        level: spherical_harmonics(level, torch.from_numpy(np.ascontiguousarray(positions))).numpy()
        for level in range(degree % 2, order + 1, 2)
    }
    conditions, gains = [], []
    for power in range(degree % 2, order + 1, 2):
        for level in range(power, -1, -2):
            weights = distance[:, None] ** power * angular[level]  # (taps, m')
            sizes = np.linalg.norm(weights, axis=0)
            moments = np.einsum("fmt,tn->mnf", functions, weights)
            if level != degree:
                present = sizes > TOLERANCE
                conditions.append((moments[:, present] / sizes[present, None]).reshape(-1, len(functions)))
                continue
            mixed = ~np.eye(2 * degree + 1, dtype=bool) & (sizes > TOLERANCE)
            conditions.append((moments / np.where(sizes > TOLERANCE, sizes, 1.0)[:, None])[mixed])
            own = np.einsum("mmf->mf", moments)
            pair = np.hypot(sizes[1:], sizes[0])
            conditions.append((own[1:] - own[0])[pair > TOLERANCE] / pair[pair > TOLERANCE, None])
            gains.append(own.sum(axis=0) / max(float(np.linalg.norm(sizes)), 1e-300))
    empty = np.zeros((0, len(functions)))
    return np.concatenate([empty, *conditions]), np.array(gains).reshape(-1, len(functions))
