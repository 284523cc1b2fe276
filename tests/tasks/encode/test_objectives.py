from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from equivox.geometry.rotations import random_rotations, rotation_angle
from equivox.nets.brain_code import align_vectors
from equivox.tasks.encode.erasing import draw_holes
from equivox.tasks.encode.objectives import (
    bootstrap_loss,
    condition_loss,
    condition_ratio,
    contrastive_loss,
    direction_loss,
    equivariance_loss,
    gaussian_divergence,
    published_loss,
    reconstruction_loss,
    spread_loss,
    vicreg_loss,
)


@pytest.fixture(scope="module")
def reference(fixture_path: Callable[[str], Path]) -> dict[str, Tensor]:
    with np.load(fixture_path("soe/losses.npz"), allow_pickle=False) as archive:
        return {name: torch.from_numpy(np.asarray(archive[name])).float() for name in archive.files}


def near(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    assert_close(found, expected, atol=tolerance, rtol=1e-5)


def test_the_published_loss_and_its_equal_halves(reference: dict[str, Tensor]) -> None:
    first, second, pull = reference["z1"], reference["z2"], reference["R"].expand(4, 3, 3)
    terms = published_loss(first, second, pull, alpha=float(reference["alpha"]))
    near(terms.distance, reference["term1"] + reference["term2"])
    near(terms.distance, 2 * reference["term1"])
    near(terms.repulsion, reference["inv_distance"])
    near(terms.distance.mean(), reference["distance"])
    near(terms.loss.mean(), reference["total"])


def test_our_terms(reference: dict[str, Tensor]) -> None:
    first, second, turn = reference["z1"], reference["z2"], reference["R"].mT.expand(4, 3, 3)
    near(equivariance_loss(first, second, turn), reference["scalefree"])
    near(equivariance_loss(first, second, turn).mean(), reference["scalefree_mean"])
    near(condition_ratio(first), reference["sigma21"])
    near(torch.linalg.svdvals(first), reference["sv_z1"])
    near(condition_loss(first, threshold=0.3), reference["hinge_cond_tau0.3"])
    near(spread_loss(first), reference["logdet_cond"], 1e-4)


def test_alignment_of_noisy_vectors(reference: dict[str, Tensor]) -> None:
    first, second = reference["z1"], reference["kabsch_V2"]
    found = align_vectors(first, second)
    near(found.rotation, reference["kabsch_est"])
    error = torch.rad2deg(rotation_angle(found.rotation @ reference["kabsch_Q"].mT))
    assert_close(error, reference["kabsch_err_deg"], atol=2e-3, rtol=0)


def test_a_rank_one_code_costs_what_the_formula_says(reference: dict[str, Tensor]) -> None:
    w = reference["rank1_w"]
    first, second = (reference[name][None, :, None] * w for name in ("rank1_z1", "rank1_z2"))
    terms = published_loss(first, second, reference["R"][None])
    near(terms.distance[0] / 2, reference["rank1_term"])
    assert float(condition_ratio(first)) < 1e-6
    assert float(align_vectors(first, second).confidence) < 1e-6


@pytest.mark.parametrize("cosine", [0.5, 0.0, -0.5])
@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_the_published_optimum_is_a_change_of_sign(cosine: float, alpha: float) -> None:
    """The closed form L* = 2 sqrt(alpha sqrt(2 (1 + c))), at z2 = -z1 (soe 3.2)."""
    w = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    sine = math.sqrt(1 - cosine**2)
    pull = torch.tensor([[cosine, -sine, 0], [sine, cosine, 0], [0, 0, 1]], dtype=torch.float64)[None]
    z = torch.full((2, 1, 8, 1), 0.05, dtype=torch.float64)
    z[1] *= -0.5
    z = z.requires_grad_()
    optimizer = torch.optim.LBFGS([z], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-10)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = published_loss(z[0] * w, z[1] * w, pull, alpha=alpha).loss.sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    loss = float(published_loss(z[0] * w, z[1] * w, pull, alpha=alpha).loss.detach())
    assert loss == pytest.approx(2 * math.sqrt(alpha * math.sqrt(2 * (1 + cosine))), rel=1e-3)
    assert_close(z[1].detach(), -z[0].detach(), atol=1e-2, rtol=0.05)


def test_scale_free_losses_are_free_of_scale_and_zero_at_equivariance(generator: torch.Generator) -> None:
    first, second = torch.randn(2, 5, 8, 3, generator=generator)
    turns = random_rotations(5, generator=generator).float()
    for loss in (equivariance_loss, direction_loss):
        assert_close(loss(3 * first, 3 * second, turns), loss(first, second, turns))
        assert float(loss(first, first @ turns.mT, turns).max()) < 1e-10
        assert float(loss(first, second, turns).min()) > 0.1
    assert_close(direction_loss(first, 7 * second, turns), direction_loss(first, second, turns))


def test_contrast_wants_partners_alike_and_others_apart(generator: torch.Generator) -> None:
    rows = torch.eye(6)
    assert float(contrastive_loss(rows, rows).max()) < 1e-2
    assert float(contrastive_loss(rows, rows.roll(1, 0)).min()) > 5.0
    expected = math.log(11)  # all views alike: chance among the eleven others
    assert_close(contrastive_loss(torch.ones(6, 4), torch.ones(6, 4)), torch.full((6,), expected))


def test_vicreg_punishes_collapse_and_redundancy(generator: torch.Generator) -> None:
    rows = torch.randn(64, 8, generator=generator)
    white = rows - rows.mean(0)
    white = white @ torch.linalg.inv(torch.linalg.cholesky(white.mT @ white / 63)).mT * 1.01
    good = float(vicreg_loss(white, white).mean())
    collapsed = float(vicreg_loss(torch.zeros_like(rows), torch.zeros_like(rows)).mean())
    twins = torch.cat([white[:, :4], white[:, :4]], dim=1)
    assert good < 1e-2 < float(vicreg_loss(twins, twins).mean()) < collapsed
    assert collapsed == pytest.approx(25 * (1 - 0.01), rel=1e-4)
    assert bool(torch.isfinite(vicreg_loss(rows[:1], rows[1:2])).all())


def test_bootstrap_reconstruction_and_divergence(generator: torch.Generator) -> None:
    rows = torch.randn(4, 6, generator=generator)
    assert_close(bootstrap_loss(rows, 3 * rows), torch.zeros(4), atol=1e-6, rtol=0)
    assert_close(bootstrap_loss(rows, -rows), torch.full((4,), 4.0))
    volume = torch.randn(2, 1, 4, 4, 4, generator=generator)
    weight = torch.zeros_like(volume)
    weight[..., 0] = 1
    changed = volume + weight
    assert_close(reconstruction_loss(changed, volume, weight), torch.ones(2))
    assert_close(reconstruction_loss(changed, volume, 1 - weight), torch.zeros(2))
    assert_close(gaussian_divergence(torch.zeros(3, 5), torch.zeros(3, 5)), torch.zeros(3))
    assert float(gaussian_divergence(rows, rows).min()) > 0


def test_holes_lie_in_the_brain_and_know_no_direction(generator: torch.Generator) -> None:
    axis = torch.arange(24.0) - 11.5
    ball = ((axis[:, None, None] ** 2 + axis[None, :, None] ** 2 + axis[None, None, :] ** 2).sqrt() < 10).float()[None]
    holes = torch.stack([draw_holes(ball, 5.0, generator=generator)[0] for _ in range(60)])
    assert float(holes.min()) >= 0.0
    assert float(holes.max()) <= 1.0
    share = float((holes * ball).sum() / (60 * ball.sum()))
    assert 0.04 < share < 0.25
    mean = holes.mean(0)
    second = torch.stack([(mean * (axis.view([-1 if a == b else 1 for b in range(3)]) ** 2)).sum() for a in range(3)])
    assert float((second / second.mean() - 1).abs().max()) < 0.15
    assert float(draw_holes(torch.zeros(1, 4, 4, 4), 5.0, generator=generator).sum()) == 0.0
