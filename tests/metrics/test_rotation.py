from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from equivox.geometry.rotations import random_rotations, rotation_about, rotation_from_vector
from equivox.metrics.rotation import euler_mean_error_deg, geodesic_error_deg


def test_both_metrics_hold_the_published_numbers(fixture_path: Callable[[str], Path]) -> None:
    with np.load(fixture_path("e3pose/08_losses.npz")) as file:
        truth, predicted = torch.from_numpy(file["metric_true"]), torch.from_numpy(file["metric_pred"])
        # the rotations of the fixture are float32, and asin is steep near 90 degrees: 1e-2 degrees
        assert_close(
            euler_mean_error_deg(truth, predicted),
            torch.from_numpy(file["metric_euler_mean_abs_deg"]),
            atol=1e-2,
            rtol=0,
        )
        assert_close(
            geodesic_error_deg(truth, predicted), torch.from_numpy(file["metric_geodesic_deg"]), atol=1e-2, rtol=0
        )


@pytest.mark.parametrize("angle_deg", [1e-3, 10.0, 90.0, 179.0])
def test_f5_the_geodesic_error_is_the_angle_of_the_turn_and_the_old_metric_is_not(
    angle_deg: float, generator: torch.Generator
) -> None:
    truth = random_rotations(5, generator=generator)
    turned = rotation_about("x", angle_deg) @ truth
    assert_close(geodesic_error_deg(truth, turned), torch.full((5,), angle_deg, dtype=torch.float64), atol=1e-6, rtol=0)
    assert float(euler_mean_error_deg(truth, turned).max()) < 0.34 * angle_deg


def test_f5_a_pure_turn_by_ten_degrees_reads_three_to_six_in_the_old_metric(generator: torch.Generator) -> None:
    truth = random_rotations(200, generator=generator)
    angle = torch.tensor(10.0).deg2rad().double()
    axis = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    turn = rotation_from_vector(axis / axis.norm(dim=-1, keepdim=True) * angle)
    old = euler_mean_error_deg(truth, turn @ truth)
    assert 3.2 < float(old.min()) < 3.6
    assert 5.5 < float(old.max()) < 5.9
