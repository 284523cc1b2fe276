"""Scoring an image of any size in tiles whose seams are exact, in bounded memory.

A network without padding sees ``field_px`` pixels around each output and puts an output every ``stride_px`` pixels. The
image is padded with 0 (the mean of a normalised micrograph) so that output o stands at pixel ``stride * o``, and cut
into tiles that share what their outputs see: every output is computed from the same pixels as without tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ScoreGrid:
    """Where a network without padding puts its outputs.

    Parameters
    ----------
    field_px
        Pixels that one output sees along each axis; odd.
    stride_px
        Pixels between outputs.
    """

    field_px: int
    stride_px: int

    def __post_init__(self) -> None:
        if self.field_px < 1 or self.field_px % 2 == 0 or self.stride_px < 1:
            raise ValueError(f"expected an odd field and a positive stride, got {self.field_px} and {self.stride_px}")

    @property
    def margin_px(self) -> int:
        """Pixels that an output sees to each side."""
        return self.field_px // 2

    def outputs(self, pixels: int) -> int:
        """Outputs along an axis, at the pixels 0, stride, 2 stride, ...

        Examples
        --------
        >>> ScoreGrid(45, 2).outputs(512), ScoreGrid(45, 2).outputs(465)
        (256, 233)
        """
        return (pixels - 1) // self.stride_px + 1

    def pad(self, image: Float[Tensor, "y x"]) -> Float[Tensor, "y2 x2"]:
        """The image with the margin that its first and last outputs see."""
        last = [(self.outputs(size) - 1) * self.stride_px + 1 - size for size in image.shape]
        margin = self.margin_px
        return functional.pad(image, (margin, margin + last[1], margin, margin + last[0]))


@dataclass(frozen=True, slots=True)
class Tile:
    """A block of outputs: ``rows`` and ``columns`` of the output map, and the padded pixels that they see."""

    rows: slice
    columns: slice
    image: Float[Tensor, "y x"]


def tiles(
    image: Float[Tensor, "y x"], grid: ScoreGrid, outputs_at_once: int, *, halo: int = 0
) -> Iterator[tuple[Tile, tuple[slice, slice]]]:
    """Cut an image into tiles of at most ``outputs_at_once`` outputs a side.

    Parameters
    ----------
    image
        Normalised; padded here.
    grid
        Of the network.
    outputs_at_once
        Side of the block of outputs that a tile is asked for.
    halo
        Outputs around the block that are computed as well (for maxima that need their neighbours).

    Yields
    ------
    The tile with its halo, and where the block without the halo lies in it.
    """
    if outputs_at_once < 1 or halo < 0:
        raise ValueError(f"expected a positive tile and halo >= 0, got {outputs_at_once} and {halo}")
    height, width = (grid.outputs(size) for size in image.shape)
    padded = grid.pad(image)
    down, right = (_even_side(size, outputs_at_once) for size in (height, width))
    for top in range(0, height, down):
        for left in range(0, width, right):
            block = (_span(top, down, height, 0), _span(left, right, width, 0))
            outer = (_span(top, down, height, halo), _span(left, right, width, halo))
            pixels = tuple(
                slice(span.start * grid.stride_px, (span.stop - 1) * grid.stride_px + grid.field_px) for span in outer
            )
            inner = tuple(
                slice(own.start - around.start, own.stop - around.start)
                for own, around in zip(block, outer, strict=True)
            )
            yield Tile(outer[0], outer[1], padded[pixels[0], pixels[1]]), (inner[0], inner[1])


def _even_side(size: int, most: int) -> int:
    """Side of as few tiles as possible, all about alike."""
    return -(-size // -(-size // most))


def _span(start: int, length: int, size: int, halo: int) -> slice:
    return slice(max(0, start - halo), min(size, start + length + halo))


def tile_side(values_per_output: int, *, memory_mb: float = 66.0) -> int:
    """Side of a tile, in outputs, whose largest map of float32 values stays below ``memory_mb``; 16 to 160.

    Examples
    --------
    >>> tile_side(16 * 16), tile_side(64 * 16)
    (160, 129)
    """
    side = int((memory_mb * 2**20 / (4.0 * values_per_output)) ** 0.5)
    return min(160, max(16, side))


def stitch(parts: list[tuple[Tile, tuple[slice, slice], Tensor]], shape: tuple[int, int]) -> Float[Tensor, "y x"]:
    """One map from the outputs of tiles, halos left out."""
    whole = torch.empty(shape)
    for tile, inner, values in parts:
        rows = slice(tile.rows.start + inner[0].start, tile.rows.start + inner[0].stop)
        columns = slice(tile.columns.start + inner[1].start, tile.columns.start + inner[1].stop)
        whole[rows, columns] = values[inner]
    return whole
