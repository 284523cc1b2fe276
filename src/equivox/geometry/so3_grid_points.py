"""Where the members of a grid on SO(3) lie: spirals, HEALPix, groups and optimised tables, as float64 matrices.

Every construction has its in-plane angle leftmost, ``R = Rz(psi) Ry(theta) Rz(phi)``: an image that turns in its plane
then permutes the members, where the comb of angles psi allows it.
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.rotations import cube_group, rotation_about, rotation_from_quaternion

GOLDEN = (1.0 + math.sqrt(5.0)) / 2.0
SPIRAL = 1.533751168755204288118041
"""Positive root of ``x^4 = x + 4``, the second frequency of the super-Fibonacci spiral (Alexa 2022)."""
TABLES = Path(__file__).parent / "tables" / "d4opt.npz"


def fibonacci_sphere(count: int) -> Float[Tensor, "count 2"]:
    """Polar and azimuthal angle [rad] of a Fibonacci lattice on the sphere (González 2010)."""
    index = torch.arange(count, dtype=torch.float64)
    theta = torch.acos(1.0 - (2.0 * index + 1.0) / count)
    return torch.stack([theta, torch.remainder(2.0 * math.pi * index / GOLDEN, 2.0 * math.pi)], dim=-1)


def healpix_sphere(nside: int) -> Float[Tensor, "count 2"]:
    """Polar and azimuthal angle [rad] of the ``12 nside^2`` HEALPix centres in the ring scheme (Górski 2005)."""
    points = []
    for ring in range(1, 4 * nside):
        mirrored = ring > 3 * nside
        cap = 4 * nside - ring if mirrored else ring
        if cap < nside:
            height, count, shift = 1.0 - cap * cap / (3.0 * nside * nside), 4 * cap, 0.5
        else:
            height, count = 4.0 / 3.0 - 2.0 * ring / (3.0 * nside), 4 * nside
            shift = 0.5 if (ring + nside) % 2 == 0 else 1.0
        height = -height if mirrored else height
        points += [(math.acos(height), (j - shift) * 2.0 * math.pi / count) for j in range(1, count + 1)]
    return torch.tensor(points, dtype=torch.float64)


def in_plane_comb(
    directions: Float[Tensor, "count 2"], steps: int, *, offset: float = 0.0
) -> Float[Tensor, "rotation 3 3"]:
    """``Rz(psi_j) Ry(theta_i) Rz(phi_i)`` with ``psi_j = 2 pi (j + offset) / steps``; index ``i * steps + j``."""
    turns = torch.stack([rotation_about("z", 360.0 * (j + offset) / steps) for j in range(steps)])
    tilted = _about("y", directions[:, 0]) @ _about("z", directions[:, 1])
    return (turns[None] @ tilted[:, None]).flatten(0, 1)


def fibonacci_grid(points: int, steps: int) -> Float[Tensor, "rotation 3 3"]:
    """Fibonacci sphere times a comb of in-plane angles; with ``steps`` a multiple of 4, closed under quarter turns."""
    return in_plane_comb(fibonacci_sphere(points), steps)


def mirrored_fibonacci_grid(points: int, steps: int) -> Float[Tensor, "rotation 3 3"]:
    """Half a Fibonacci sphere with its antipodes times a comb: closed under in-plane turns of the comb and mirrors.

    Raises
    ------
    ConfigError
        If ``points`` is odd or ``steps`` no multiple of 4.
    """
    if points % 2 or steps % 4:
        raise ConfigError(
            f"a mirrored Fibonacci grid of {points} directions x {steps} angles is not closed under the square's "
            f"symmetries; take an even number of directions and a multiple of 4 angles (8x8)."
        )
    half = fibonacci_sphere(points)[: points // 2]
    half[:, 1] = 2.0 * math.pi * torch.arange(points // 2, dtype=torch.float64) / GOLDEN
    opposite = torch.stack([math.pi - half[:, 0], half[:, 1] + math.pi], dim=-1)
    return in_plane_comb(torch.cat([half, opposite]), steps)


def super_fibonacci_grid(count: int) -> Float[Tensor, "rotation 3 3"]:
    """Super-Fibonacci spiral of any number of rotations (Alexa, CVPR 2022): even density, no symmetry."""
    step = torch.arange(count, dtype=torch.float64) + 0.5
    inner, outer = (step / count).sqrt(), (1.0 - step / count).sqrt()
    alpha, beta = 2.0 * math.pi * step / math.sqrt(2.0), 2.0 * math.pi * step / SPIRAL
    quaternion = torch.stack([inner * alpha.sin(), inner * alpha.cos(), outer * beta.sin(), outer * beta.cos()], -1)
    return rotation_from_quaternion(quaternion)


def healpix_hopf_grid(nside: int) -> Float[Tensor, "rotation 3 3"]:
    """HEALPix directions times ``6 nside`` in-plane angles (Yershova 2010): ``72 nside^3`` rotations."""
    if nside < 1 or nside & (nside - 1):
        raise ConfigError(f"healpix-{nside} does not exist: nside is a power of 2 (1, 2, 4).")
    return in_plane_comb(healpix_sphere(nside), 6 * nside, offset=0.5)


@lru_cache(maxsize=64)
def group_rotations(name: str) -> Tensor:
    """Members of a group, identity first: ``C<n>`` about z, ``D<n>`` with a 2-fold about x, ``T``, ``O``, ``I``.

    T and O have their 2- and 4-folds on the axes, I its 2-folds; callers must not write to the result.
    """
    if name in ("O", "T"):
        cube = cube_group()
        return cube if name == "O" else cube[[_is_even(member) for member in cube]]
    if name == "I":
        return _icosahedral()
    order = int(name[1:])
    if order < 1:
        raise ConfigError(f"{name} is no group of rotations: the order is 1 or more.")
    turns = torch.stack([rotation_about("z", 360.0 * step / order) for step in range(order)])
    return turns if name[0] == "C" else torch.cat([turns, rotation_about("x", 180.0) @ turns])


def optimised_sizes() -> tuple[int, ...]:
    """Numbers of rotations for which an optimised table is shipped."""
    return tuple(sorted(_tables()))


def optimised_grid(count: int) -> Float[Tensor, "rotation 3 3"]:
    """Grid closed under the square's symmetries whose representatives were spread by minimising an energy.

    Raises
    ------
    ConfigError
        If no table of this size is shipped.
    """
    tables = _tables()
    if count not in tables:
        known = ", ".join(f"d4opt-{size}" for size in sorted(tables))
        raise ConfigError(f"there is no table d4opt-{count}; shipped are {known}.")
    return rotation_from_quaternion(tables[count])


@lru_cache(maxsize=1)
def _tables() -> dict[int, Tensor]:
    """Quaternions (x, y, z, w) by number of rotations."""
    import numpy as np

    with np.load(TABLES, allow_pickle=False) as archive:
        return {int(name.rsplit("_", 1)[1]): torch.from_numpy(archive[name]) for name in archive.files}


def _about(axis: str, angle: Tensor) -> Tensor:
    """Rotations by many angles [rad] about one axis."""
    first, second = {"y": (2, 0), "z": (0, 1)}[axis]
    matrix = torch.eye(3, dtype=torch.float64).repeat(len(angle), 1, 1)
    matrix[:, first, first] = matrix[:, second, second] = angle.cos()
    matrix[:, second, first], matrix[:, first, second] = angle.sin(), -angle.sin()
    return matrix


def _is_even(member: Tensor) -> bool:
    """Whether a signed permutation matrix permutes the axes evenly."""
    order = member.abs().argmax(dim=1).tolist()
    return sum(a > b for a, b in itertools.combinations(order, 2)) % 2 == 0


def _icosahedral() -> Tensor:
    """The 60 rotations of the icosahedron from the 120 icosians."""
    rows = [[float(axis == k) for axis in range(4)] for k in range(4)]
    rows += [[s / 2 for s in signs] for signs in itertools.product((1.0, -1.0), repeat=4)]
    values = (0.0, 0.5 / GOLDEN, 0.5, GOLDEN / 2)
    for order in itertools.permutations(range(4)):
        if sum(a > b for a, b in itertools.combinations(order, 2)) % 2 == 0:
            for signs in itertools.product((1.0, -1.0), repeat=3):
                signed = (0.0, *(value * sign for value, sign in zip(values[1:], signs, strict=True)))
                rows.append([signed[place] for place in order])
    kept: list[list[float]] = []
    for row in rows:
        w = next(value for value in row if abs(value) > 1e-9)
        canonical = [value if w > 0 else -value for value in row]
        if not any(max(abs(a - b) for a, b in zip(canonical, other, strict=True)) < 1e-9 for other in kept):
            kept.append(canonical)
    quaternion = torch.tensor(kept, dtype=torch.float64)[:, [1, 2, 3, 0]]
    return rotation_from_quaternion(quaternion)
