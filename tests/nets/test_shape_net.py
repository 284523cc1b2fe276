"""Our classifier does not change its mind when an object turns; the plain one of equal cost does."""

from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError
from equivox.geometry.rotations import cube_group, random_rotations
from equivox.nets.shape_net import PlainShapeNet, ShapeNet, pooled_over, settle_norms, soft_ball
from equivox.testing import band_limited_field, equivariance_error

SMOOTH = {"lowpass": 1.0, "fields": ((2, 2, 1), (4, 2, 1)), "features": 8}


def settled(network: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    """In float64, with running statistics of smooth random fields."""
    fields = band_limited_field("1x0e", generator=generator, batch=8, spread_mm=2.0).sample((17, 17, 17))
    network.double()
    settle_norms(network, [fields])
    return network


def test_logits_are_exact_under_the_turns_of_the_cube(generator: torch.Generator) -> None:
    network = settled(ShapeNet(1, 3, **SMOOTH, generator=generator), generator)
    errors = equivariance_error(
        network, "1x0", "3x0", cube_group(), generator=generator, method="grid", side=17, batch=1
    )  # fmt: skip
    assert float(errors.max()) < 1e-10


def test_shells_about_the_centre_stay_invariant_and_know_how_far_out_a_thing_lies(generator: torch.Generator) -> None:
    network = settled(ShapeNet(1, 3, **SMOOTH, shells=3, generator=generator), generator)
    errors = equivariance_error(
        network, "1x0", "3x0", cube_group(), generator=generator, method="grid", side=17, batch=1
    )  # fmt: skip
    assert float(errors.max()) < 1e-10
    field = torch.zeros(2, 1, 9, 9, 9, dtype=torch.float64)
    field[0, 0, 4, 4, 4] = field[1, 0, 4, 4, 7] = 1.0  # the same thing, in the middle and further out
    mean, shells = pooled_over(field, 0), pooled_over(field, 3)
    torch.testing.assert_close(mean[0], mean[1])
    assert shells.shape == (2, 3)
    assert shells[0, 0] > 10 * shells[1, 0]
    assert shells[1, 2] > 10 * shells[0, 2]
    torch.testing.assert_close(pooled_over(torch.ones_like(field), 3), torch.ones(2, 3, dtype=torch.float64))


def test_generic_rotations_move_steerable_logits_far_less_than_plain_ones(generator: torch.Generator) -> None:
    """Smooth objects near the middle; at random angles the grid allows no exactness, so this is a measured bound."""
    rotations = random_rotations(4, generator=generator)
    found = {}
    for kind in (ShapeNet, PlainShapeNet):
        network = settled(kind(1, 3, **SMOOTH, generator=torch.Generator().manual_seed(1)), generator)
        found[kind] = equivariance_error(
            network,
            "1x0",
            "3x0",
            rotations,
            generator=torch.Generator().manual_seed(2),
            side=17,
            batch=4,
            spread_mm=2.0,
        ).mean()
    assert float(found[ShapeNet]) < 0.05
    assert float(found[PlainShapeNet]) > 10 * float(found[ShapeNet])


def test_a_subsampling_without_low_pass_costs_invariance(generator: torch.Generator) -> None:
    rotations = random_rotations(3, generator=generator)
    found = []
    for pooling in ("blur", "stride"):
        own = torch.Generator().manual_seed(1)
        network = settled(ShapeNet(1, 3, **SMOOTH, pooling=pooling, generator=own), generator)
        fields = torch.Generator().manual_seed(2)
        errors = equivariance_error(network, "1x0", "3x0", rotations, generator=fields, side=17, batch=4, width_mm=1.0)
        found.append(float(errors.mean()))
    assert found[0] < 0.7 * found[1]


def test_a_mirror_image_is_another_object(generator: torch.Generator) -> None:
    network = settled(ShapeNet(1, 3, **SMOOTH, generator=generator), generator)
    field = band_limited_field("1x0e", generator=generator, batch=2, spread_mm=2.0).sample((17, 17, 17))
    with torch.no_grad():
        change = (network(field) - network(field.flip(2))).abs().max()
    assert float(change) > 1e-3


def test_both_networks_have_the_counted_parameters_and_equal_channels() -> None:
    steerable, plain = ShapeNet(1, 8), PlainShapeNet(1, 8)
    count = {type(n): sum(p.numel() for p in n.parameters()) for n in (steerable, plain)}
    # matched radial functions per path and degree 3, 2, 2, 1 at size 5 and 2, 1, 1, 0 at size 3 (J = 0 .. 3)
    first = 5 * 3 + 2 * 2 + 1 * 2  # 1x0 -> 5x0 (2 scalars, 3 gates), 2x1, 1x2
    norms = (8 + 5) + (18 + 13) + (32 + 32) + 64
    head = 32 * 8 + 8
    second_and_last = count[ShapeNet] - first - norms - head
    assert count == {ShapeNet: 1398, PlainShapeNet: 94136}
    assert second_and_last == sum(block.conv.weight.numel() for block in list(steerable.blocks)[1:])
    widths = [block.conv.irreps_out.dimension for block in steerable.blocks]
    assert widths == [block.conv.out_channels for block in plain.blocks] == [16, 32, 32]


def test_settled_norms_give_training_and_evaluation_the_same_answer(generator: torch.Generator) -> None:
    network = PlainShapeNet(1, 3, **SMOOTH, generator=generator)
    fields = torch.randn(4, 1, 9, 9, 9, generator=generator)
    settle_norms(network, [fields])
    with torch.no_grad():
        evaluated = network(fields)
        trained = network.train()(fields)
    torch.testing.assert_close(evaluated, trained, atol=0.2, rtol=0.2)  # torch stores variances with Bessel's factor


def test_it_learns_from_one_orientation_what_it_knows_in_all(generator: torch.Generator) -> None:
    """Two blobs near or far apart, along x in training, along y and z in the test."""

    def pair(distance: float, axis: int) -> torch.Tensor:
        line = torch.arange(13.0) - 6
        grid = torch.stack(torch.meshgrid(line, line, line, indexing="ij"))
        shift = torch.zeros(3)
        shift[axis] = distance / 2
        return sum(((grid - s * shift.view(3, 1, 1, 1)).square().sum(0) / -4).exp() for s in (1, -1))[None]

    train = torch.stack([pair(2.0, 0), pair(2.4, 0), pair(5.0, 0), pair(5.4, 0)])
    labels = torch.tensor([0, 0, 1, 1])
    network = ShapeNet(1, 2, **SMOOTH, generator=generator)
    optimiser = torch.optim.Adam(network.parameters(), lr=0.03)
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(network(train), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    settle_norms(network, [train])
    with torch.no_grad():
        answers = network(torch.stack([pair(2.2, 1), pair(2.2, 2), pair(5.2, 1), pair(5.2, 2)])).argmax(1)
    assert answers.tolist() == [0, 0, 1, 1]


def test_the_domain_is_round_and_smooth() -> None:
    ball = soft_ball(17)
    assert float(ball[0, 0, 0]) == 0.0
    assert float(ball[8, 8, 8]) == 1.0
    assert 0.0 < float(ball[0, 8, 8]) < 0.3


@pytest.mark.parametrize("kind", [ShapeNet, PlainShapeNet])
def test_sides_off_the_sampling_lattice_are_refused_with_a_side_that_fits(kind: type[torch.nn.Module]) -> None:
    network = kind(1, 2, **SMOOTH)
    with pytest.raises(ConfigError, match="multiple of 2 plus 1"):
        network(torch.zeros(1, 1, 16, 16, 16))
    with pytest.raises(ValueError, match="expects 1 channels, got 2"):
        network(torch.zeros(1, 2, 17, 17, 17))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"strides": (2,)}, "one entry per block"),
        ({"kernel_sizes": (5, 4)}, "3, 5 or 7"),
        ({"fields": ((0, 1), (1,))}, "at least one scalar"),
        ({"pooling": "max"}, "'blur' or 'stride'"),
    ],
)
def test_layouts_that_cannot_be_built_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises((ConfigError, TypeError), match=message if "pooling" not in wrong else "pooling"):
        ShapeNet(1, 2, **wrong)
