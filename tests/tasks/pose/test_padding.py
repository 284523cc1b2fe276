from __future__ import annotations

import torch

from equivox.geometry.rotations import random_rotations
from equivox.geometry.space import Volume
from equivox.tasks.pose.consistency import turned_about
from equivox.tasks.pose.locate_grid import working_grid
from equivox.tasks.pose.padding import measured_voxels
from equivox.tasks.pose.rotate import head_cube

AFFINE = torch.diag(torch.tensor([3.0, 3.0, 3.0, 1.0], dtype=torch.float64))


def test_blocks_of_zeros_are_padding_and_scattered_zeros_are_not() -> None:
    data = torch.rand(1, 24, 24, 20) + 0.1
    data[:, ::5, ::5, ::5] = 0
    assert measured_voxels(Volume(data, AFFINE)) is None
    data[:, :, :, 14:] = 0
    data[:, 10, 10, 5] = 0
    measured = measured_voxels(Volume(data, AFFINE))
    assert measured is not None
    assert bool(measured[..., :14].all())
    assert not bool(measured[..., 14:].any())


def test_a_turned_scan_looks_like_the_scan_within_what_was_measured() -> None:
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 1, 8, 9, 7, generator=draw) + 0.5
    data = torch.nn.functional.interpolate(coarse, size=(40, 44, 36), mode="trilinear", align_corners=True)[0]
    volume = Volume(data, AFFINE)
    center = volume.world_from_voxel((torch.tensor(volume.shape, dtype=torch.float64) - 1) / 2)
    (turn,) = random_rotations(1, generator=draw)
    turned = turned_about(volume, turn, center)
    assert float((turned.data == 0).float().mean()) > 0.3

    grid = working_grid(turned)
    content_ml = float((turned.data != 0).sum()) * 0.027
    assert abs(float(grid.data[1].sum()) * 0.064 / content_ml - 1) < 0.02
    assert float(grid.data[0][grid.data[1] > 0.5].quantile(0.03)) > 0.4

    cube, valid = head_cube(turned, center)
    assert abs(float(valid.sum()) * 0.027 / content_ml - 1) < 0.02
    assert float(cube[valid > 0.5].quantile(0.01)) > 0.4, "the smoothing draws no zeros in from the padding"
    assert float(cube[valid < 0.5].abs().max()) == 0
