"""From many logits to one, against 50-digit arithmetic, and at the ends of float32."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from equivox.errors import ConfigError
from equivox.geometry.rotations import geodesic_angle, random_rotations
from equivox.geometry.so3_grids import rotation_grid
from equivox.nn.aggregation import AGGREGATIONS, Aggregation, aggregate, aggregate_parts, al1_bias


@pytest.fixture(scope="module")
def cases(fixture_path: Callable[[str], Path]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(fixture_path("projection2d/al1.json").read_text())["cases"]
    return found


def test_the_bias_equals_the_fixture(fixture_path: Callable[[str], Path]) -> None:
    for count, value in json.loads(fixture_path("projection2d/al1_bias.json").read_text()).items():
        assert al1_bias(float(count)) == pytest.approx(value, abs=1e-14, rel=1e-14)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_al1_equals_50_digit_arithmetic(dtype: torch.dtype, tolerance: float, cases: list[dict[str, Any]]) -> None:
    assert len(cases) == 11
    for case in cases:
        logits = torch.tensor(case["logits"], dtype=dtype, requires_grad=True)
        value = aggregate(logits, "al1", 0)
        value.backward()  # type: ignore[no-untyped-call]
        assert float(value.detach()) == pytest.approx(case["logit"], abs=tolerance * max(1.0, abs(case["logit"])))
        assert logits.grad is not None
        torch.testing.assert_close(
            logits.grad.double(), torch.tensor(case["grad"], dtype=torch.float64), atol=1e-6, rtol=1e-5
        )
        for count, expected in case["eff"].items():
            found = aggregate(logits.detach(), "al1_effective", 0, effective_count=float(count))
            assert float(found) == pytest.approx(expected, abs=tolerance * max(1.0, abs(expected)))


@pytest.mark.parametrize("count", [1, 24, 4608])
@pytest.mark.parametrize("level", [-1e4, -104.0, -15.0, 0.0, 15.0, 89.0, 1e4])
def test_value_and_gradient_stay_finite_in_float32(count: int, level: float) -> None:
    draw = torch.Generator().manual_seed(count)
    logits = (level + torch.randn(count, generator=draw)).requires_grad_()
    value = aggregate(logits, "al1", 0)
    value.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert bool(torch.isfinite(value))
    assert bool(torch.isfinite(logits.grad).all())
    exact = aggregate(logits.detach().double(), "al1", 0)
    assert float(value.detach()) == pytest.approx(float(exact), rel=2e-6, abs=1e-5)


def test_half_precision_is_reduced_in_float32() -> None:
    logits = torch.full((2, 4608), -7.0, dtype=torch.bfloat16)
    for how in ("al1", "al1_effective", "logmeanexp", "mean"):
        found = aggregate(logits, how, 1)  # type: ignore[arg-type]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, aggregate(logits.double(), how, 1).float(), atol=1e-4, rtol=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_undecided_stays_undecided_at_any_number_of_rotations(how: Aggregation) -> None:
    for count in (1, 7, 4608):
        assert abs(float(aggregate(torch.zeros(count, dtype=torch.float64), how, 0))) < 1e-12


@pytest.mark.parametrize("how", AGGREGATIONS)
def test_parts_give_the_whole(how: Aggregation, generator: torch.Generator) -> None:
    logits = 5.0 * torch.randn(2, 64, 3, generator=generator, dtype=torch.float64)
    weights = None if how in ("max", "al1") else rotation_grid("d4-fibonacci-8x8").weights
    whole = aggregate(logits, how, 1, weights=weights)
    parts = aggregate_parts(logits.split([10, 30, 24], dim=1), how, 1, count=64, weights=weights)
    torch.testing.assert_close(parts, whole, atol=1e-10, rtol=0)


def test_gradients_are_those_of_finite_differences(generator: torch.Generator) -> None:
    logits = torch.randn(2, 5, generator=generator, dtype=torch.float64).mul_(6.0).requires_grad_()
    count = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    for how in AGGREGATIONS:
        assert torch.autograd.gradcheck(lambda value, how=how: aggregate(value, how, 1), (logits,))
    assert torch.autograd.gradcheck(
        lambda value, number: aggregate(value, "al1_effective", 1, effective_count=number), (logits, count)
    )


def test_the_effective_count_converges_where_plain_al1_grows(generator: torch.Generator) -> None:
    """A peak of height 12 and width 40 degrees over a floor of -3, at 50 places (projection2d.md 5.4)."""
    peaks = random_rotations(50, generator=generator)
    found: dict[tuple[str, int], float] = {}
    for name in ("fibonacci-32x8", "fibonacci-192x24"):
        grid = rotation_grid(name)
        place = grid.matrices
        angle = torch.stack([geodesic_angle(place, peak.expand_as(place)) for peak in peaks])
        logits = -3.0 + 15.0 * torch.exp(-0.5 * (angle / math.radians(40.0)) ** 2)
        found["al1", len(grid)] = float(aggregate(logits, "al1", 1).mean())
        effective = aggregate(logits, "al1_effective", 1, effective_count=16.0)
        found["effective", len(grid)] = float(effective.mean())
    assert abs(found["effective", 256] - found["effective", 4608]) < 0.1
    assert found["al1", 4608] - found["al1", 256] > 4.0


def test_wrong_arguments_say_what_to_do() -> None:
    logits = torch.zeros(1, 4)
    with pytest.raises(ConfigError, match="knows no effective count"):
        aggregate(logits, "max", effective_count=3.0)
    with pytest.raises(ConfigError, match="takes no weights"):
        aggregate(logits, "al1", weights=torch.ones(4))
    with pytest.raises(ConfigError, match="5 weights were given for 4"):
        aggregate(logits, "mean", weights=torch.ones(5))
    with pytest.raises(ConfigError, match="announced"):
        aggregate_parts([logits, logits], "al1", count=9)
