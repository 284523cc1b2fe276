"""The eight Tetris pieces on a grid, turned by cubic resampling (shapes and task: data notes, section D)."""

from __future__ import annotations

import numpy
import roma
import torch
from scipy.ndimage import affine_transform
from torch import Tensor

from equivox.tasks.shapes.data import rotate_volume
from equivox.tasks.shapes.source_tetris import tetris_volume

NAMES = ("chiral 1", "chiral 2", "square", "line", "corner", "L", "T", "zigzag")
CELLS = (
    "000 001 100 110", "010 011 110 100", "000 100 010 110", "000 001 002 003",
    "000 001 010 100", "000 001 002 010", "000 001 002 011", "000 100 110 210",
)  # fmt: skip


def blocks(cell: int) -> numpy.ndarray:
    """The pieces as 0 and 1, (8, 4 cell, 4 cell, 4 cell); they sit in the corner of their block, as published."""
    pieces = numpy.zeros((8, 4, 4, 4), dtype=numpy.float32)
    for number, cells in enumerate(CELLS):
        for text in cells.split():
            pieces[(number, *(int(digit) for digit in text))] = 1.0
    return pieces.repeat(cell, 1).repeat(cell, 2).repeat(cell, 3)


def turned_pieces(rotations: Tensor, side: int, cell: int) -> Tensor:
    """(draw, 8, 1, side, side, side): piece i of draw d turned by ``rotations[d, i]`` about the block's centre."""
    sources = [numpy.pad(piece, 4) for piece in blocks(cell)]  # room for the spline's support
    half_in, half_out = (sources[0].shape[0] - 1) / 2, (side - 1) / 2
    result = torch.zeros(*rotations.shape[:2], 1, side, side, side)
    for draw, row in enumerate(rotations.double()):
        for number, rotation in enumerate(row):
            back = rotation.mT.numpy()
            offset = half_in - back @ numpy.full(3, half_out)
            volume = affine_transform(sources[number], back, offset, output_shape=(side,) * 3, order=3, mode="constant")
            result[draw, number, 0] = torch.from_numpy(volume)
    return result


def library_pieces(rotations: Tensor, side: int, cell: int) -> Tensor:
    """The same as `equivox shapes` makes them: drawn upright on the grid itself, then resampled on it.

    Blocks of even length on an odd grid lie half a voxel off, so edges are softer than those of :func:`turned_pieces`.
    """
    upright = [tetris_volume(number, side, float(cell), False) for number in range(8)]
    return torch.stack(
        [
            torch.stack([rotate_volume(piece, turn) for piece, turn in zip(upright, row, strict=True)])
            for row in rotations
        ]
    )


def random_rotations(*shape: int, seed: int) -> Tensor:
    """Uniform on SO(3)."""
    draw = torch.Generator().manual_seed(seed)
    quaternions = torch.nn.functional.normalize(torch.randn(*shape, 4, generator=draw, dtype=torch.float64), dim=-1)
    return roma.unitquat_to_rotmat(quaternions)
