"""What is imaged: a particle that projects itself, from atoms (in closed form) or from a map (by Fourier slices)."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.simulate.point_particle import PointParticle, project_points
from equivox.simulate.projections import SIGMA_PER_RESOLUTION, project

NARROWEST_PX = 0.8
"""Gaussians narrower than this are drawn on finer pixels and the images' Fourier transform is cropped."""
CELL_PER_SIGMA = 0.7
"""Points within cells of this edge are drawn as one."""
MASS_INSIDE = 0.98
"""Share of a map's positive mass within its radius."""


@dataclass(frozen=True, slots=True, eq=False)
class Specimen:
    """A particle about its own origin: either points or a map ``[z, y, x]`` with its origin at ``side // 2``."""

    name: str
    radius_angstrom: float
    points: PointParticle | None = None
    volume: Float[Tensor, "side side side"] | None = None
    voxel_size_angstrom: float = 0.0

    def images(
        self,
        rotations: Float[Tensor, "image 3 3"],
        *,
        side: int,
        pixel_size_angstrom: float,
        shifts_px: Float[Tensor, "image 2"] | None = None,
    ) -> Float[Tensor, "image side side"]:
        """Projections [y, x] with the origin at pixel ``side // 2`` plus the shift (x, y), protein positive."""
        if self.volume is not None:
            return project(
                self.volume, rotations, voxel_size_angstrom=self.voxel_size_angstrom,
                pixel_size_angstrom=pixel_size_angstrom, image_side=side, shifts_px=shifts_px,
            )  # fmt: skip
        assert self.points is not None
        finer = max(1, math.ceil(NARROWEST_PX * pixel_size_angstrom / self.points.sigma_angstrom))
        fine = side * finer
        middle = 0.5 * (1 - fine % 2)  # from the centre (n - 1) / 2 of the drawing to the pixel n // 2
        moved = torch.full((len(rotations), 2), middle)
        if shifts_px is not None:
            moved = moved + shifts_px.float() * finer
        if finer > 1:  # sample 0 stays where it is: the middle n // 2 of the coarse image lies at finer * (side // 2)
            moved = moved + (finer * (side // 2) - fine // 2)
        drawn = project_points(
            self.points, rotations, side=fine, pixel_size_angstrom=pixel_size_angstrom / finer, shifts_px=moved
        )
        return drawn if finer == 1 else _cropped(drawn, side)

    def broken(self, *, generator: torch.Generator) -> Specimen:
        """A part of the particle: what lies beyond a random plane near its centre is gone."""
        normal = functional.normalize(torch.randn(3, generator=generator), dim=0)
        offset = 0.3 * self.radius_angstrom * (2.0 * float(torch.rand((), generator=generator)) - 1.0)
        if self.points is not None:
            kept = self.points.positions_angstrom.float() @ normal < offset
            if not bool(kept.any()):
                return self
            part = replace(
                self.points,
                positions_angstrom=self.points.positions_angstrom[kept],
                weights=self.points.weights[kept],
            )
            return replace(self, points=part, name=f"part of {self.name}")
        assert self.volume is not None
        side = self.volume.shape[0]
        axis = (torch.arange(side) - side // 2) * self.voxel_size_angstrom
        z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
        distance = normal[0] * x + normal[1] * y + normal[2] * z - offset
        mask = torch.sigmoid(-distance / self.voxel_size_angstrom).to(self.volume.dtype)
        return replace(self, volume=self.volume * mask, name=f"part of {self.name}")

    def mass(self) -> float:
        """Integral of the density."""
        if self.points is not None:
            return float(self.points.weights.sum())
        assert self.volume is not None
        return float(self.volume.sum()) * self.voxel_size_angstrom**3


def specimen_from_atoms(
    name: str,
    positions_angstrom: Float[Tensor, "atom 3"],
    electrons: Float[Tensor, "atom"],
    *,
    resolution_angstrom: float,
) -> Specimen:
    """Atoms as Gaussians of 0.225 times the resolution, those near each other drawn as one of their joint width.

    Raises
    ------
    ConfigError
        If the resolution is not positive.
    """
    if not (math.isfinite(resolution_angstrom) and resolution_angstrom > 0):
        raise ConfigError(f"The resolution is {resolution_angstrom} Å; give a positive number.")
    sigma = SIGMA_PER_RESOLUTION * resolution_angstrom
    points, weights, spread = _merged(positions_angstrom.double(), electrons.double(), CELL_PER_SIGMA * sigma)
    width = math.sqrt(max(sigma**2 - spread, 0.25 * sigma**2))
    radius = float(positions_angstrom.norm(dim=1).quantile(0.99)) + 2.0 * sigma
    return Specimen(name, radius, PointParticle(points.float(), weights.float(), width))


def specimen_from_map(name: str, volume: Float[Tensor, "side side side"], *, voxel_size_angstrom: float) -> Specimen:
    """A map ``[z, y, x]`` with its origin at ``side // 2``; its radius holds 98 % of its positive mass.

    Raises
    ------
    ConfigError
        If the map holds nothing positive.
    """
    side = volume.shape[0]
    axis = (torch.arange(side) - side // 2) * voxel_size_angstrom
    distance = (axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt().flatten()
    mass = volume.flatten().clamp_min(0.0).double()
    if float(mass.sum()) <= 0:
        raise ConfigError(f"{name} holds nothing positive; give a density map.")
    order = distance.argsort()
    within = mass[order].cumsum(0) / mass.sum()
    radius = float(distance[order][int((within < MASS_INSIDE).sum())])
    return Specimen(name, radius, None, volume.float(), voxel_size_angstrom)


def blob_cloud(like: Specimen, *, generator: torch.Generator, count: int = 30) -> Specimen:
    """A decoy: Gaussian blobs at random within an ellipsoid of the particle's size, of the particle's mass."""
    radius = like.radius_angstrom
    axes = radius * (0.4 + 0.6 * torch.rand(3, generator=generator))
    inside = functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    inside = inside * torch.rand(count, 1, generator=generator) ** (1 / 3) * axes * 0.9
    weights = (0.5 + torch.rand(count, generator=generator)) * like.mass() / count
    return Specimen("decoy", radius, PointParticle(inside, weights, 0.15 * radius))


def _merged(positions: Tensor, weights: Tensor, cell: float) -> tuple[Tensor, Tensor, float]:
    """Points summed within cubes: their centres of weight, their sums, and the mean variance within per axis."""
    keys = (positions / cell).floor().long()
    _, owner = torch.unique(keys, dim=0, return_inverse=True)
    count = int(owner.max()) + 1
    total = torch.zeros(count, dtype=weights.dtype).index_add_(0, owner, weights)
    center = torch.zeros(count, 3, dtype=positions.dtype).index_add_(0, owner, positions * weights[:, None])
    center = center / total[:, None]
    variance = (weights[:, None] * (positions - center[owner]).square()).sum() / (3.0 * weights.sum())
    return center, total, float(variance)


def _cropped(images: Tensor, side: int) -> Tensor:
    """Images of fewer samples by cropping the Fourier transform; sample 0 stays, the mean is kept."""
    fine = images.shape[-1]
    spectrum = torch.fft.rfft2(images)
    above, below = (side + 1) // 2, side // 2
    rows = torch.cat([spectrum[:, :above], spectrum[:, fine - below :]], dim=1)
    return torch.fft.irfft2(rows[:, :, : side // 2 + 1], s=(side, side)) * (side / fine) ** 2
