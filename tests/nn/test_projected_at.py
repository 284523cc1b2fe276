from __future__ import annotations

import pytest
import torch
import torch.nn.functional as functional
from torch.testing import assert_close

from equivox.errors import GridSymmetryError
from equivox.geometry.rotations import random_rotations, rotation_about
from equivox.geometry.so3_grids import rotation_grid
from equivox.kernels.projected import ball_matrix
from equivox.nn.projected_at import LiftingConvAt, ProjectedConvAt, ProjectedReadAt, TurnedBall


def test_filters_at_a_grid_are_those_of_the_grids_own_layer() -> None:
    grid = rotation_grid("O")
    for size in (5, 9):
        ball = TurnedBall(size)
        found = torch.einsum("yxp,rpb->ryxb", ball.profiles(grid.matrices), ball.mixing(grid.matrices))
        assert_close(found, ball_matrix(ball.basis, grid), atol=1e-12, rtol=0)


@torch.no_grad()
def test_lifting_is_the_convolution_with_every_filter(generator: torch.Generator) -> None:
    layer = LiftingConvAt(2, 3, 5, stride=2).double()
    pictures = torch.randn(4, 2, 11, 11, generator=generator, dtype=torch.float64)
    rotations = random_rotations(6, generator=generator)
    found = layer(pictures, rotations)
    matrix = torch.einsum("yxp,rpb->ryxb", layer.ball.profiles(pictures), layer.ball.mixing(rotations))
    for index in range(6):
        filters = torch.einsum("yxb,bio->oiyx", matrix[index], layer.weight)
        assert_close(found[:, index], functional.conv2d(pictures, filters, stride=2), atol=1e-12, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["lift", "hidden", "read"])
def test_rotations_of_their_own_give_the_same_as_shared_ones(kind: str, generator: torch.Generator) -> None:
    rotations = random_rotations(4, generator=generator)
    each = rotations.expand(3, 4, 3, 3)
    if kind == "lift":
        layer, given = LiftingConvAt(1, 2, 5).double(), torch.randn(3, 1, 9, 9, generator=generator).double()
    else:
        layer = ProjectedConvAt(2, 3, 5).double() if kind == "hidden" else ProjectedReadAt(2, 7, 9).double()
        given = torch.randn(3, 4, 2, 9, 9, generator=generator).double()
    assert_close(layer(given, each), layer(given, rotations), atol=1e-12, rtol=0)
    assert_close(
        layer(given, each[:, [2]]), layer(given, rotations)[:, [2]], atol=1e-12, rtol=0
    ) if kind == "lift" else None


@torch.no_grad()
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_features_at_turned_poses_of_a_turned_picture_are_turned_features(
    dtype: torch.dtype, tolerance: float, generator: torch.Generator
) -> None:
    lift, hidden, read = (
        LiftingConvAt(1, 4, 9, stride=2),
        ProjectedConvAt(4, 6, 5, richness="rich"),
        ProjectedReadAt(6, 8, 9),
    )
    picture = torch.randn(2, 1, 33, 33, generator=generator).to(dtype)
    rotations = random_rotations(5, generator=generator).to(dtype)

    def features(pictures: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
        maps = lift.to(dtype)(pictures, poses).relu()
        return read.to(dtype)(hidden.to(dtype)(maps, poses).relu(), poses)

    before = features(picture, rotations)
    control = features(picture.rot90(-1, dims=(-2, -1)), rotations)
    assert float((control - before).abs().max() / before.abs().max()) > 0.1
    quarter, mirror = rotation_about("z", 90.0).to(dtype), rotation_about("y", 180.0).to(dtype)
    for moved, element in ((picture.rot90(-1, dims=(-2, -1)), quarter), (picture.flip(-1), mirror)):
        after = features(moved, element @ rotations)
        assert float((after - before).abs().max() / before.abs().max()) < tolerance


def test_a_stride_off_centre_is_refused() -> None:
    with pytest.raises(GridSymmetryError, match="quarter turns"):
        LiftingConvAt(1, 2, 9, stride=2)(torch.zeros(1, 1, 32, 32), torch.eye(3)[None])
