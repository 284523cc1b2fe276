"""Functions on a set of grid points that turn with it exactly, as fields of one degree do.

The symmetries of a centred grid are the signed permutations of the axes that map its points onto themselves: 48 for
cubic voxels, 16 for steps (a, a, c), 8 for three different steps. A function ``k`` from points to ``V_J`` is symmetric
when ``k(g x) = D(g) k(x)`` for each of them, with ``D`` of parity ``(-1)^J`` as the harmonics have.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int

from equivox.geometry.irreps import Irrep
from equivox.geometry.rotations import cube_group
from equivox.geometry.wigner import irreps_matrix

_QUANTUM = 1e-6
"""Points closer than this (in voxels) are the same point."""


def point_permutations(
    positions: Float[np.ndarray, "taps 3"],
) -> tuple[Float[np.ndarray, "group 3 3"], Int[np.ndarray, "group taps"]]:
    """Symmetries of the cube that map a set of points onto itself, and where they send each point.

    Parameters
    ----------
    positions
        Distinct points in voxels of the finest axis.

    Returns
    -------
    The matrices, identity first, and for each the index of the image ``g x`` of every point ``x``.
    """
    keys = np.rint(positions / _QUANTUM).astype(np.int64)
    index = {tuple(key): position for position, key in enumerate(keys.tolist())}
    matrices, permutations = [], []
    for matrix in cube_group(improper=True).numpy():
        images = [index.get(tuple(image)) for image in (keys @ matrix.astype(np.int64).T).tolist()]
        if None not in images:
            matrices.append(matrix)
            permutations.append(images)
    return np.stack(matrices), np.array(permutations, dtype=np.int64)


def symmetric_functions(
    positions: Float[np.ndarray, "taps 3"], degree: int
) -> Float[np.ndarray, "functions dimension taps"]:
    """Orthonormal basis of the functions of one degree that share every symmetry of the points.

    A function is free at one point of each orbit, within the values that the point's stabiliser leaves fixed, and
    carried to the rest of the orbit by ``k(g x) = D(g) k(x)``.

    Parameters
    ----------
    positions
        Points in voxels of the finest axis, symmetric about the origin.
    degree
        ``J``.

    Returns
    -------
    float64; functions of different orbits have disjoint supports.

    Notes
    -----
    The space is unique; its basis is fixed by taking, within each stabiliser's fixed space, pivots by size and then by
    position, so it does not depend on a linear algebra library.
    """
    matrices, permutations = point_permutations(positions)
    carried = irreps_matrix(Irrep(degree, (-1) ** degree), torch.from_numpy(matrices)).numpy()
    basis = []
    seen = np.zeros(len(positions), dtype=bool)
    for point in range(len(positions)):
        if seen[point]:
            continue
        images, first = np.unique(permutations[:, point], return_index=True)
        seen[images] = True
        for value in _image_of_projector(carried[permutations[:, point] == point].mean(axis=0)):
            function = np.zeros((2 * degree + 1, len(positions)))
            function[:, images] = (carried[first] @ value).T / np.sqrt(len(images))
            basis.append(function)
    return np.array(basis).reshape(-1, 2 * degree + 1, len(positions))


def _image_of_projector(
    projector: Float[np.ndarray, "dimension dimension"],
) -> list[Float[np.ndarray, " dimension"]]:
    """Orthonormal basis of an orthogonal projector's image, by Gram-Schmidt with pivots."""
    rest = projector.copy()
    vectors = []
    for _ in range(round(float(np.trace(projector)))):
        sizes = np.linalg.norm(rest, axis=0)
        column = int(np.flatnonzero(sizes > sizes.max() * (1 - 1e-9))[0])  # first of equals
        vector = rest[:, column] / sizes[column]
        vectors.append(vector)
        rest = rest - np.outer(vector, vector @ rest)
    return vectors
