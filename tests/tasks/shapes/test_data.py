from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError, InputError
from equivox.geometry.density import PADDING
from equivox.geometry.rotations import cube_group, random_rotations
from equivox.tasks.shapes.config import InputConfig
from equivox.tasks.shapes.data import Grid, Points, Triangles, as_sample, fit_volume, make_field, rotate_volume
from equivox.tasks.shapes.source_meshes import surface_points
from equivox.tasks.shapes.source_tetris import tetris_volume


def test_tetris_as_published_keeps_the_trap_of_its_zoom(fixture_path: Callable[[str], Path]) -> None:
    with np.load(fixture_path("steerable/tetris.npz")) as archive:
        volumes = torch.from_numpy(archive["volumes"])
    ours = torch.stack([tetris_volume(piece, 36, 5.0, True)[0] for piece in range(8)])
    assert torch.equal(ours, volumes.to(ours.dtype))


def test_a_volume_turns_as_the_published_data_do(fixture_path: Callable[[str], Path]) -> None:
    with np.load(fixture_path("steerable/tetris.npz")) as archive:
        matrices, rotated = torch.from_numpy(archive["rotation_matrices"]), torch.from_numpy(archive["rotated"])
        pieces = archive["rotated_shape_index"].tolist()
    for piece, matrix, expected in zip(pieces, matrices, rotated, strict=True):
        turned = rotate_volume(tetris_volume(piece, 36, 5.0, True), matrix)[0]
        assert float((turned - expected).abs().max()) < 1e-4


def test_plain_cells_have_equal_lengths_in_grids_of_either_parity() -> None:
    for side in (29, 30):
        line = tetris_volume(3, side, 4.0, False)
        assert float(line.sum()) == pytest.approx(4 * 4.0**3)
        assert float(line.amax()) == 1.0
    with pytest.raises(ConfigError, match="differ by an odd number"):
        tetris_volume(3, 35, 5.0, True)


def test_the_two_chiral_pieces_are_mirror_images() -> None:
    first, second = tetris_volume(0, 15, 3.0, False), tetris_volume(1, 15, 3.0, False)
    found = [rotate_volume(first.flip(1), turn) for turn in cube_group()]
    moved = [torch.roll(turned, (a, b, c), (1, 2, 3)) for turned in found for a in (-6, 0, 6) for b in (-6, 0, 6)
             for c in (-6, 0, 6)]  # fmt: skip
    assert any(torch.equal(turned, second) for turned in moved)
    straight = [torch.roll(rotate_volume(first, turn), (a, b, c), (1, 2, 3)) for turn in cube_group()
                for a in (-6, 0, 6) for b in (-6, 0, 6) for c in (-6, 0, 6)]  # fmt: skip
    assert not any(torch.equal(turned, second) for turned in straight)


def test_turning_points_and_turning_their_field_agree(generator: torch.Generator) -> None:
    config = InputConfig(kind="points", side=19, spacing=1.0, sigma=1.5)
    points = Points(torch.randn(12, 3, generator=generator) * 1.5, torch.zeros(12, dtype=torch.int64))
    rotation = random_rotations(1, generator=generator)[0].float()
    still, turned = (
        make_field({name: tensor[None] for name, tensor in as_sample(points, config, rotation=r).items()}, config)[0]
        for r in (None, rotation)
    )
    assert float((rotate_volume(still, rotation) - turned).abs().max()) < 0.02 * float(turned.max())


def test_padding_takes_no_part_in_a_field() -> None:
    config = InputConfig(kind="points", side=9, spacing=1.0, sigma=1.0)
    points = Points(torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]]), torch.zeros(2, dtype=torch.int64))
    wide = as_sample(points, config, capacity=7)
    assert wide["channel"].tolist() == [0, 0, *[PADDING] * 5]
    fields = [
        make_field({k: v[None] for k, v in sample.items()}, config) for sample in (wide, as_sample(points, config))
    ]
    assert torch.equal(fields[0], fields[1])
    assert float(fields[0].sum()) == pytest.approx(2.0, abs=1e-3)


def test_a_volume_comes_to_the_grid_about_its_centre() -> None:
    cube = torch.zeros(1, 4, 4, 4)
    cube[:, 1:3, 1:3, 1:3] = 1.0
    wide, odd, narrow = fit_volume(cube, 8), fit_volume(cube, 5), fit_volume(cube, 2)
    assert torch.equal(wide[:, 2:6, 2:6, 2:6], cube)
    assert torch.equal(odd, odd.flip(1, 2, 3))
    assert float(odd.sum()) == float(cube.sum())
    assert torch.equal(narrow, torch.ones(1, 2, 2, 2))
    with pytest.raises(InputError, match=r"a volume of \(4, 4, 4\) voxels holds something outside the 1 voxels"):
        fit_volume(cube, 1)


def test_points_lie_evenly_on_the_surface(generator: torch.Generator) -> None:
    square = torch.tensor([[[0.0, 0, 0], [3, 0, 0], [3, 1, 0]], [[0, 0, 0], [3, 1, 0], [0, 1, 0]]])
    points = surface_points(square, 4000, generator=generator)
    assert float(points[:, 2].abs().max()) == 0.0
    counts = torch.histc(points[:, 0], bins=3, min=0.0, max=3.0)
    assert float((counts / 4000 - 1 / 3).abs().max()) < 0.03


def test_triangles_fill_voxels_on_the_device_in_batches() -> None:
    corners = torch.tensor([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    faces = torch.tensor(
        [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
         [1, 5, 7], [1, 7, 3]]
    )  # fmt: skip
    config = InputConfig(kind="mesh", side=16, spacing=0.125, fill="occupancy")
    sample = as_sample(Triangles(corners, faces), config, capacity=20)
    field = make_field({name: torch.stack([tensor, tensor]) for name, tensor in sample.items()}, config)
    assert field.shape == (2, 1, 16, 16, 16)
    assert float(field[0].sum()) * 0.125**3 == pytest.approx(1.0, abs=0.01)


def test_a_turn_of_the_cube_moves_voxels_and_nothing_else(generator: torch.Generator) -> None:
    volume = torch.rand(1, 5, 5, 5, generator=generator)
    for turn in cube_group()[:6]:
        turned = rotate_volume(volume, turn)
        assert torch.equal(turned.flatten().sort().values, volume.flatten().sort().values)
        assert torch.equal(rotate_volume(turned, turn.mT), volume)
        as_points = Grid(turned)
        assert as_points.volume is turned
