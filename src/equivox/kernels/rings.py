"""Radial family of escnn's kernels: narrow rings whose band limit grows with their radius."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError

RingCutoff = Literal["default1", "default2", "default3"]
CENTER_SIGMA, INNER_SIGMA, OUTER_SIGMA = 0.005, 0.6, 0.4


@dataclass(frozen=True, slots=True)
class RingShells:
    """Gaussian rings of unit height, each with its own width and band limit (steerable.md 1.8).

    ``phi_n(d) = exp(-((d - r_n) / sigma_n)^2 / 2)``. The published choice has a delta in the centre, rings of width 0.6
    voxels and an outermost one of width 0.4; ring ``r`` carries degrees up to a cut-off.

    Parameters
    ----------
    radii, sigmas
        Radius and width of each ring (mm).
    band_limits
        Highest degree per ring.
    """

    radii: tuple[float, ...]
    sigmas: tuple[float, ...]
    band_limits: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.radii or not len(self.radii) == len(self.sigmas) == len(self.band_limits) or min(self.sigmas) <= 0:
            raise ConfigError(
                f"rings need a radius, a positive width and a band limit each; got radii {self.radii}, widths "
                f"{self.sigmas}, band limits {self.band_limits}."
            )

    @classmethod
    def for_kernel(
        cls, size: int = 5, *, voxel_size_mm: float = 1.0, cutoff: RingCutoff | float = "default1"
    ) -> RingShells:
        """Published rings of a cubic kernel, of radii ``r = 0, 1 ... R = size // 2`` voxels.

        Parameters
        ----------
        size
            Taps per axis, odd and at least 3.
        voxel_size_mm
            Radii and widths scale with it.
        cutoff
            Highest degree of ring ``r``: ``"default1"`` ``min(2 r, R - r + 2)``; ``"default2"`` 0 in the centre,
            1 outermost, between ``2 r - ((r + 1) mod 2)`` (and nowhere above ``2 r``); ``"default3"`` 0 in the centre,
            1 outermost, 2 between; a number ``c``: ``c r``.

        Raises
        ------
        ConfigError
            If the size is even or below 3, or the cut-off unknown or negative.
        """
        if size % 2 == 0 or size < 3:
            raise ConfigError(f"rings are defined for odd kernel sizes from 3 on, got {size}.")
        outer = size // 2
        sigmas = [CENTER_SIGMA, *[INNER_SIGMA] * (outer - 1), OUTER_SIGMA]
        return cls(
            radii=tuple(ring * voxel_size_mm for ring in range(outer + 1)),
            sigmas=tuple(sigma * voxel_size_mm for sigma in sigmas),
            band_limits=tuple(_highest_degree(ring, outer, cutoff) for ring in range(outer + 1)),
        )

    @property
    def count(self) -> int:
        """Number of rings."""
        return len(self.radii)

    def values(self, distance: Float[Tensor, "*points"]) -> Float[Tensor, "count *points"]:
        """Every ring at every distance."""
        return torch.stack(
            [
                torch.exp(-0.5 * ((distance - radius) / sigma) ** 2)
                for radius, sigma in zip(self.radii, self.sigmas, strict=True)
            ]
        )

    def admits(self, index: int, degree: int) -> bool:
        """Whether ``degree`` is within the band limit of a ring."""
        return degree <= self.band_limits[index]


def _highest_degree(ring: int, outer: int, cutoff: RingCutoff | float) -> int:
    """Highest degree that a ring carries."""
    if isinstance(cutoff, (int, float)):
        if not 0 <= cutoff < math.inf:
            raise ConfigError(f"a cut-off of {cutoff} degrees per voxel of radius does not exist; give 0 or more.")
        return int(cutoff * ring + 1e-9)
    if cutoff == "default1":
        return min(2 * ring, outer - ring + 2)
    if cutoff not in ("default2", "default3"):
        raise ConfigError(f"there is no cut-off {cutoff!r}; take default1, default2, default3 or a number.")
    if ring in (0, outer):
        return 1 if ring else 0
    return 2 * ring - (ring + 1) % 2 if cutoff == "default2" else 2
