from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from equivox.errors import ConfigError
from equivox.geometry.point_groups import point_group
from equivox.geometry.rotations import cube_group, geodesic_angle, nearest_rotation, random_rotations, rotation_about
from equivox.nn.pose_heads import PoseHead, PoseHypotheses, UnimodalHead, capped, exponential
from equivox.nn.pose_losses import hard_loss, mixture_loss, shift_loss, true_cells

GRID = cube_group()


def randomised(head: torch.nn.Module, generator: torch.Generator) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return head.double()


def permutation(element: torch.Tensor) -> torch.Tensor:
    """Index of ``g R_r`` for every r."""
    return (element @ GRID)[:, None].sub(GRID[None]).abs().amax((-2, -1)).argmin(1)


@torch.no_grad()
@pytest.mark.parametrize(("offset", "exact"), [("body", True), ("procrustes", True), ("quaternion_add", False)])
def test_answers_turn_with_the_features_if_the_correction_lives_in_the_body(
    offset: str, exact: bool, generator: torch.Generator
) -> None:
    head = randomised(PoseHead(5, offset=offset, kappa="each", shift=True, max_angle_rad=1.0), generator)
    features = torch.randn(3, 24, 5, generator=generator, dtype=torch.float64)
    before = head(features, GRID)
    worst = 0.0
    for element in (rotation_about("z", 90.0), rotation_about("y", 180.0)):
        places = permutation(element)
        moved = torch.empty_like(features)
        moved[:, places] = features
        after = head(moved, GRID)
        worst = max(worst, float((after.rotations[:, places] - element @ before.rotations).abs().max()))
        assert_close(after.logits[:, places], before.logits)
        if exact:
            turned = before.shifts_px @ element[:2, :2].mT
            assert_close(after.shifts_px[:, places], turned, atol=1e-12, rtol=0)
    assert (worst < 1e-12) is exact


@torch.no_grad()
def test_an_untrained_head_answers_with_the_grid_and_no_preference() -> None:
    for offset in ("body", "procrustes", "quaternion_add", "none"):
        found = PoseHead(4, offset=offset)(torch.randn(2, 24, 4), GRID)
        assert_close(found.rotations, GRID.float().expand(2, 24, 3, 3), atol=1e-6, rtol=0)
        assert_close(found.kappa, torch.full((2, 24), 10.0))
        assert float(found.logits.abs().max()) == 0.0


def test_the_exponential_and_its_gradient_are_right_at_zero_and_beyond() -> None:
    assert_close(exponential(torch.tensor([0.0, 0.0, math.pi / 2], dtype=torch.float64)), rotation_about("z", 90.0))
    for vector in ([0.0, 0.0, 0.0], [1e-3, -2e-3, 5e-4], [0.5, 1.0, -0.2]):
        point = torch.tensor(vector, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(exponential, point)
        assert torch.autograd.gradcheck(lambda v: capped(v, 0.7), point)


def test_a_cap_is_never_passed(generator: torch.Generator) -> None:
    vectors = torch.randn(50, 3, generator=generator) * 10
    assert float(capped(vectors, 0.4).norm(dim=-1).max()) <= 0.4 + 1e-6
    small = vectors * 1e-4
    assert_close(capped(small, 0.4), small, rtol=1e-4, atol=0)
    with pytest.raises(ConfigError, match="max_angle_rad"):
        PoseHead(3, max_angle_rad=0.0)


def test_the_nearest_rotation_equals_the_fixture_and_its_gradient_stays_finite(
    fixture_path: Callable[[str], Path],
) -> None:
    numbers = json.loads(fixture_path("projection2d/pose.json").read_text())
    given = torch.tensor(numbers["procrustes_in"], dtype=torch.float64)
    assert_close(
        nearest_rotation(given), torch.tensor(numbers["procrustes_out"], dtype=torch.float64), atol=1e-9, rtol=0
    )
    for bad in (torch.zeros(3, 3), torch.diag(torch.tensor([1.0, 1.0, -1.0])), torch.ones(3, 3), torch.eye(3)):
        point = bad.double().requires_grad_()
        (nearest_rotation(point)[0, 1] + nearest_rotation(point)[2, 0]).backward()
        assert bool(point.grad.isfinite().all())
        assert float(point.grad.abs().max()) < 1e6


def test_the_true_cell_is_the_nearest_member_up_to_the_group(generator: torch.Generator) -> None:
    targets = random_rotations(40, generator=generator)
    distances = geodesic_angle(GRID[None].expand(40, 24, 3, 3), targets[:, None].expand(40, 24, 3, 3))
    assert_close(true_cells(GRID, targets), distances.argmin(1))
    group = point_group("C4")
    same = true_cells(GRID, targets, group=group)
    for element in group:
        moved = true_cells(GRID, targets @ element, group=group)
        turned = GRID[same][:, None] @ group
        assert float((turned - GRID[moved][:, None]).abs().amax((-2, -1)).amin(-1).max()) < 1e-9


def test_the_hard_loss_is_nothing_but_cross_entropy_at_the_truth(generator: torch.Generator) -> None:
    logits = torch.randn(4, 24, generator=generator, dtype=torch.float64)
    hypotheses = PoseHypotheses(logits, GRID.expand(4, 24, 3, 3), torch.full((4, 24), 10.0))
    targets = GRID[:4]
    expected = -torch.log_softmax(logits, -1)[torch.arange(4), torch.arange(4)]
    assert_close(hard_loss(hypotheses, GRID, targets), expected)
    turned = targets @ rotation_about("x", 30.0)
    more = hard_loss(hypotheses, GRID, turned) - expected
    assert_close(more, torch.full((4,), 10.0 * math.sin(math.radians(15.0)) ** 2, dtype=torch.float64))


def test_the_mixture_prefers_the_truth(generator: torch.Generator) -> None:
    targets = random_rotations(3, generator=generator)
    rotations = torch.stack([targets, targets @ rotation_about("y", 90.0)], dim=1)
    kappa = torch.full((3, 2), 50.0, dtype=torch.float64)
    right = PoseHypotheses(torch.tensor([[4.0, 0.0]]).double().expand(3, 2), rotations, kappa)
    wrong = PoseHypotheses(torch.tensor([[0.0, 4.0]]).double().expand(3, 2), rotations, kappa)
    assert bool((mixture_loss(right, targets) < mixture_loss(wrong, targets) - 3.0).all())


def test_a_shift_is_judged_where_the_pose_is_right() -> None:
    rotations = torch.stack([torch.eye(3), rotation_about("x", 180.0).float()])[None]
    shifts = torch.tensor([[[1.0, -2.0], [30.0, 30.0]]])
    found = PoseHypotheses(torch.zeros(1, 2), rotations, torch.full((1, 2), 50.0), shifts)
    assert float(shift_loss(found, torch.tensor([[1.0, -2.0]]), torch.eye(3)[None])) < 1e-6
    with pytest.raises(ValueError, match="no shifts"):
        shift_loss(PoseHypotheses(found.logits, found.rotations, found.kappa), torch.zeros(1, 2), torch.eye(3)[None])


def test_a_unimodal_head_gives_one_rotation() -> None:
    found = UnimodalHead(24 * 4)(torch.randn(5, 24, 4))
    assert found.rotations.shape == (5, 1, 3, 3)
    assert_close(found.rotations.mT @ found.rotations, torch.eye(3).expand(5, 1, 3, 3), atol=1e-5, rtol=0)
