"""Linear maps, dropout and norm activations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from equivox.errors import ConfigError
from equivox.nn import FieldDropout, FieldLinear, NormActivation, NormReLU, NormSoftplus, SmoothFinite, SteerableConv3d
from equivox.testing import assert_equivariant

LAYOUT = "3x0e+1x0o+2x1o+1x2e"


def test_linear_maps_mix_equal_irreps_only_and_are_exact(generator: torch.Generator) -> None:
    linear = FieldLinear(LAYOUT, "2x1o+4x0e+1x1e+2x2e", bias=True, generator=generator, dtype=torch.float64)
    assert linear.bias is not None
    with torch.no_grad():
        linear.bias.fill_(0.3)
    assert linear.weight.shape == (3 * 4 + 2 * 2 + 1 * 2,)
    assert_equivariant(linear, LAYOUT, linear.irreps_out, side=3)
    pooled = linear(torch.randn(2, linear.irreps_in.dimension, generator=generator, dtype=torch.float64))
    assert float(pooled[:, 10:13].detach().abs().max()) == 0.0
    with pytest.raises(ConfigError, match="share no irrep"):
        FieldLinear("1x0e", "1x1o")


def test_linear_is_the_self_connection_of_the_convolution(generator: torch.Generator) -> None:
    conv = SteerableConv3d(LAYOUT, "2x1o+4x0e", 3, radial=SmoothFinite(3, end=1.5), generator=generator)
    linear = FieldLinear(LAYOUT, "2x1o+4x0e")
    assert conv.self_connection is not None
    with torch.no_grad():
        conv.weight.zero_()
        linear.weight.copy_(conv.self_connection)
        field = torch.randn(1, 15, 4, 4, 4, generator=generator)
        torch.testing.assert_close(conv(field), linear(field))


def test_dropout_drops_whole_fields_and_keeps_the_mean() -> None:
    dropout = FieldDropout("20x0e+20x1o", 0.5, generator=torch.Generator().manual_seed(0))
    result = dropout(torch.ones(50, 80, 2, 2, 2))
    fields = result[:, 20:].unflatten(1, (20, 3)).flatten(2)
    assert bool((fields.amax(2) == fields.amin(2)).all())  # components and space share one draw
    assert set(result.unique().tolist()) == {0.0, 2.0}
    assert float(result.mean()) == pytest.approx(1.0, abs=0.1)
    assert not torch.equal(result[0], result[1])
    field = torch.randn(1, 80)
    assert torch.equal(dropout.eval()(field), field)
    with pytest.raises(ConfigError, match="outside"):
        FieldDropout("1x0e", 1.0)


def test_norm_activation_is_the_published_numbers(fixture_path: Callable[[str], Path]) -> None:
    data = np.load(fixture_path("steerable/norm_activation.npz"))
    field = torch.from_numpy(data["x"])
    activation = NormActivation(str(data["irreps"]), "sigmoid", dtype=torch.float64)
    assert activation.bias is not None
    with torch.no_grad():
        activation.bias.copy_(torch.from_numpy(data["biases"]))
    np.testing.assert_allclose(activation(field).detach().numpy(), data["y"], atol=1e-12, rtol=0)
    plain = NormActivation(str(data["irreps"]), "tanh", bias=False)
    np.testing.assert_allclose(plain(field).numpy(), data["y_tanh_nobias"], atol=1e-12, rtol=0)
    assert_equivariant(activation, str(data["irreps"]), str(data["irreps"]), side=3)


def test_the_gradient_of_a_norm_activation_is_finite_at_zero() -> None:
    field = torch.zeros(1, 3, requires_grad=True)
    NormActivation("1x1o", "relu")(field).sum().backward()
    assert field.grad is not None
    assert bool(torch.isfinite(field.grad).all())


@pytest.mark.parametrize("kind", [NormSoftplus, NormReLU])
def test_norm_non_linearities_shrink_lengths_keep_directions_and_are_exact_on_the_cube(
    kind: type[NormSoftplus] | type[NormReLU], generator: torch.Generator
) -> None:
    layer = kind(LAYOUT, scalars="tanh", dtype=torch.float64)
    assert layer.bias.shape == (3,)
    assert_equivariant(layer, LAYOUT, LAYOUT, side=3)
    field = torch.randn(4, 15, generator=generator, dtype=torch.float64)
    vector, result = field[:, 4:7], layer(field)[:, 4:7].detach()
    length = vector.norm(dim=1)
    shift = layer.bias[0].detach()
    shrunk = torch.nn.functional.softplus(length - shift) if kind is NormSoftplus else torch.relu(length - shift)
    torch.testing.assert_close(result, vector * (shrunk / length)[:, None], atol=1e-5, rtol=0)
    still = torch.zeros(1, 15, dtype=torch.float64, requires_grad=True)
    layer(still).sum().backward()
    assert still.grad is not None
    assert bool(torch.isfinite(still.grad).all())
    with pytest.raises(ConfigError, match="not odd"):
        kind(LAYOUT)


def test_dropout_commutes_with_the_cube_for_any_draw() -> None:
    def dropped(field: torch.Tensor) -> torch.Tensor:
        copies = len(field) // 2  # turned copies of the two samples meet the draws of the originals
        parts = []
        for part in field.split(2):
            layer = FieldDropout(LAYOUT, 0.4, generator=torch.Generator().manual_seed(5)).train()
            parts.append(layer(part))
        assert len(parts) == copies
        return torch.cat(parts)

    assert_equivariant(dropped, LAYOUT, LAYOUT, side=3, batch=2)
