"""The eight pieces of Tetris in space, as published and as we would have them (steerable.md 5.1, data_shapes.md D)."""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError
from equivox.tasks.shapes.config import InputConfig
from equivox.tasks.shapes.data import Content, Grid, Shape

PIECES: dict[str, tuple[tuple[int, int, int], ...]] = {
    "chiral 1": ((0, 0, 0), (0, 0, 1), (1, 0, 0), (1, 1, 0)),
    "chiral 2": ((0, 1, 0), (0, 1, 1), (1, 1, 0), (1, 0, 0)),
    "square": ((0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)),
    "line": ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 0, 3)),
    "corner": ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "L": ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 0)),
    "T": ((0, 0, 0), (0, 0, 1), (0, 0, 2), (0, 1, 1)),
    "zigzag": ((0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0)),
}
"""Name -> four unit cells; the first two are mirror images of each other."""
CELLS = 4
"""The pieces lie in a corner of a block of so many cells a side, which is centred in the volume."""


class TetrisSource:
    """Eight objects of eight classes; every split is the same eight, which orientation sets apart.

    Parameters
    ----------
    config
        Side of the volume, length of a cell, and how it is enlarged.
    """

    def __init__(self, config: InputConfig) -> None:
        self.config = config
        self.name = "tetris"
        self.classes = tuple(PIECES)
        self.shapes = tuple(
            Shape(id=f"{name}/{split}", label=label, split=split)
            for split in ("train", "validation", "test")
            for label, name in enumerate(PIECES)
        )
        self.capacity = 0

    def content(self, index: int) -> Content:
        """One piece, upright, values between 0 and 1."""
        label = self.shapes[index].label
        return Grid(tetris_volume(label, self.config.side, self.config.cell, self.config.enlarge == "zoom"))


@lru_cache(maxsize=64)
def tetris_volume(piece: int, side: int, cell: float, zoom: bool) -> Float[Tensor, "channel x y z"]:
    """One piece as a volume; shared, do not write to it.

    Parameters
    ----------
    piece
        Row of :data:`PIECES`.
    side
        Voxels along each axis.
    cell
        Voxels along a cell; with ``zoom`` on average.
    zoom
        As published: the zoom maps output ``i`` of ``4 cell`` to input ``i * 3 / (4 cell - 1)``, rounded, so that cells
        of 5 become 4, 6, 6, 4 voxels. Otherwise a voxel's value is the share of it that the piece covers.

    Raises
    ------
    ConfigError
        If the block of four cells does not lie on whole voxels, which the zoom needs.
    """
    if zoom:
        length = round(CELLS * cell)
        if (side - length) % 2:
            raise ConfigError(f"side {side} and {length} voxels of pieces differ by an odd number; change --side by 1.")
        places = (torch.arange(length, dtype=torch.float64) * (CELLS - 1) / (length - 1) + 0.5).floor()
        covers = torch.stack([(places == index).float() for index in range(CELLS)])
        covers = torch.nn.functional.pad(covers, ((side - length) // 2,) * 2)
    else:
        edges = torch.arange(side + 1, dtype=torch.float64) - side / 2  # of voxels, from the centre
        starts = (torch.arange(CELLS, dtype=torch.float64) - CELLS / 2) * cell
        low = torch.maximum(edges[None, :-1], starts[:, None])
        high = torch.minimum(edges[None, 1:], starts[:, None] + cell)
        covers = (high - low).clamp_min(0.0).float()
    cells = list(PIECES.values())[piece]
    parts = [torch.einsum("x,y,z->xyz", covers[x], covers[y], covers[z]) for x, y, z in cells]
    return torch.stack(parts).sum(dim=0)[None]
