"""Products of fields: known cases, variance, the cube."""

from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError
from equivox.nn import TensorProduct, TensorProductActivation
from equivox.testing import assert_equivariant


def test_vectors_give_dot_and_cross_products(generator: torch.Generator) -> None:
    first, second = torch.randn(2, 5, 3, generator=generator, dtype=torch.float64)
    dot, cross, _ = TensorProduct("1x1o", "1x1o")(first, second).split([1, 3, 5], dim=1)
    torch.testing.assert_close(dot[:, 0] * 3**0.5, (first * second).sum(1))
    torch.testing.assert_close(cross * 2**0.5, torch.linalg.cross(first, second), atol=1e-12, rtol=0)
    scaled = TensorProduct("1x0e", "1x2e")(first[:, :1], torch.ones(5, 5, dtype=torch.float64))
    torch.testing.assert_close(scaled, first[:, :1].expand(5, 5))


def test_unit_variance_stays_unit_variance(generator: torch.Generator) -> None:
    product = TensorProduct("1x1+1x2", "1x2+1x2")
    first, second = torch.randn(40000, 8, generator=generator), torch.randn(40000, 10, generator=generator)
    variance = product(first, second).var(0)
    assert float((variance - 1).abs().max()) < 0.06


@pytest.mark.parametrize(("one", "two"), [("2x0e+1x1o+1x2e", "1x1o+2x1e+1x0o"), ("2x1+1x2", "2x2+1x0")])
def test_products_are_exact_on_the_cube(one: str, two: str) -> None:
    product = TensorProduct(one, two, highest_degree=2)
    width = product.irreps_first.dimension

    def halves(field: torch.Tensor) -> torch.Tensor:
        return product(field[:, :width], field[:, width:])

    assert_equivariant(halves, f"{one}+{two}", product.irreps_out, side=3)
    activation = TensorProductActivation(one)
    assert_equivariant(activation, one, activation.irreps_out, side=3)


def test_the_activation_leaves_out_what_vanishes() -> None:
    activation = TensorProductActivation("1x0e+2x1o", highest_degree=2)
    assert str(activation.irreps_out) == "1x0e+2x1o+1x0e+2x0e+2x2e"
    assert activation(torch.randn(2, 7)).shape == (2, 20)


def test_what_cannot_be_multiplied_is_refused() -> None:
    with pytest.raises(ConfigError, match="2 first for 3 second"):
        TensorProduct("2x1o", "3x1o")
    with pytest.raises(ConfigError, match="up to 0"):
        TensorProduct("1x0e", "1x1o", highest_degree=0)
