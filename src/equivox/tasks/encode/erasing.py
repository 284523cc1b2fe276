"""Holes for masked reconstruction: soft balls at random places, a law that knows no direction (unlike cubes)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.run.seeds import draw_uniform

COUNT = (6, 10)
RADIUS_MM = (8.0, 14.0)
EDGE_MM = 2.0


def draw_holes(
    mask: Float[Tensor, "1 x y z"], voxel_size_mm: float, *, generator: torch.Generator
) -> Float[Tensor, "1 x y z"]:
    """1 where a brain is erased, 0 elsewhere: 6 to 10 balls of 8 to 14 mm with smooth edges, centred in the brain."""
    inside = (mask[0] > 0.5).nonzero()
    kept = torch.ones(mask.shape[1:])
    if not len(inside):
        return torch.zeros_like(mask)
    axes = [torch.arange(side, dtype=torch.float32) for side in mask.shape[1:]]
    count = int(torch.randint(COUNT[0], COUNT[1] + 1, (), generator=generator))
    for _ in range(count):
        place = inside[int(torch.randint(len(inside), (), generator=generator))].float()
        place = place + torch.rand(3, generator=generator) - 0.5
        radius = draw_uniform(*RADIUS_MM, generator=generator)
        x, y, z = ((axis - center) * voxel_size_mm for axis, center in zip(axes, place, strict=True))
        distance = (x[:, None, None] ** 2 + y[None, :, None] ** 2 + z[None, None, :] ** 2).sqrt()
        kept = kept * torch.sigmoid((distance - radius) / EDGE_MM)
    return (1.0 - kept)[None]
