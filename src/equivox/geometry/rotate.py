"""Volumes turned about their centre: exactly by the symmetries of the cube, by interpolation at every other angle.

The content moves actively: the value at point ``p`` goes to ``rotation @ p``, points in voxels from the centre
``(n - 1) / 2``, x along the first spatial axis. Everything is batched and stays on the device of the volume.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.errors import GeometryError

Interpolation = Literal["cubic", "linear", "nearest"]
GRID_TOLERANCE = 1e-6
"""A matrix whose entries are this near to -1, 0 and 1 is taken as a symmetry of the cube."""
SPLINE_MARGIN = 12
"""Voxels beyond the border in which the coefficients of a cubic spline fade out (its pole to that power: 1e-7)."""


def rotate_volume(
    volume: Float[Tensor, "batch channel x y z"],
    rotations: Float[Tensor, "rotation 3 3"],
    *,
    interpolation: Interpolation = "cubic",
) -> Float[Tensor, "batch channel x y z"]:
    """Turn (or mirror) every volume of a batch by its own orthogonal matrix about the grid's centre.

    ``out(c + q) = volume(c + rotation^T q)`` with ``c = (n - 1) / 2`` per axis. Outside there are zeros, and values
    fall to them over one voxel beyond the outermost centres.

    Parameters
    ----------
    volume
        Scalar channels. Components of vector fields are not mixed: see :func:`equivox.testing.rotate_field`.
    rotations
        Orthogonal; determinant +1 turns, -1 mirrors as well.
    interpolation
        ``"cubic"``: B-spline with its prefilter (the volume goes on as zeros); ``"linear"``; ``"nearest"``: ties to
        the even index.

    Returns
    -------
    Same shape, dtype and device. Differentiable in the volume.

    Raises
    ------
    GeometryError
        If a matrix is not orthogonal within 1e-4.

    Notes
    -----
    Symmetries of the cube (entries within 1e-6 of -1, 0, 1) permute voxels where they map the grid to itself: no
    interpolation, whatever ``interpolation`` says. The matrices have to be read for that, so a GPU waits.

    Examples
    --------
    >>> from equivox.geometry.rotations import rotation_about
    >>> cube = torch.zeros(1, 1, 3, 3, 3)
    >>> cube[0, 0, 2, 1, 1] = 1.0  # a voxel on the x axis
    >>> rotate_volume(cube, rotation_about("z", 90.0)[None])[0, 0, 1, 2, 1]  # now on the y axis
    tensor(1.)
    """
    if rotations.shape[0] != volume.shape[0]:
        raise ValueError(f"{volume.shape[0]} volumes need as many rotations, got {tuple(rotations.shape)}.")
    matrices = _require_orthogonal(rotations)
    sides = (volume.shape[2], volume.shape[3], volume.shape[4])
    results: list[Tensor | None] = [None] * volume.shape[0]
    sampled: list[int] = []
    for index, matrix in enumerate(matrices):
        steps = matrix.round()
        near = float((matrix - steps).abs().max()) <= GRID_TOLERANCE
        sources = steps.abs().argmax(dim=1).tolist()
        if near:
            matrices[index] = steps
        if near and tuple(sides[source] for source in sources) == sides:
            flipped = [axis + 1 for axis in range(3) if float(steps[axis, sources[axis]]) < 0]
            results[index] = volume[index].permute(0, *[source + 1 for source in sources]).flip(flipped)
        else:
            sampled.append(index)
    if sampled:
        whole = len(sampled) == volume.shape[0]
        turned = _sample(volume if whole else volume[sampled], matrices[sampled], interpolation)
        for place, index in enumerate(sampled):
            results[index] = turned[place]
        if whole:
            return turned
    return torch.stack([result for result in results if result is not None])


def _require_orthogonal(rotations: Tensor) -> Tensor:
    """A float64 copy on the CPU."""
    matrices = rotations.detach().to(device="cpu", dtype=torch.float64, copy=True)
    if not bool(torch.isfinite(matrices).all()):
        raise GeometryError("a rotation holds NaN or infinite entries; give finite 3x3 matrices.")
    error = matrices.mT @ matrices - torch.eye(3, dtype=torch.float64)
    worst = float(error.abs().max()) if matrices.numel() else 0.0
    if worst > 1e-4:
        raise GeometryError(f"a rotation is not orthogonal (R^T R differs from 1 by {worst:.2g}); give 3x3 rotations.")
    return matrices


def _sample(volume: Tensor, matrices: Tensor, interpolation: Interpolation) -> Tensor:
    """Values at ``rotation^T q`` for every voxel ``q``."""
    work = volume if volume.dtype in (torch.float32, torch.float64) else volume.float()
    points = _pulled(matrices.to(work), (work.shape[2], work.shape[3], work.shape[4]))
    if interpolation == "cubic":
        return _cubic(work, points).to(volume.dtype)
    mode = "bilinear" if interpolation == "linear" else "nearest"
    return _lookup(work, points, mode).to(volume.dtype)


def _pulled(matrices: Tensor, sides: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Where every output voxel reads, in voxels from the centre, per axis (batch, x, y, z)."""
    base = _centered_points(sides).to(matrices)
    pulled = torch.matmul(matrices.mT, base).unflatten(2, sides)
    return pulled[:, 0], pulled[:, 1], pulled[:, 2]


@lru_cache(maxsize=16)
def _centered_points(sides: tuple[int, int, int]) -> Tensor:
    """(3, x y z), float64, not to be written to."""
    with torch.inference_mode(False):
        axes = [torch.arange(side, dtype=torch.float64) - (side - 1) / 2 for side in sides]
        return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)


def _lookup(volume: Tensor, points: tuple[Tensor, ...], mode: str) -> Tensor:
    """``grid_sample`` at points in voxels from the centre; zeros outside."""
    if min(volume.shape[2:]) == 1:  # a side of one voxel has no extent to normalise by
        pads = [1 if side == 1 else 0 for side in reversed(volume.shape[2:]) for _ in range(2)]
        volume = functional.pad(volume, pads)
    normal = [point * (2.0 / (side - 1)) for point, side in zip(points, volume.shape[2:], strict=True)]
    grid = torch.stack(normal[::-1], dim=-1)
    return functional.grid_sample(volume, grid, mode=mode, padding_mode="zeros", align_corners=True)


def _cubic(volume: Tensor, points: tuple[Tensor, ...]) -> Tensor:
    """Cubic B-spline as eight linear look-ups into its coefficients.

    Along an axis the four weights of a cubic B-spline are positive, so two linear look-ups at shifted points give the
    same sum (Sigg and Hadwiger, GPU Gems 2, chapter 20).
    """
    coefficients = volume
    for axis in range(3):
        matrix = _spline_matrix(volume.shape[2 + axis]).to(volume)
        moved = torch.matmul(matrix, coefficients.movedim(2 + axis, -2))
        coefficients = moved.movedim(-2, 2 + axis)
    sums, places = [], []
    for point, side in zip(points, volume.shape[2:], strict=True):
        index = point + (side - 1) / 2
        floor = index.floor()
        t = index - floor
        first = (1 - t) ** 3 / 6
        last = t**3 / 6
        second = 2 / 3 - t.square() * (2 - t) / 2
        third = 1 - first - second - last
        low, high = first + second, third + last
        start = floor - (side - 1) / 2
        sums.append((low, high))
        places.append((start - 1 + second / low, start + 1 + last / high))
    total: Tensor | None = None
    for x in range(2):
        for y in range(2):
            for z in range(2):
                weight = sums[0][x] * sums[1][y] * sums[2][z]
                value = _lookup(coefficients, (places[0][x], places[1][y], places[2][z]), "bilinear")
                part = value * weight[:, None]
                total = part if total is None else total + part
    assert total is not None
    return total


@lru_cache(maxsize=16)
def _spline_matrix(side: int) -> Tensor:
    """From values along an axis, zeros beyond, to B-spline coefficients with a margin; (side + 2 margin, side)."""
    with torch.inference_mode(False):
        pole = math.sqrt(3.0) - 2.0
        row = torch.arange(-SPLINE_MARGIN, side + SPLINE_MARGIN, dtype=torch.float64)
        column = torch.arange(side, dtype=torch.float64)
        distance = (row[:, None] - column[None, :]).abs()
        return math.sqrt(3.0) * torch.pow(torch.tensor(pole, dtype=torch.float64), distance)
