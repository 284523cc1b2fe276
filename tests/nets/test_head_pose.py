"""The rotation network commutes with the cube's symmetries and learns to turn."""

from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError
from equivox.geometry.rotations import cube_group
from equivox.nets.head_pose import HeadPoseNet, soft_ball
from equivox.nets.readout import read_out
from equivox.testing import rotate_field


@pytest.fixture
def network() -> HeadPoseNet:
    """A small untrained network in float64."""
    return HeadPoseNet(2, 12, generator=torch.Generator().manual_seed(3)).double().eval()


def test_axes_turn_with_the_crop_under_all_48_symmetries(network: HeadPoseNet, generator: torch.Generator) -> None:
    crop = torch.randn(1, 2, 12, 12, 12, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        before = network(crop).unflatten(1, (3, 3))[0]
        for element in cube_group(improper=True):
            after = network(rotate_field(crop, "2x0e", element)).unflatten(1, (3, 3))[0]
            expected = before @ element.mT
            expected[0] *= torch.linalg.det(element)  # the left-right axis is a pseudovector
            torch.testing.assert_close(after, expected, atol=1e-10, rtol=1e-8)


def test_read_out_rotation_turns_with_the_crop(network: HeadPoseNet, generator: torch.Generator) -> None:
    crop = torch.randn(1, 2, 12, 12, 12, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        before = read_out(network(crop)).rotation[0]
        for element in cube_group()[[3, 9, 17]]:
            after = read_out(network(rotate_field(crop, "2x0e", element))).rotation[0]
            torch.testing.assert_close(after, element @ before, atol=1e-8, rtol=0)


def test_items_of_a_batch_do_not_see_each_other(network: HeadPoseNet, generator: torch.Generator) -> None:
    crops = torch.randn(3, 2, 12, 12, 12, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(network(crops)[1:2], network(crops[1:2]), atol=1e-10, rtol=0)


def test_corners_of_the_cube_are_not_read(network: HeadPoseNet, generator: torch.Generator) -> None:
    inside = soft_ball(12).double() > 0
    assert 0.4 < float(inside.double().mean()) < 0.62
    assert not bool(inside[0, 0, 0])


def test_it_learns(generator: torch.Generator) -> None:
    """A lopsided pattern in random turns: 12 steps bring the loss of its y axis down."""
    network = HeadPoseNet(1, 12, generator=generator)
    axis = torch.arange(12) - 5.5
    grid = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).flatten(1)
    turns = cube_group()[torch.randint(24, (96,), generator=generator)].float()
    optimiser = torch.optim.Adam(network.parameters(), lr=0.05)
    losses = []
    for step in range(12):
        rotation = turns[8 * step : 8 * step + 8]
        local = rotation.mT @ grid
        spots = (-(local - torch.tensor([0.0, 3.0, -1.0])[:, None]).square().sum(1) / 6).exp()
        image = spots - 0.5 * (-(local - torch.tensor([0.0, -1.0, 2.0])[:, None]).square().sum(1) / 6).exp()
        axes = torch.nn.functional.normalize(network(image.reshape(8, 1, 12, 12, 12)).unflatten(1, (3, 3)), dim=-1)
        loss = (1 - (axes[:, 1] * rotation[:, :, 1]).sum(1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])


def test_a_side_that_cannot_be_halved_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="divisible by 4"):
        HeadPoseNet(1, 30)
