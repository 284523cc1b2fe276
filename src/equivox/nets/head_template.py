"""A head template: what heads look like on average in their own frame, and how well a place in a scan agrees with it.

The agreement is the correlation of local contrasts over a ball, for any rotation, shift and size. Searched over all
rotations it is equivariant by construction: turn the scan, and the best rotation turns with it (up to sampling).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor, nn

from equivox.errors import ConfigError


@dataclass(frozen=True, slots=True)
class TemplatePoints:
    """Points of a template's ball, made once and laid over a scan as often as is wanted."""

    places_mm: Float[Tensor, "3 points"]
    """In the head's frame."""
    contrast: Float[Tensor, "points"]
    """Of the template there."""

    def thinned(self, every: int) -> TemplatePoints:
        """One point in so many."""
        return TemplatePoints(self.places_mm[:, ::every].contiguous(), self.contrast[::every].contiguous())


class HeadTemplate(nn.Module):
    """Mean local contrast of heads in the head's frame, on a cube about the brain's centre.

    Parameters
    ----------
    side
        Voxels along the cube's edge, even.
    voxel_size_mm
        Of the template, for a brain of the reference size.
    radius_mm
        Only points within this distance of the centre count: the head with a rim of what surrounds it.

    Notes
    -----
    ``contrast`` and ``brain`` (side, side, side) are buffers along the head's x, y, z axes: mean local contrast, and
    the share of heads in which a place is brain. Both are 0 everywhere until weights are loaded or a template is made
    (:func:`equivox.tasks.pose.template.make_template`); a template without masks has no ``brain``.
    """

    contrast: Tensor
    brain: Tensor

    def __init__(self, side: int = 44, voxel_size_mm: float = 3.0, radius_mm: float = 63.0) -> None:
        super().__init__()
        if side < 8 or side % 2 or not 2 * voxel_size_mm < radius_mm <= voxel_size_mm * side / 2:
            raise ConfigError(
                f"a head template of {side} voxels of {voxel_size_mm} mm cannot hold a ball of {radius_mm} mm; the "
                "side must be even, at least 8, and the ball must fit in."
            )
        self.side, self.voxel_size_mm, self.radius_mm = side, voxel_size_mm, radius_mm
        self.register_buffer("contrast", torch.zeros(side, side, side))
        self.register_buffer("brain", torch.zeros(side, side, side))

    def points(self, step: int = 1) -> TemplatePoints:
        """All points of the ball; means over ``step``^3 voxels: 2 is eight times fewer and lacks the finest detail."""
        contrast = self.contrast
        if step > 1:
            contrast = functional.avg_pool3d(contrast[None], step)[0]
        count = contrast.shape[0]
        axis = (torch.arange(count, dtype=torch.float32, device=contrast.device) - (count - 1) / 2) * (
            self.voxel_size_mm * step
        )
        grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"))
        inside = grid.square().sum(0) < self.radius_mm**2
        return TemplatePoints(grid[:, inside], contrast[inside])

    def forward(
        self,
        field: Float[Tensor, "2 x y z"],
        half_edge_mm: float,
        rotations: Float[Tensor, "pose 3 3"],
        shifts_mm: Float[Tensor, "pose 3"],
        log_sizes: Float[Tensor, "pose"],
        *,
        points: TemplatePoints | None = None,
    ) -> Float[Tensor, "pose"]:
        """Correlation of the template with a place in a scan, one number in [-1, 1] per pose.

        Parameters
        ----------
        field
            Local contrast and validity (1 inside the field of view) on a cube along the world's axes.
        half_edge_mm
            From the cube's centre to the centres of its outermost voxels.
        rotations, shifts_mm, log_sizes
            World from head: point ``p`` of the head lies at ``rotation @ p * exp(log_size) + shift`` from the cube's
            centre.
        points
            What is laid over the scan, from :meth:`points`; by default every voxel of the ball. A search that asks
            often makes them once.

        Notes
        -----
        Points outside the field of view do not count. Differentiable in rotations, shifts and sizes.
        """
        points = points or self.points()
        zyx = (rotations.flip(1) @ points.places_mm) * log_sizes.exp()[:, None, None] + shifts_mm.flip(1)[:, :, None]
        where = (zyx / half_edge_mm).transpose(1, 2)[:, :, None, None]
        seen = functional.grid_sample(field[None].expand(len(rotations), -1, -1, -1, -1), where, align_corners=True)
        contrast, weight = seen[:, 0, :, 0, 0], seen[:, 1, :, 0, 0]
        total = weight.sum(1, keepdim=True).clamp_min(1e-3)
        there = contrast - (weight * contrast).sum(1, keepdim=True) / total
        here = points.contrast - (weight * points.contrast).sum(1, keepdim=True) / total
        product = (weight * there * here).sum(1)
        norms = (weight * there.square()).sum(1) * (weight * here.square()).sum(1)
        return product / norms.clamp_min(1e-8).sqrt()
