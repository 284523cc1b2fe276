"""Radial family of escnn's kernels: narrow rings whose band limit grows with their radius."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError

CENTER_SIGMA, INNER_SIGMA, OUTER_SIGMA = 0.005, 0.6, 0.4


@dataclass(frozen=True, slots=True)
class RingShells:
    """Gaussian rings of unit height, each with its own width and band limit (steerable.md 1.8).

    ``phi_n(d) = exp(-((d - r_n) / sigma_n)^2 / 2)``. The published choice has a delta in the centre, rings of width 0.6
    voxels and an outermost one of width 0.4; ring ``r`` of radius ``R = size // 2`` carries degrees up to
    ``min(2 r, R - r + 2)``.

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
    def for_kernel(cls, size: int = 5, *, voxel_size_mm: float = 1.0) -> RingShells:
        """Published rings of a cubic kernel.

        Parameters
        ----------
        size
            Taps per axis, odd and at least 3.
        voxel_size_mm
            Radii and widths scale with it.

        Raises
        ------
        ConfigError
            If the size is even or below 3.
        """
        if size % 2 == 0 or size < 3:
            raise ConfigError(f"rings are defined for odd kernel sizes from 3 on, got {size}.")
        outer = size // 2
        sigmas = [CENTER_SIGMA, *[INNER_SIGMA] * (outer - 1), OUTER_SIGMA]
        return cls(
            radii=tuple(ring * voxel_size_mm for ring in range(outer + 1)),
            sigmas=tuple(sigma * voxel_size_mm for sigma in sigmas),
            band_limits=tuple(min(2 * ring, outer - ring + 2) for ring in range(outer + 1)),
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
