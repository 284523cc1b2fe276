from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from equivox.geometry.point_groups import point_group
from equivox.geometry.rotations import geodesic_angle, random_rotations, rotation_about, rotation_from_vector
from equivox.nn.matrix_fisher import (
    log_density,
    log_normaliser_excess,
    mass_within,
    mean_fall,
    mixture_entropy,
    mixture_log_density,
    mixture_mode,
    refined_mean,
)


@pytest.fixture
def numbers(fixture_path: Callable[[str], Path]) -> dict:
    return json.loads(fixture_path("projection2d/pose.json").read_text())


def test_the_normaliser_has_fifty_digits_behind_it(numbers: dict) -> None:
    for kappa, _, excess in numbers["log_c"]:
        wide = log_normaliser_excess(torch.tensor(kappa, dtype=torch.float64))
        assert float(wide) == pytest.approx(excess, abs=1e-8 * max(1.0, abs(excess))), kappa
        narrow = log_normaliser_excess(torch.tensor(kappa, dtype=torch.float32))
        assert float(narrow) == pytest.approx(excess, abs=1e-6 * max(1.0, abs(excess))), kappa


def test_the_density_has_mass_one() -> None:
    """The angle of a rotation has the density (1 - cos w) / pi."""
    angle = torch.linspace(0, math.pi, 200_001, dtype=torch.float64)
    for kappa in (0.0, 0.3, 5.0, 400.0):
        values = (kappa * (2.0 * angle.cos() - 2.0) - log_normaliser_excess(torch.tensor(kappa).double())).exp()
        assert float(torch.trapezoid(values * (1.0 - angle.cos()) / math.pi, angle)) == pytest.approx(1.0, abs=1e-6)


def test_the_mixture_equals_the_fixture(numbers: dict) -> None:
    mixture = numbers["mixture"]
    shares = torch.tensor(mixture["pi"], dtype=torch.float64)
    modes = torch.tensor(mixture["components"], dtype=torch.float64)
    targets = torch.tensor(mixture["targets"], dtype=torch.float64)
    count = len(targets)
    kappa = torch.full((count, 3), mixture["kappa"], dtype=torch.float64)
    found = -mixture_log_density(shares.log().expand(count, 3), modes.expand(count, 3, 3, 3), kappa, targets)
    assert_close(found, torch.tensor(mixture["nll"], dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_symmetric_likelihood_does_not_ask_which_of_the_equal_poses_was_meant(generator: torch.Generator) -> None:
    modes = random_rotations(12, generator=generator).reshape(2, 6, 3, 3)
    logits = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    kappa = torch.full((2, 6), 20.0, dtype=torch.float64)
    targets = random_rotations(2, generator=generator)
    group = point_group("D3")
    before = mixture_log_density(logits, modes, kappa, targets, group=group)
    for element in group:
        assert_close(mixture_log_density(logits, modes, kappa, targets @ element, group=group), before)
    plain = torch.stack([mixture_log_density(logits, modes, kappa, targets @ element) for element in group])
    assert_close(before, torch.logsumexp(plain, 0) - math.log(len(group)))


def test_large_concentrations_stay_finite_in_float32() -> None:
    logits = torch.tensor([[0.0, -50.0]], requires_grad=True)
    kappa = torch.tensor([[1e4, 1e-3]], requires_grad=True)
    modes = torch.eye(3).expand(1, 2, 3, 3).clone().requires_grad_()
    loss = -mixture_log_density(logits, modes, kappa, rotation_about("z", 179.0).float()[None]).sum()
    loss.backward()
    assert loss.isfinite()
    assert all(bool(tensor.grad.isfinite().all()) for tensor in (logits, kappa, modes))


def test_two_weak_neighbours_win_over_one_lone_component(generator: torch.Generator) -> None:
    near = rotation_about("x", 5.0)
    modes = torch.stack([torch.eye(3, dtype=torch.float64), near, rotation_about("y", 120.0)])[None]
    logits = torch.log(torch.tensor([[0.3, 0.3, 0.4]], dtype=torch.float64))
    kappa = torch.full((1, 3), 30.0, dtype=torch.float64)
    assert int(logits.argmax()) == 2
    assert int(mixture_mode(logits, modes, kappa).argmax()) in (0, 1)
    mean = refined_mean(logits, modes, kappa, modes[:, 0])
    assert_close(mean[0], rotation_about("x", 2.5), atol=1e-3, rtol=0)  # three steps of a contraction


def test_the_mean_of_a_symmetric_particle_takes_the_nearest_variant(generator: torch.Generator) -> None:
    start = random_rotations(1, generator=generator)
    turned = start @ rotation_about("z", 180.0) @ rotation_about("x", 4.0)
    modes = torch.stack([start, turned], dim=1)
    logits, kappa = torch.zeros(1, 2, dtype=torch.float64), torch.full((1, 2), 50.0, dtype=torch.float64)
    mean = refined_mean(logits, modes, kappa, start, group=point_group("C2"))
    assert float(torch.rad2deg(geodesic_angle(mean, start))) == pytest.approx(2.0, abs=0.01)
    assert_close(refined_mean(logits, modes, kappa, start), start)


@pytest.mark.parametrize("kappa", [0.5, 5.0, 100.0, 299.0, 301.0, 5000.0])
def test_the_fall_is_the_derivative_of_the_normaliser(kappa: float) -> None:
    at = torch.tensor(kappa, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(log_normaliser_excess(at), at)  # d log c / d kappa - 3
    assert float(mean_fall(at.detach())) == pytest.approx(-kappa * float(slope), rel=1e-5)


def test_entropy_is_zero_for_nothing_known_and_falls_with_knowledge() -> None:
    mode = torch.eye(3, dtype=torch.float64).expand(1, 1, 3, 3)
    logits = torch.zeros(1, 1, dtype=torch.float64)

    def entropy(kappa: float) -> float:
        return float(mixture_entropy(logits, mode, torch.full((1, 1), kappa, dtype=torch.float64)))

    assert entropy(1e-6) == pytest.approx(0.0, abs=1e-4)
    assert entropy(1.0) > entropy(10.0) > entropy(100.0)
    exact = 1.5 - float(-log_normaliser_excess(torch.tensor(100.0).double()))
    assert entropy(100.0) == pytest.approx(exact, abs=5e-3)
    far = torch.stack([mode[0, 0], rotation_about("x", 180.0)])[None]
    two = mixture_entropy(torch.zeros(1, 2).double(), far, torch.full((1, 2), 100.0).double())
    assert float(two) == pytest.approx(entropy(100.0) + math.log(2.0), abs=1e-6)


@pytest.mark.parametrize(("kappa", "off_deg"), [(200.0, 0.0), (200.0, 4.0), (40.0, 0.0), (40.0, 12.0), (2000.0, 9.0)])
def test_the_mass_near_an_estimate_is_what_draws_give(kappa: float, off_deg: float, generator: torch.Generator) -> None:
    """Draws from the distribution itself: uniform proposals about the mode, kept by their density."""
    width = 4.5 / math.sqrt(2.0 * kappa)
    vectors = (torch.rand(400_000, 3, generator=generator, dtype=torch.float64) * 2 - 1) * width
    angle = vectors.norm(dim=-1)
    haar = torch.where(angle > 1e-6, (torch.sin(angle / 2) / (angle / 2).clamp_min(1e-9)) ** 2, torch.ones(1).double())
    keep = torch.rand(len(vectors), generator=generator) < (kappa * (2 * angle.cos() - 2)).exp() * haar
    draws = rotation_from_vector(vectors[keep])
    center = rotation_about("y", off_deg)
    share = float((geodesic_angle(draws, center.expand_as(draws)) <= math.radians(10.0)).double().mean())
    one = torch.ones(1, 1, dtype=torch.float64)
    found = mass_within(one, torch.eye(3, dtype=torch.float64).expand(1, 1, 3, 3), one * kappa, center[None], 10.0)
    assert float(found) == pytest.approx(share, abs=0.012)


def test_the_log_density_of_the_uniform_distribution_is_zero(generator: torch.Generator) -> None:
    draws = random_rotations(4, generator=generator)
    assert_close(
        log_density(draws, draws.flip(0), torch.zeros(4).double()), torch.zeros(4).double(), atol=1e-12, rtol=0
    )
