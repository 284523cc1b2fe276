"""Radial families of steerable kernels: how a kernel depends on the distance from its centre.

A family is a frozen, hashable value: kernels are cached by it. Distances are in the unit of the voxel size (mm).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError

BandMode = Literal["conservative", "compromise", "sfcnn"]
BALL_MARGIN = 0.75
"""Taps beyond (size - 1) / 2 + 0.75 voxels are left out of the default ball: 27, 81, 251 taps at sizes 3, 5, 7."""


@runtime_checkable
class RadialFamily(Protocol):
    """What a kernel needs to know of its radial functions; a value that can be hashed."""

    def __hash__(self) -> int: ...

    @property
    def count(self) -> int:
        """Number of radial functions."""
        ...

    def values(self, distance: Float[Tensor, "*points"]) -> Float[Tensor, "count *points"]:
        """Every radial function at every distance."""
        ...

    def admits(self, index: int, degree: int) -> bool:
        """Whether radial function ``index`` may carry harmonics of ``degree``."""
        ...


@dataclass(frozen=True, slots=True)
class SmoothFinite:
    """Smooth bumps of finite support, equally spaced (E(3)-Pose; e3nn's ``smooth_finite``).

    ``phi_n(d) = 1.14136 e^2 u((d - c_n)/h + 1) u(1 - (d - c_n)/h)`` with ``u(t) = exp(-1/t)`` for ``t > 0``.

    Parameters
    ----------
    count
        Number of bumps.
    start, end
        Interval of distances (mm).
    cutoff
        ``False``: the first bump is centred at ``start`` and the last at ``end`` (its support reaches beyond).
        ``True``: all bumps vanish at both ends. ``"left"`` or ``"right"``: only at that end.
    """

    count: int
    start: float = 0.0
    end: float = 2.5
    cutoff: bool | Literal["left", "right"] = False

    def __post_init__(self) -> None:
        if self.count < (2 if self.cutoff is False else 1) or not self.end > self.start:
            raise ConfigError(
                f"a smooth-finite family with {self.count} functions on [{self.start}, {self.end}] mm does not exist; "
                f"use at least 2 functions (1 with a cutoff) on an interval of positive length."
            )

    def spacing_and_centers(self) -> tuple[float, tuple[float, ...]]:
        """Half-width ``h`` of a bump, and the centres ``c_n``."""
        intervals, first = {
            False: (self.count - 1, 0),
            True: (self.count + 1, 1),
            "left": (self.count, 1),
            "right": (self.count, 0),
        }[self.cutoff]
        width = (self.end - self.start) / intervals
        return width, tuple(self.start + (first + index) * width for index in range(self.count))

    def values(self, distance: Float[Tensor, "*points"]) -> Float[Tensor, "count *points"]:
        """Every bump at every distance; the maximum of a bump is 1.14136."""
        width, centers = self.spacing_and_centers()
        steps = torch.stack([(distance - center) / width for center in centers])
        return 1.14136 * math.exp(2.0) * _rise(steps + 1) * _rise(1 - steps)

    def admits(self, index: int, degree: int) -> bool:
        """Every bump carries every degree."""
        return True


@dataclass(frozen=True, slots=True)
class GaussianShells:
    """Gaussian shells, each with its own band limit (3D steerable CNNs).

    ``phi_n(d) = exp(-((d - r_n) / sigma)^2 / 2) / (sqrt(2 pi) sigma)``; shell ``n`` carries degrees up to its limit.

    Parameters
    ----------
    radii
        Radius of each shell (mm).
    sigma
        Width of all shells (mm); published: 0.6 voxels.
    band_limits
        Highest degree per shell.
    ball_radius
        Taps farther away (mm) are zero; ``None`` keeps the corners of the cube, as published.
    """

    radii: tuple[float, ...]
    sigma: float = 0.6
    band_limits: tuple[int, ...] = ()
    ball_radius: float | None = None

    def __post_init__(self) -> None:
        if not self.radii or self.sigma <= 0 or len(self.band_limits) != len(self.radii):
            raise ConfigError(
                f"Gaussian shells need radii, a positive sigma and one band limit per radius; got radii {self.radii}, "
                f"sigma {self.sigma}, band limits {self.band_limits}."
            )

    @classmethod
    def for_kernel(
        cls,
        size: int = 5,
        *,
        voxel_size_mm: float = 1.0,
        mode: BandMode = "compromise",
        sigma: float = 0.6,
        ball: bool = True,
    ) -> GaussianShells:
        """Published shells of a cubic kernel: radii 0, 1, ... ``size // 2`` voxels; band limits by ``mode``.

        Parameters
        ----------
        size
            Taps per axis, at least 2.
        voxel_size_mm
            The (finest) voxel edge; radii and sigma scale with it.
        mode
            ``"conservative"`` 0, 2, 4, 6 ...; ``"compromise"`` 0, 3, 5, 7 ...; ``"sfcnn"`` 0, 4, 6, 8 ...
        sigma
            Width in voxels.
        ball
            Leave out the corners: taps beyond ``(size - 1) / 2 + 0.75`` voxels (81 of 125 taps stay at size 5).
        """
        shells = size // 2 + 1
        offset = {"conservative": 0, "compromise": 1, "sfcnn": 2}[mode]
        return cls(
            radii=tuple(index * voxel_size_mm for index in range(shells)),
            sigma=sigma * voxel_size_mm,
            band_limits=tuple(0 if index == 0 else 2 * index + offset for index in range(shells)),
            ball_radius=((size - 1) / 2 + BALL_MARGIN) * voxel_size_mm if ball else None,
        )

    @property
    def count(self) -> int:
        """Number of shells."""
        return len(self.radii)

    def values(self, distance: Float[Tensor, "*points"]) -> Float[Tensor, "count *points"]:
        """Every shell at every distance; zero beyond the ball."""
        shells = torch.stack([torch.exp(-0.5 * ((distance - radius) / self.sigma) ** 2) for radius in self.radii])
        shells = shells / (math.sqrt(2.0 * math.pi) * self.sigma)
        if self.ball_radius is not None:
            shells = shells * (distance <= self.ball_radius * (1 + 1e-9))
        return shells

    def admits(self, index: int, degree: int) -> bool:
        """Whether ``degree`` is within the band limit of a shell."""
        return degree <= self.band_limits[index]


def _rise(t: Tensor) -> Tensor:
    """``exp(-1 / t)`` for ``t > 0``, else 0."""
    positive = t > 0
    return torch.where(positive, torch.exp(-1 / torch.where(positive, t, torch.ones_like(t))), torch.zeros_like(t))
