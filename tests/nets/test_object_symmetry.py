"""Read-outs for objects of other symmetry: they return what was put in, turn along, and know what is equivalent."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from equivox.geometry.irreps import Irreps
from equivox.geometry.rotations import geodesic_angle, random_rotations, rotation_about
from equivox.nets.object_symmetry import (
    ObjectSymmetry,
    nearest_equivalent,
    output_irreps,
    read_field,
    spread_deg,
    symmetric_angle,
    tensor_of_axes,
)
from equivox.nets.pose import PoseNet
from equivox.testing import equivariance_error


def field_of(rotations: Tensor, symmetry: ObjectSymmetry) -> Tensor:
    """The map of a network that is right everywhere: (batch, channel, 2, 3, 2)."""
    x, y, z = rotations.unbind(-1)
    parts = [z, tensor_of_axes(x, y)] if symmetry == "c2" else [x, y, z]
    return torch.cat(parts, dim=-1)[:, :, None, None, None].expand(-1, -1, 2, 3, 2) * 1.7


@pytest.mark.parametrize("symmetry", ["mirror", "c2", "none"])
def test_a_right_map_is_read_as_the_rotation_that_made_it(symmetry: ObjectSymmetry, generator: torch.Generator) -> None:
    truth = random_rotations(40, generator=generator)
    found = read_field(field_of(truth, symmetry), symmetry)
    assert float(torch.rad2deg(symmetric_angle(truth, found.rotation, symmetry)).max()) < 1e-3
    assert float(found.confidence.min()) > 0.999
    assert not bool(found.low_confidence.any())
    torch.testing.assert_close(torch.linalg.det(found.rotation), torch.ones(40).double())
    assert float(spread_deg(field_of(truth, symmetry), symmetry).max()) < 1e-3


def test_half_turned_axes_make_the_same_map_and_only_c2_calls_them_equal(generator: torch.Generator) -> None:
    truth = random_rotations(10, generator=generator)
    turned = truth @ rotation_about("z", 180.0)
    torch.testing.assert_close(field_of(truth, "c2"), field_of(turned, "c2"))
    assert float(symmetric_angle(truth, turned, "c2").max()) < 1e-6
    assert float(symmetric_angle(truth, turned, "none").min()) > 3.1
    torch.testing.assert_close(nearest_equivalent(truth, turned, "c2"), truth)
    askew = truth @ rotation_about("x", 30.0)
    torch.testing.assert_close(torch.rad2deg(symmetric_angle(truth, askew, "c2")), torch.full((10,), 30.0).double())


def test_maps_that_say_nothing_are_of_low_confidence() -> None:
    for symmetry, channels in (("c2", 8), ("none", 9)):
        found = read_field(torch.zeros(1, channels, 2, 2, 2), symmetry)  # type: ignore[arg-type]
        assert bool(found.low_confidence[0])
        assert float(found.confidence[0]) < 0.05
    left_handed = field_of(torch.eye(3).double()[None], "none").clone()
    left_handed[:, :3] *= -1
    assert bool(read_field(left_handed, "none").low_confidence[0])


@pytest.mark.parametrize(("symmetry", "group"), [("c2", "O3"), ("none", "SO3"), ("mirror", "O3")])
def test_the_network_keeps_its_symmetry(symmetry: ObjectSymmetry, group: str, generator: torch.Generator) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = PoseNet(1, 3, 1, symmetry=group, object_symmetry=symmetry).eval()  # type: ignore[arg-type]
    assert network.irreps_out == output_irreps(symmetry, group)  # type: ignore[arg-type]
    irreps_in = Irreps("1x0e" if group == "O3" else "1x0")
    quarter = torch.stack([rotation_about("x", 90.0)])
    network.requires_grad_(False)
    error = equivariance_error(
        network, irreps_in, network.irreps_out, quarter, generator=generator, method="grid", side=8, batch=2,
        dtype=torch.float32,
    )  # fmt: skip
    assert float(error.max()) < 1e-4
    image = torch.rand(1, 1, 8, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        before, after = (network.read(one).rotation[0] for one in (image, image.rot90(1, (2, 3))))
    turn = rotation_about("z", 90.0).float()
    angle = symmetric_angle((turn @ before)[None], after[None], symmetry)
    assert math.degrees(float(angle[0])) < 0.1
    assert float(geodesic_angle(before[None], after[None])[0]) > 0.1
