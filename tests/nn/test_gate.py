"""The gate: published numbers, layouts, constants, parity."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import integrate

from equivox.errors import ConfigError
from equivox.nn import Gate
from equivox.nn.activations import FUNCTIONS, second_moment_constant
from equivox.testing import assert_equivariant

FixturePath = Callable[[str], Path]


def test_the_published_gate_and_its_gradient(fixture_path: FixturePath) -> None:
    data = np.load(fixture_path("e3pose/04_gate.npz"))
    meta = json.loads(str(data["meta"]))
    gate = Gate("8x0e+8x0o", "4x1e+4x1o+2x2e+2x2o", constants="published")
    assert str(gate.irreps_in) == meta["irreps_in"]
    assert str(gate.irreps_out) == meta["irreps_out"]
    field = torch.from_numpy(data["x"]).requires_grad_()
    result = gate(field)
    result.backward(torch.from_numpy(data["grad_y"]))
    assert field.grad is not None
    np.testing.assert_allclose(result.detach().numpy(), data["y"], atol=1e-6, rtol=0)
    np.testing.assert_allclose(field.grad.numpy(), data["grad_x"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("index", "options"), [(0, {}), (1, {"even": "silu", "irreps_gates": "2x0e+1x0o", "odd_gate": "tanh"})]
)
def test_gates_of_both_parities_are_the_published_numbers(
    index: int, options: dict[str, str], fixture_path: FixturePath
) -> None:
    data = np.load(fixture_path("steerable/gate.npz"))
    spec = ast.literal_eval(str(data[f"gate{index}_spec"]))
    gate = Gate(spec[0], spec[4], constants="published", **options)  # type: ignore[arg-type]
    assert str(gate.irreps_in) == str(data[f"gate{index}_irreps_in"])
    assert str(gate.irreps_out) == str(data[f"gate{index}_irreps_out"])
    result = gate(torch.from_numpy(data[f"gate{index}_x"])).numpy()
    np.testing.assert_allclose(result, data[f"gate{index}_y"], atol=1e-12, rtol=0)
    for name in FUNCTIONS:
        assert second_moment_constant(name, "published") == pytest.approx(float(data[f"cst_{name}"]), abs=1e-12)


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_exact_constants_give_a_normal_variable_second_moment_one(name: str) -> None:
    def density(z: float) -> float:
        value = float(FUNCTIONS[name](torch.tensor(z, dtype=torch.float64)))
        return value * value * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    moment, _ = integrate.quad(density, -12, 12, points=[0], epsabs=1e-12, limit=200)
    assert second_moment_constant(name, "exact") ** 2 * moment == pytest.approx(1.0, abs=1e-9)
    assert second_moment_constant(name, "none") == 1.0


@pytest.mark.parametrize("layout", [("2x0e+2x0o", "1x1o+1x1e+1x2e"), ("2x0", "2x1+1x2")])
def test_gates_are_exact_on_the_cube(layout: tuple[str, str]) -> None:
    gate = Gate(*layout, dtype=torch.float64)
    assert_equivariant(gate, gate.irreps_in, gate.irreps_out, side=3)
    if not gate.irreps_in.is_so3:
        flipping = Gate("1x0e", "2x1o", irreps_gates="2x0o")
        assert str(flipping.irreps_out) == "1x0e+2x1e"
        assert_equivariant(flipping, flipping.irreps_in, flipping.irreps_out, side=3)


def test_bias_shifts_even_scalars_and_gates_only() -> None:
    gate = Gate("2x0e+1x0o", "1x1o", bias=True, constants="none")
    assert gate.bias is not None
    assert gate.bias.shape == (3,)
    with torch.no_grad():
        gate.bias.copy_(torch.tensor([1.0, 2.0, 50.0]))
    field = torch.zeros(1, gate.irreps_in.dimension)
    field[0, -3:] = torch.tensor([0.5, 1.0, -1.0])
    assert gate(field).tolist() == [[1.0, 2.0, 0.0, 0.5, 1.0, -1.0]]


def test_what_breaks_equivariance_is_refused() -> None:
    with pytest.raises(ConfigError, match="neither even nor odd"):
        Gate("1x0e+1x0o", "1x1o", odd="relu")
    with pytest.raises(ConfigError, match="degree 0"):
        Gate("1x1o", "1x1o")
    with pytest.raises(ConfigError, match="3 gates for 2 fields"):
        Gate("1x0e", "2x1o", irreps_gates="3x0e")
    with pytest.raises(ConfigError, match="unknown"):
        Gate("1x0e", "1x1o", even="swish")
    with pytest.raises(ConfigError, match="no factor"):
        Gate("1x0e", "1x1o", constants={"relu": 1.0})
