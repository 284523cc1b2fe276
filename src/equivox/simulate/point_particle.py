"""A particle as Gaussian points of one width, whose pictures have a closed form: no voxel is ever turned."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

AT_ONCE = 1 << 22
"""Numbers per portion of pictures."""


@dataclass(frozen=True, slots=True, eq=False)
class PointParticle:
    """Gaussian points about the particle's centre.

    Parameters
    ----------
    positions_angstrom
        (x, y, z) of every point in the particle's own frame, whose origin is the centre of the pictures.
    weights
        Of every point.
    sigma_angstrom
        Standard deviation of each.
    """

    positions_angstrom: Float[Tensor, "point 3"]
    weights: Float[Tensor, "point"]
    sigma_angstrom: float

    @property
    def radius_angstrom(self) -> float:
        """Distance of the farthest point from the centre."""
        return float(self.positions_angstrom.norm(dim=-1).max())


def project_points(
    particle: PointParticle,
    rotations: Float[Tensor, "picture 3 3"],
    *,
    side: int,
    pixel_size_angstrom: float,
    shifts_px: Float[Tensor, "picture 2"] | None = None,
) -> Float[Tensor, "picture y x"]:
    """Line integrals along z of the turned particle: ``I(x, y) = sum_j a_j g(x - (R c_j)_x) g(y - (R c_j)_y)``.

    Parameters
    ----------
    rotations
        Poses: point ``c`` of the particle appears at the first two components of ``R c``.
    side, pixel_size_angstrom
        Of the pictures; pixel ``j`` lies at ``(j - (side - 1) / 2)`` pixels.
    shifts_px
        (x, y) of the particle's centre.

    Returns
    -------
    Pictures [y, x], float32, in units of weight per Å².
    """
    axis = (torch.arange(side, dtype=torch.float32) - (side - 1) / 2) * pixel_size_angstrom
    points, weights = particle.positions_angstrom.float(), particle.weights.float()
    scale = 1.0 / (2.0 * math.pi * particle.sigma_angstrom**2)
    portion = max(1, AT_ONCE // max(1, len(points) * side))
    found = []
    for start in range(0, len(rotations), portion):
        turned = rotations[start : start + portion, :2].float() @ points.mT  # (picture, 2, point)
        if shifts_px is not None:
            turned = turned + shifts_px[start : start + portion, :, None].float() * pixel_size_angstrom
        reach = (axis[:, None] - turned[:, :, None]) / particle.sigma_angstrom  # (picture, 2, side, point)
        bell = torch.exp(-0.5 * reach.square())
        found.append(torch.bmm(bell[:, 1] * (weights * scale), bell[:, 0].mT))
    return torch.cat(found) if found else torch.zeros(0, side, side)
