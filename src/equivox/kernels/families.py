"""Families by name: the matched one for new networks, those of three other libraries for comparison and import.

========== ================================================================ =====================================
name       family                                                           taps
========== ================================================================ =====================================
matched    :class:`MatchedShells`, orthonormal, nearly exact at every angle ball: 27, 81, 251 taps at sizes 3, 5, 7
se3cnn     :class:`GaussianShells`, band limits "compromise"                whole cube
e3nn       :class:`SmoothFinite` with cutoff, as many bumps as taps         inside half the kernel's length
escnn      :class:`RingShells`, band limits "default1"                      whole cube
========== ================================================================ =====================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from equivox.errors import ConfigError
from equivox.geometry.irreps import Irreps
from equivox.kernels.basis3d import filter_degrees
from equivox.kernels.matched import MatchedShells
from equivox.kernels.radial import GaussianShells, RadialFamily, SmoothFinite
from equivox.kernels.rings import RingShells
from equivox.kernels.sampled import TapFamily
from equivox.kernels.taps import TapGrid

BasisName = Literal["matched", "se3cnn", "e3nn", "escnn"]
BASIS_NAMES: tuple[str, ...] = get_args(BasisName)


def make_family(name: str, grid: TapGrid) -> RadialFamily | TapFamily:
    """The family of a name on some taps, at its library's default settings.

    Parameters
    ----------
    name
        One of :data:`BASIS_NAMES`.
    grid
        Taps; lengths follow its finest voxel edge.

    Raises
    ------
    ConfigError
        For another name, or rings on an even size.
    """
    size, step = max(grid.taps), min(grid.voxel_size_mm)
    if name == "matched":
        return MatchedShells.for_grid(grid)
    if name == "se3cnn":
        return GaussianShells.for_kernel(size, voxel_size_mm=step, ball=False)
    if name == "e3nn":
        return SmoothFinite(size, 0.0, size * step / 2, True)
    if name == "escnn":
        return RingShells.for_kernel(size, voxel_size_mm=step)
    raise ConfigError(f"there is no basis {name!r}; take one of {', '.join(BASIS_NAMES)}, or give a family as radial.")


def require_reach(
    irreps_in: Irreps,
    irreps_out: Irreps,
    reached: Sequence[int],
    grid: TapGrid,
    family: RadialFamily | TapFamily,
    lmax: int | None,
) -> None:
    """Refuse a layout of which some output block would be zero for want of filters.

    Blocks that parity or ``lmax`` keep out are meant to be zero; a block whose only filters the family cannot make on
    these taps is a mistake, and the sentence says which and why.

    Parameters
    ----------
    reached
        Output blocks that some path reaches.

    Raises
    ------
    ConfigError
        As said.
    """
    for block, (multiplicity, irrep) in enumerate(irreps_out):
        if block in reached or not multiplicity:
            continue
        degrees = sorted({j for copies, source in irreps_in if copies for j in filter_degrees(source, irrep, lmax)})
        if degrees:
            raise ConfigError(
                f"{multiplicity}x{irrep} cannot be reached from {irreps_in} by a kernel of {_size(grid)} taps: "
                f"that takes filters of degree {' or '.join(map(str, degrees))}, and {_why(family, degrees[0], grid)}"
            )


def _why(family: RadialFamily | TapFamily, degree: int, grid: TapGrid) -> str:
    """Why a family carries nothing of a degree, and what to do."""
    if isinstance(family, TapFamily):
        try:
            family.functions(degree, grid)
        except ConfigError as error:
            return str(error)
    return f"{type(family).__name__} carries none of them at this size; take a larger kernel or another family."


def _size(grid: TapGrid) -> str:
    """Taps along x, y, z."""
    return "x".join(str(taps) for taps in grid.taps)
