"""What a network shall say at every output of a tile, from the positions of labels."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

FAR = 1e3
"""Distance, in radii, where there is no label at all."""


def distance_map(
    labels: Float[Tensor, "label 2"],
    rows: Float[Tensor, " row"],
    columns: Float[Tensor, " column"],
    *,
    radius_px: float,
) -> Float[Tensor, "row column"]:
    """Distance from every place to the nearest label, in particle radii; at most :data:`FAR`."""
    if len(labels) == 0:
        return torch.full((len(rows), len(columns)), FAR)
    dy = (rows[:, None] - labels[None, :, 0]).square()
    dx = (columns[:, None] - labels[None, :, 1]).square()
    nearest = (dy[:, None, :] + dx[None, :, :]).amin(dim=2)
    return (nearest.sqrt() / radius_px).clamp(max=FAR)


def soft_target(distance: Float[Tensor, "*place"], *, width: float) -> Float[Tensor, "*place"]:
    """A Gaussian of the distance [radii]: 1 on a label, so that log-odds have a summit there and nowhere else."""
    return torch.exp(-0.5 * (distance / width).square())


def edge_weight(
    rows: Float[Tensor, " row"], columns: Float[Tensor, " column"], size: tuple[int, int], *, margin_px: float
) -> Float[Tensor, "row column"]:
    """1 inside the image and at least ``margin_px`` from its edge, else 0."""
    inside = [
        ((places >= margin_px) & (places <= length - 1 - margin_px)).float()
        for places, length in zip((rows, columns), size, strict=True)
    ]
    return inside[0][:, None] * inside[1][None, :]
