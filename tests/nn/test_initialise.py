"""Deep networks start with unit variance, at any width and kernel size; plain draws explode."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor, nn

from equivox.errors import ConfigError
from equivox.kernels.families import BasisName
from equivox.nn import FieldBatchNorm, Gate, SteerableConv3d, draw_direct_, unit_variance_
from equivox.testing import assert_equivariant


def ten_layers(width: int, size: int, basis: BasisName, generator: torch.Generator) -> nn.Sequential:
    gate = Gate(f"{width}x0", f"{width}x1 + {width}x2")
    modules: list[nn.Module] = []
    before = "1x0"
    for _ in range(10):
        modules += [SteerableConv3d(before, gate.irreps_in, size, basis=basis, generator=generator), gate]
        before = str(gate.irreps_out)
    return nn.Sequential(*modules)


def spreads(network: nn.Sequential, field: Tensor) -> list[float]:
    found = []
    with torch.no_grad():
        for module in network.eval():
            field = module(field)
            if isinstance(module, SteerableConv3d):
                found.append(float(field.std()))
    return found


@pytest.mark.parametrize(
    ("width", "size", "side", "basis"),
    [(1, 3, 12, "matched"), (1, 5, 14, "matched"), (2, 7, 14, "matched"), (4, 5, 14, "matched"), (12, 3, 10, "matched")]
    + [(24, 3, 8, "matched"), (12, 5, 10, "matched"), (4, 5, 12, "e3nn"), (2, 5, 14, "se3cnn"), (2, 5, 14, "escnn")],
)
def test_unit_variance_holds_through_ten_layers_on_fresh_noise(
    width: int, size: int, side: int, basis: BasisName, generator: torch.Generator
) -> None:
    network = ten_layers(width, size, basis, generator)
    unit_variance_(network, torch.randn(2, 1, side, side, side, generator=generator), generator=generator)
    found = spreads(network, torch.randn(2, 1, side, side, side, generator=generator))
    assert len(found) == 10
    assert min(found) > 0.8
    assert max(found) < 1.25


def test_plain_draws_explode_and_scaling_alone_mends_the_field_that_it_saw(generator: torch.Generator) -> None:
    network = ten_layers(4, 5, "matched", generator)
    field = torch.randn(1, 1, 14, 14, 14, generator=generator)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    assert spreads(network, field)[-1] > 100
    unit_variance_(network, field, redraw=False)
    assert all(0.8 < value < 1.25 for value in spreads(network, field))
    layer = network[2]
    assert isinstance(layer, SteerableConv3d)
    term = layer.plan.pairs[0]
    ratio = layer.weight.detach()[term.weight_slices[0]] / before[1][term.weight_slices[0]]
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio))


def test_it_takes_milliseconds_and_the_default_field_serves(generator: torch.Generator) -> None:
    network = ten_layers(2, 5, "matched", generator)
    unit_variance_(network, generator=generator)
    start = time.process_time()
    factors = unit_variance_(network, generator=generator)
    assert time.process_time() - start < 1.0  # measured 0.04
    assert len(factors) == 10


def test_neighbours_have_their_share_and_the_layer_stays_equivariant(generator: torch.Generator) -> None:
    layer = SteerableConv3d("3x0e+2x1o+1x2e", "3x0e+2x1o+1x2e", 5, dtype=torch.float64, generator=generator)
    draw_direct_(layer, generator=generator)
    assert bool((layer.weight != 0).all())
    power = layer.kernel().detach().square().sum(dim=(0, 1)).flatten()
    assert 0.5 < float(power[layer.grid.center] / power.sum()) < 0.99
    assert_equivariant(layer, str(layer.irreps_in), str(layer.irreps_out), generator=generator)


def test_modes_and_running_statistics_are_as_before(generator: torch.Generator) -> None:
    first = SteerableConv3d("1x0", "2x0", 3, generator=generator)
    network = nn.Sequential(first, FieldBatchNorm("2x0"), nn.Dropout(0.5)).train()
    network[1].eval()
    unit_variance_(network, generator=generator)
    assert [module.training for module in network] == [True, False, True]
    statistics = network[1].get_buffer("running_mean")
    assert not statistics.any()


def test_what_cannot_be_scaled_is_said(generator: torch.Generator) -> None:
    with pytest.raises(ConfigError, match="Conv3d has no steerable convolution"):
        unit_variance_(nn.Conv3d(1, 1, 3))
    layer = SteerableConv3d("1x0", "1x0", 3, generator=generator)
    with pytest.raises(ConfigError, match="not finite"):
        unit_variance_(layer, torch.full((1, 1, 4, 4, 4), torch.inf))
