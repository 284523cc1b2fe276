"""The matched family: kernels on few taps that stay equivariant to turns that no grid has.

It starts from the Gaussian shells of 3D steerable CNNs, matches their moments (:mod:`equivox.kernels.matching`) and
orthonormalises what comes out, degree by degree. Everything is scale free: lengths are in voxels of the finest axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import resources

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.harmonics import spherical_harmonics
from equivox.kernels.matching import BandPenalty, Matching, TapSpace, choose_order, match, orthonormal, tap_space
from equivox.kernels.radial import BALL_MARGIN, GaussianShells
from equivox.kernels.taps import TapGrid

VERSION = 1
"""Of the recipe and of the shipped file; a change moves the kernels of networks that use them."""
SHIPPED_FILE = "matched_bases.npz"

_SHELLS = {
    3: ((0, 1), (1,), (1,), ()),
    5: ((0, 1, 2), (1, 2), (1, 2), (2,)),
    7: ((0, 1, 2, 3), (1, 2, 3), (1, 2, 3), (2, 3)),
}
_ORDERS = {3: (4, 3, 2, 3), 5: (4, 3, 4, 3), 7: (6, 5, 6, 5)}
SHIPPED_SIZES = tuple(_SHELLS)


@dataclass(frozen=True, slots=True)
class MatchedShells:
    """Gaussian shells, matched and orthonormalised: the family for new networks.

    Use :meth:`for_kernel`; the fields are there for other choices.

    Parameters
    ----------
    radii
        Radius of each shell, in voxels of the finest axis, as ``sigma`` and ``ball_radius``.
    shells
        Per filter degree ``J = 0, 1 ...`` the shells (indices into ``radii``) that carry it; an empty tuple where no
        equivariant kernel of that degree exists.
    orders
        Per filter degree the highest order ``D`` of matched moments.
    ball_radius
        Taps farther away are zero.
    sigma
        Width of the shells.
    penalty
        Refinement over a band of frequencies, or ``None``.
    orthonormal
        Orthonormalise the functions of a degree, from the inner shell outwards, so that equal weights have equal power;
        ``False`` leaves overlapping functions of norm 1, as 3D steerable CNNs have them.

    Examples
    --------
    >>> family = MatchedShells.for_kernel(5)
    >>> [len(shells) for shells in family.shells]  # radial functions for J = 0, 1, 2, 3
    [3, 2, 2, 1]
    """

    radii: tuple[float, ...]
    shells: tuple[tuple[int, ...], ...]
    orders: tuple[int, ...]
    ball_radius: float
    sigma: float = 0.6
    penalty: BandPenalty | None = None
    orthonormal: bool = True

    def __post_init__(self) -> None:
        known = all(0 <= shell < len(self.radii) for shells in self.shells for shell in shells)
        matching = known and len(self.orders) == len(self.shells)
        if not self.radii or not matching or min(self.sigma, self.ball_radius) <= 0:
            raise ConfigError(
                f"matched shells need radii, positive sigma and ball radius, and per degree an order and shells among "
                f"the radii; got radii {self.radii}, shells {self.shells}, orders {self.orders}, sigma {self.sigma}, "
                f"ball radius {self.ball_radius}."
            )

    @classmethod
    def for_kernel(
        cls, size: int = 5, *, voxel_size_mm: float | tuple[float, float, float] = 1.0, highest_degree: int = 3
    ) -> MatchedShells:
        """The recommended family of a kernel that spans ``size`` voxels of the finest axis: see :meth:`for_grid`."""
        return cls.for_grid(TapGrid.for_size(size, voxel_size_mm), highest_degree=highest_degree)

    @classmethod
    def for_grid(cls, grid: TapGrid, *, highest_degree: int = 3) -> MatchedShells:
        """The recommended family of a grid of taps.

        Parameters
        ----------
        grid
            Taps; only ratios of the voxel size matter.
        highest_degree
            Degrees above it are not offered.

        Notes
        -----
        Cubic voxels and 3, 5 or 7 taps per axis: the shipped bases (27, 81, 251 taps; for degree 0, 1, 2, 3 they have
        2, 1, 1, 0 or 3, 2, 2, 1 or 4, 3, 3, 2 radial functions). Otherwise :meth:`by_rule`: shells one voxel apart, and
        per degree the highest order that keeps them whole and distinct, with as many as have independent moments.
        """
        size = grid.taps[0]
        if size not in _SHELLS or not _is_cubic(grid) or highest_degree > 3:
            return cls.by_rule(grid, highest_degree=highest_degree)
        return cls(
            radii=tuple(float(shell) for shell in range(size // 2 + 1)),
            shells=_SHELLS[size][: highest_degree + 1],
            orders=_ORDERS[size][: highest_degree + 1],
            ball_radius=(size - 1) / 2 + BALL_MARGIN,
            penalty=BandPenalty() if size > 3 else None,
        )

    @classmethod
    def by_rule(
        cls, grid: TapGrid, *, highest_degree: int = 3, ball_radius: float | None = None, sigma: float = 0.6
    ) -> MatchedShells:
        """Choose orders and shells for any grid of taps, without refinement.

        Parameters
        ----------
        grid
            Taps.
        highest_degree
            Degrees above it are not offered.
        ball_radius
            In voxels of the finest axis; default: to the outermost tap along an axis and 0.75 voxels farther, on
            unequal axes 0.5.
        sigma
            Width of the shells.
        """
        reach = max((taps - 1) / 2 * step for taps, step in zip(grid.taps, grid.voxel_size_mm, strict=True))
        reach /= min(grid.voxel_size_mm)
        radius = reach + (BALL_MARGIN if _is_cubic(grid) else 0.5) if ball_radius is None else ball_radius
        limits = GaussianShells.for_kernel(2 * int(reach + 0.5) + 1)
        shells: list[tuple[int, ...]] = []
        orders: list[int] = []
        for degree in range(highest_degree + 1):
            admitted = tuple(shell for shell in range(limits.count) if limits.admits(shell, degree))
            probe = cls(limits.radii, ((),) * degree + (admitted,), (0,) * degree + (degree,), radius, sigma)
            space = probe.space(degree, grid)
            if not admitted or space.refusal(degree) is not None:
                shells.append(())
                orders.append(degree)
                continue
            order = choose_order(probe.sampled(degree, grid), space)
            shells.append(_strict(admitted, space.matched(order).useful, degree))
            orders.append(order)
        return cls(limits.radii, tuple(shells), tuple(orders), radius, sigma)

    @property
    def count(self) -> int:
        """Number of shells."""
        return len(self.radii)

    def admits(self, index: int, degree: int) -> bool:
        """Whether shell ``index`` carries ``degree``."""
        return degree < len(self.shells) and index in self.shells[degree]

    def functions(self, degree: int, grid: TapGrid) -> Float[Tensor, "count dimension taps"]:
        """Functions of norm 1 per shell, float64, zero for shells that do not carry the degree; cached, read only.

        Raises
        ------
        ConfigError
            If no equivariant kernel of that degree exists on these taps: the sentence says why.
        """
        return _functions(self, degree, grid)

    def matching(self, degree: int, grid: TapGrid) -> Matching:
        """The matched shells of one degree before orthonormalisation, on the taps inside the ball.

        Raises
        ------
        ConfigError
            As :meth:`functions`.
        """
        if degree >= len(self.shells):
            raise ConfigError(
                f"this family carries degrees up to {len(self.shells) - 1}, not {degree}; make one that goes higher, "
                f"MatchedShells.for_grid(grid, highest_degree={degree}), and give it as radial."
            )
        space = self.space(degree, grid)
        if not self.shells[degree]:
            raise ConfigError(space.refusal(degree) or f"this family has no shell for degree {degree}.")
        return match(self.sampled(degree, grid), space, self.orders[degree], self.penalty)

    def space(self, degree: int, grid: TapGrid) -> TapSpace:
        """Symmetric functions on the taps inside the ball."""
        positions = _positions(grid)[self.inside(grid)]
        return tap_space(tuple((float(x), float(y), float(z)) for x, y, z in positions), degree)

    def sampled(self, degree: int, grid: TapGrid) -> Float[np.ndarray, "functions dimension taps"]:
        """The shells of one degree before matching, on the taps inside the ball."""
        positions = torch.from_numpy(_positions(grid)[self.inside(grid)])
        shells = GaussianShells(self.radii, self.sigma, (0,) * len(self.radii)).values(positions.norm(dim=-1))
        harmonics = spherical_harmonics(degree, positions).mT
        return (shells[list(self.shells[degree])][:, None] * harmonics).numpy()

    def inside(self, grid: TapGrid) -> np.ndarray:
        """Which taps lie inside the ball."""
        return np.linalg.norm(_positions(grid), axis=1) <= self.ball_radius * (1 + 1e-9)


def compute_functions(
    family: MatchedShells, degree: int, grid: TapGrid
) -> Float[np.ndarray, "functions dimension taps"]:
    """Matched shells of one degree on all taps, of norm 1, not orthonormalised; computed, whatever is shipped."""
    matched = family.matching(degree, grid).functions
    full = np.zeros((len(matched), 2 * degree + 1, grid.count))
    full[:, :, family.inside(grid)] = matched
    return full


@lru_cache(maxsize=256)
def _functions(family: MatchedShells, degree: int, grid: TapGrid) -> Tensor:
    """Shipped or computed; (shells, 2 J + 1, taps)."""
    with torch.inference_mode(False), torch.no_grad():
        found = _shipped(family, degree, grid)
        if found is None:
            found = compute_functions(family, degree, grid)
        full = np.zeros((family.count, 2 * degree + 1, grid.count))
        full[list(family.shells[degree])] = orthonormal(found) if family.orthonormal else found
        return torch.from_numpy(full)


def _shipped(family: MatchedShells, degree: int, grid: TapGrid) -> np.ndarray | None:
    """The matched shells as shipped with the package, the same numbers on every machine, or ``None``."""
    size = grid.taps[0]
    if not _is_cubic(grid) or size not in SHIPPED_SIZES or not degree < min(len(family.shells), len(_ORDERS[size])):
        return None
    usual = MatchedShells.for_kernel(size)
    if family.shells[degree] != usual.shells[degree] or family.orders[degree] != usual.orders[degree]:
        return None
    if replace(family, shells=(), orders=(), orthonormal=True) != replace(usual, shells=(), orders=()):
        return None
    return _shipped_file().get(f"k{size}_J{degree}")


@lru_cache(maxsize=1)
def _shipped_file() -> dict[str, np.ndarray]:
    """The arrays of the shipped file by name; empty if it belongs to another version of the recipe."""
    path = resources.files("equivox.kernels").joinpath(SHIPPED_FILE)
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
        if int(archive["version"]) != VERSION:
            return {}
        return {name: archive[name] for name in archive.files}


def _is_cubic(grid: TapGrid) -> bool:
    """The same taps and steps along all axes."""
    return len(set(zip(grid.taps, grid.voxel_size_mm, strict=True))) == 1


def _positions(grid: TapGrid) -> np.ndarray:
    """Taps in voxels of the finest axis; rounded, so that equal ratios of steps give equal numbers in any unit."""
    return np.round(grid.positions_mm().numpy() / min(grid.voxel_size_mm), 12)


def _strict(admitted: tuple[int, ...], useful: int, degree: int) -> tuple[int, ...]:
    """As many shells as have independent moments: the outer ones, and for degree 0 the centre first."""
    if useful >= len(admitted):
        return admitted
    if degree == 0:
        return (admitted[0], *admitted[len(admitted) - useful + 1 :])
    return admitted[len(admitted) - useful :]
