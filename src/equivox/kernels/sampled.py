"""Kernel functions of one degree on a grid of taps, from any family.

Most families are radial: ``k(x) = phi_n(|x|) Y^J(x / |x|)``. A matched family is not: its functions are
given tap by tap.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.harmonics import spherical_harmonics
from equivox.kernels.radial import RadialFamily
from equivox.kernels.taps import TapGrid


@runtime_checkable
class TapFamily(Protocol):
    """A family whose functions are known only on taps; frozen and hashable, for kernels are cached by it."""

    @property
    def count(self) -> int:
        """Number of functions per degree, those that are not admitted included."""
        ...

    def admits(self, index: int, degree: int) -> bool:
        """Whether function ``index`` exists for ``degree``."""
        ...

    def functions(self, degree: int, grid: TapGrid) -> Float[Tensor, "count dimension taps"]:
        """Every function on every tap, float64; zero where not admitted."""
        ...

    def __hash__(self) -> int: ...


def sampled_functions(
    family: RadialFamily | TapFamily, degree: int, grid: TapGrid
) -> Float[Tensor, "count dimension taps"]:
    """All functions of a family for one filter degree, float64, as they come (component harmonics, no scaling).

    Parameters
    ----------
    family
        Radial or given on taps.
    degree
        ``J``; the result has ``2 J + 1`` components, zero at the origin for ``J > 0``.
    grid
        Taps; the last axis of the result runs over them, z fastest.
    """
    with torch.inference_mode(False), torch.no_grad():
        if isinstance(family, TapFamily):
            return family.functions(degree, grid)
        positions = grid.positions_mm()
        return family.values(positions.norm(dim=-1))[:, None] * spherical_harmonics(degree, positions).mT


def unit_functions(
    family: RadialFamily | TapFamily, degree: int, grid: TapGrid
) -> Float[Tensor, "functions dimension taps"]:
    """The admitted functions, scaled to norm 1; those that vanish on every tap are left out."""
    functions = sampled_functions(family, degree, grid)
    admitted = [index for index in range(family.count) if family.admits(index, degree)]
    functions = functions[admitted]
    norms = functions.flatten(1).norm(dim=1)
    alive = norms > 1e-12
    return functions[alive] / norms[alive, None, None]
