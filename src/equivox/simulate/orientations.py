"""How particles lie: uniformly, about a preferred view, or as views were measured in a real data set.

The view is the third row of the rotation: the direction in the particle's frame that looks at the viewer.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.euler_relion import matrix_from_relion
from equivox.geometry.rotations import random_rotations

Orientations = Literal["uniform", "preferred", "measured"]


def draw_rotations(
    count: int,
    kind: Orientations,
    *,
    generator: torch.Generator,
    view_spread_deg: float = 20.0,
    preferred_view: tuple[float, float, float] = (0.0, 0.0, 1.0),
    view_histogram: Float[Tensor, "theta phi"] | None = None,
) -> Float[Tensor, "count 3 3"]:
    """Rotations in float64.

    Parameters
    ----------
    count
        How many.
    kind
        ``uniform`` over all rotations; ``preferred``: views normally distributed about one, the in-plane angle
        uniform; ``measured``: views drawn from a histogram, uniform within its bins, the in-plane angle uniform.
    generator
        Of random numbers.
    view_spread_deg
        Standard deviation of the angle along each of two directions about the preferred view.
    preferred_view
        Direction in the particle's frame; any length.
    view_histogram
        Counts over equal steps of cos(theta) from -1 and of phi from -pi, for ``measured``.

    Raises
    ------
    ConfigError
        If the histogram is missing or empty, or the preferred view has no length.
    """
    if kind == "uniform":
        return random_rotations(count, generator=generator)
    psi = 360.0 * torch.rand(count, generator=generator, dtype=torch.float64) - 180.0
    if kind == "measured":
        if view_histogram is None or float(view_histogram.sum()) <= 0 or bool((view_histogram < 0).any()):
            raise ConfigError("Measured orientations need a histogram of views with positive counts.")
        thetas, phis = view_histogram.shape
        drawn = torch.multinomial(view_histogram.double().flatten(), count, replacement=True, generator=generator)
        within = torch.rand(count, 2, generator=generator, dtype=torch.float64)
        cosine = -1.0 + 2.0 * (drawn // phis + within[:, 0]) / thetas
        phi = -math.pi + 2.0 * math.pi * (drawn % phis + within[:, 1]) / phis
        return matrix_from_relion(torch.rad2deg(phi), torch.rad2deg(cosine.clamp(-1.0, 1.0).arccos()), psi)
    view = torch.tensor(preferred_view, dtype=torch.float64)
    if not bool(view.isfinite().all()) or float(view.norm()) == 0.0:
        raise ConfigError(f"The preferred view is {preferred_view}; give a direction, for example 0 0 1.")
    view = view / view.norm()
    aside = torch.linalg.cross(view, torch.eye(3, dtype=torch.float64)[int(view.abs().argmin())])
    aside = aside / aside.norm()
    tilt = math.radians(view_spread_deg) * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    angle = tilt.norm(dim=1, keepdim=True)
    along = (tilt[:, :1] * aside + tilt[:, 1:] * torch.linalg.cross(view, aside)) / angle.clamp_min(1e-12)
    views = view * angle.cos() + along * angle.sin()
    rot = torch.rad2deg(torch.atan2(views[:, 1], views[:, 0]))
    return matrix_from_relion(rot, torch.rad2deg(views[:, 2].clamp(-1.0, 1.0).arccos()), psi)
