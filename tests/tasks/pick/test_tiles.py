from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equivox.tasks.pick.tiles import ScoreGrid, stitch, tile_side, tiles


def strided_network(generator: torch.Generator) -> torch.nn.Module:
    first, second = torch.nn.Conv2d(1, 3, 5, stride=2), torch.nn.Conv2d(3, 1, 3)
    for parameter in (*first.parameters(), *second.parameters()):
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return torch.nn.Sequential(first, torch.nn.Tanh(), second)


GRID = ScoreGrid(field_px=9, stride_px=2)  # 5 + 2 * (3 - 1)


@settings(max_examples=25)
@given(
    height=st.integers(1, 60), width=st.integers(1, 60), side=st.integers(1, 40), halo=st.integers(0, 3),
    seed=st.integers(0, 9),
)  # fmt: skip
def test_tiles_give_the_same_scores_as_the_whole_image(
    height: int, width: int, side: int, halo: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    network = strided_network(draw)
    image = torch.randn(height, width, generator=draw, dtype=torch.float64)
    with torch.inference_mode():
        whole = network(GRID.pad(image)[None, None])[0, 0]
        parts = [(tile, inner, network(tile.image[None, None])[0, 0]) for tile, inner in
                 tiles(image, GRID, side, halo=halo)]  # fmt: skip
    assert whole.shape == (GRID.outputs(height), GRID.outputs(width))
    joined = stitch(parts, (whole.shape[0], whole.shape[1]))
    assert torch.allclose(joined.double(), whole, atol=1e-6)
    for tile, _, values in parts:  # halos are right too, not only what is kept
        assert torch.allclose(values, whole[tile.rows, tile.columns], atol=1e-12)


def test_an_output_stands_at_its_pixel() -> None:
    dot = torch.zeros(31, 40)
    dot[12, 26] = 1.0
    centered = torch.zeros(1, 1, 9, 9)
    centered[0, 0, 4, 4] = 1.0
    found = torch.nn.functional.conv2d(GRID.pad(dot)[None, None], centered, stride=2)[0, 0]
    assert found.shape == (16, 20)
    assert torch.nonzero(found).tolist() == [[6, 13]]


def test_the_side_of_a_tile_follows_the_memory() -> None:
    assert tile_side(1) == 160
    assert tile_side(10**9) == 16
    assert tile_side(64 * 16, memory_mb=33.0) < tile_side(64 * 16)
    with pytest.raises(ValueError, match="odd"):
        ScoreGrid(8, 2)
    with pytest.raises(ValueError, match="tile"):
        next(tiles(torch.zeros(4, 4), GRID, 0))
