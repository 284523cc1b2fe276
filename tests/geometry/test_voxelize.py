"""Voxels of meshes: the inside is where the winding number says, the surface is where the triangles are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from equivox.errors import ConfigError, GeometryError
from equivox.geometry import voxelize
from equivox.geometry.density import grid_centres
from equivox.geometry.rotations import cube_group, random_rotations
from equivox.geometry.voxelize import fit_to_radius, outside_share, voxelize_meshes

Find = Callable[[str], Path]
seeds = st.integers(0, 2**31 - 1)
FACES = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4],
         [1, 5, 7], [1, 7, 3]]  # fmt: skip


def box(low: list[float], high: list[float]) -> tuple[Tensor, Tensor]:
    ends = torch.tensor([low, high], dtype=torch.float64)
    points = [[ends[i, 0], ends[j, 1], ends[k, 2]] for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    return torch.tensor(points, dtype=torch.float64), torch.tensor(FACES)


def joined(*parts: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    shift = 0
    faces = []
    for points, triangles in parts:
        faces.append(triangles + shift)
        shift += len(points)
    return torch.cat([points for points, _ in parts]), torch.cat(faces)


def centres(side: int, spacing: float) -> Tensor:
    line = grid_centres(side, spacing)
    return torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1)


def solid_angle_winding(points: Tensor, corners: Tensor) -> Tensor:
    """Winding number by the solid angle of every triangle (van Oosterom and Strackee 1983)."""
    a, b, c = (corners[:, k] - points[..., None, :] for k in range(3))
    la, lb, lc = a.norm(dim=-1), b.norm(dim=-1), c.norm(dim=-1)
    over = (a * torch.linalg.cross(b, c)).sum(-1)
    under = la * lb * lc + (a * b).sum(-1) * lc + (b * c).sum(-1) * la + (c * a).sum(-1) * lb
    return 2 * torch.atan2(over, under).sum(-1) / (4 * torch.pi)


def test_boxes_fill_exactly_what_they_cover() -> None:
    """Walls on the borders of voxels, edges and diagonals through their centres: no crossing is lost or doubled."""
    for low, high in (([-2, -3, -1], [2, 3, 1]), ([-1.5, -2.5, -3.5], [2.5, 0.5, 1.5])):
        field = voxelize_meshes([box(low, high)[0]], [box(low, high)[1]], side=8, spacing=1.0, supersample=1)[0, 0]
        at = centres(8, 1.0)
        strictly = ((at > torch.tensor(low)) & (at < torch.tensor(high))).all(dim=-1)
        touched = ((at >= torch.tensor(low)) & (at <= torch.tensor(high))).all(dim=-1)
        assert bool((field[strictly] == 1).all())
        assert bool((field[~touched] == 0).all())
        assert float(field.sum()) == torch.tensor(high).sub(torch.tensor(low)).prod()


def test_parts_may_overlap_and_stand_apart() -> None:
    whole = joined(box([-3, -3, -3], [1, 1, 1]), box([-1, -1, -1], [3, 3, 3]), box([2.5, -3, -3], [3.5, -2, -2]))
    field = voxelize_meshes([whole[0]], [whole[1]], side=32, spacing=0.25, supersample=1)[0, 0]
    at = centres(32, 0.25)
    expected = torch.zeros(32, 32, 32, dtype=torch.bool)
    for low, high in ((-3, 1), (-1, 3)):
        expected |= ((at > low) & (at < high)).all(dim=-1)
    expected |= ((at > torch.tensor([2.5, -3, -3])) & (at < torch.tensor([3.5, -2, -2]))).all(dim=-1)
    assert torch.equal(field.bool(), expected)


@settings(max_examples=12)
@given(seed=seeds)
def test_the_inside_is_where_the_winding_number_is_not_zero(seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(2, 3, generator=draw, dtype=torch.float64) * 3 - 3
    size = torch.rand(2, 3, generator=draw, dtype=torch.float64) * 3 + 0.2
    points, faces = joined(*(box(a.tolist(), (a + s).tolist()) for a, s in zip(low, size, strict=True)))
    rotation = random_rotations(1, generator=draw)
    field = voxelize_meshes([points], [faces], side=12, spacing=0.6, supersample=1, rotation=rotation)[0, 0]
    winding = solid_angle_winding(centres(12, 0.6), (points @ rotation[0].mT)[faces])
    assert torch.equal(field.bool(), winding.round() != 0)


def test_toyshapes_are_filled_as_their_winding_numbers_say(shared_path: Find) -> None:
    from equivox.formats.toyshapes import read_mesh_set

    shapes = read_mesh_set(shared_path("data/shapes/toyshapes.npz"))
    rows = list(range(0, 600, 120))
    field = voxelize_meshes(
        [shapes.meshes[row].vertices for row in rows], [shapes.meshes[row].faces for row in rows],
        side=16, spacing=2.2 / 16, supersample=1, rotation=shapes.rotations[rows],
    )  # fmt: skip
    at = centres(16, 2.2 / 16)
    differing = 0
    for k, row in enumerate(rows):
        corners = (shapes.meshes[row].vertices.double() @ shapes.rotations[row].mT)[shapes.meshes[row].faces]
        winding = torch.cat([solid_angle_winding(slab, corners) for slab in at])
        differing += int((field[k, 0].bool() != (winding.abs() > 0.5).view(16, 16, 16)).sum())
        assert float(field[k].sum()) > 5
    assert differing <= 5  # half-precision vertices leave slits of 1e-3; of 20,480 voxels


def test_a_missing_wall_lets_nothing_leak() -> None:
    points, faces = box([-2.2, -2.2, -2.2], [2.2, 2.2, 2.2])
    whole, opened = voxelize_meshes([points, points], [faces, faces[2:]], side=8, spacing=1.0, supersample=2)
    assert_close(whole, opened)


def test_orientation_turned_inside_out_fills_the_same() -> None:
    points, faces = box([-2.2, -1.2, -2.7], [2.2, 0.4, 1.1])
    out, turned = voxelize_meshes([points, points], [faces, faces.flip(1)], side=8, spacing=1.0)
    assert_close(out, turned)


@pytest.mark.parametrize("mode", ["surface", "occupancy"])
def test_cube_rotations_of_the_object_turn_the_field(mode: voxelize.MeshMode) -> None:
    draw = torch.Generator().manual_seed(4)
    points, faces = joined(box([-2.1, -1.3, -2.7], [1.2, 0.45, 1.17]), box([0.3, -0.1, 0.2], [2.9, 2.3, 1.9]))
    points = points @ random_rotations(1, generator=draw)[0].mT
    plain = voxelize_meshes([points], [faces], side=9, spacing=0.9, mode=mode)[0, 0]
    assert float(plain.sum()) > 10
    group = cube_group()
    turned = voxelize_meshes([points] * 24, [faces] * 24, side=9, spacing=0.9, mode=mode, rotation=group)
    index = (
        centres(9, 1.0)[None] @ group.view(24, 1, 1, 1, 3, 3).flatten(1, 3)[:, 0][:, None, None]
    ).round().long() + 4
    for k in range(24):  # value at v of the turned field is the value at R^-1 v of the plain one
        x, y, z = index[k].unbind(dim=-1)
        assert_close(turned[k, 0], plain[x, y, z])


def test_the_surface_lies_where_triangles_cut_voxels() -> None:
    points, faces = box([-2.3, -1.1, -0.2], [2.4, 1.7, 0.9])
    field = voxelize_meshes([points], [faces], side=12, spacing=0.5, mode="surface", supersample=1)[0, 0].bool()
    at = centres(12, 0.5)
    low, high = points.amin(dim=0), points.amax(dim=0)

    def shell(half: float) -> Tensor:
        """Voxels whose cube of half edge ``half`` meets the walls: reaches the box, and is not within it."""
        reaches = ((at + half >= low) & (at - half <= high)).all(dim=-1)
        within = ((at - half > low) & (at + half < high)).all(dim=-1)
        return reaches & ~within

    assert bool((shell(0.25) | ~field).all())  # nothing where no wall is
    assert bool((field | ~shell(0.125)).all())  # nothing missed that is cut through its middle half


def test_supersampling_gives_shares() -> None:
    points, faces = box([-2.25, -2.0, -2.0], [2.0, 2.0, 2.0])
    field = voxelize_meshes([points], [faces], side=8, spacing=1.0, supersample=4)[0, 0]
    assert_close(field[1, 2:6, 2:6], torch.full((4, 4), 0.25))
    assert float(field.sum()) == pytest.approx(4.25 * 16)
    assert set((field * 64).unique().tolist()) <= {0.0, 16.0, 64.0}


def test_batches_and_parts_do_not_meet(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(6)
    one, two = box([-1.2, -2.4, -0.9], [1.7, 0.3, 1.1]), box([-0.4, -0.7, -2.9], [0.6, 1.2, 2.8])
    turns = random_rotations(2, generator=draw)
    for mode in ("surface", "occupancy"):
        both = voxelize_meshes(
            [one[0], two[0].float()], [one[1], two[1]], side=10, spacing=0.7, mode=mode, rotation=turns
        )
        alone = voxelize_meshes([two[0].float()], [two[1]], side=10, spacing=0.7, mode=mode, rotation=turns[1:])
        assert_close(both[1:], alone)
        monkeypatch.setattr(voxelize, "PAIRS_AT_ONCE", 97)
        monkeypatch.setattr(voxelize, "SUBVOXELS_AT_ONCE", 1)
        assert_close(
            both,
            voxelize_meshes(
                [one[0], two[0].float()], [one[1], two[1]], side=10, spacing=0.7, mode=mode, rotation=turns
            ),
        )
        monkeypatch.undo()


def test_what_lies_outside_is_cut_off() -> None:
    points, faces = box([-9.0, -1.0, -1.0], [9.0, 1.0, 1.0])
    field = voxelize_meshes([points], [faces], side=8, spacing=1.0, supersample=1)[0, 0]
    assert float(field.sum()) == 8 * 4
    assert outside_share(points, side=8, spacing=1.0) == 1.0
    centre, scale = fit_to_radius(points, 4.0)
    assert outside_share((points - centre) * scale, side=8, spacing=1.0) == 0.0


def test_an_empty_batch_and_bad_sizes() -> None:
    assert voxelize_meshes([], [], side=4, spacing=1.0).shape == (0, 1, 4, 4, 4)
    points, faces = box([-1, -1, -1], [1, 1, 1])
    with pytest.raises(ConfigError, match="spacing 0"):
        voxelize_meshes([points], [faces], side=4, spacing=0.0)
    with pytest.raises(GeometryError, match="NaN"):
        voxelize_meshes([points * torch.nan], [faces], side=4, spacing=1.0)
    with pytest.raises(GeometryError, match="give pairs"):
        voxelize_meshes([points], [], side=4, spacing=1.0)
    with pytest.raises(GeometryError, match="one and the same"):
        fit_to_radius(torch.ones(3, 3), 1.0)
