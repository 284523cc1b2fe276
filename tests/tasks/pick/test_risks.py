from __future__ import annotations

import math

import pytest
import torch

from equivox.tasks.pick.risks import balanced_weight, binomial_risk, labelled_risk, non_negative_risk


def test_rare_positives_get_their_share_of_the_weight_and_the_mean_stays_one() -> None:
    target = torch.zeros(1000)
    target[:10] = 1.0
    weight = torch.ones(1000)
    weight[990:] = 0.0
    found = balanced_weight(target, weight, positive_share=0.2)
    assert float(found.mean()) == pytest.approx(1.0)
    assert float(found[:10].sum() / found.sum()) == pytest.approx(0.2)
    assert float(found[990:].abs().max()) == 0.0
    frequent = balanced_weight((torch.arange(10) < 5).float(), torch.ones(10), positive_share=0.2)
    assert torch.equal(frequent, torch.ones(10))
    none = balanced_weight(torch.zeros(10), torch.ones(10), positive_share=0.2)
    assert torch.equal(none, torch.ones(10))


def test_soft_targets_are_met_by_their_own_log_odds() -> None:
    target = torch.tensor([0.9, 0.5, 0.05])
    logits = torch.logit(target).requires_grad_()
    labelled_risk(logits, target, torch.ones(3), positive_share=0.9).mean().backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) < 1e-7


def normal_logits(count: int, mean: float, seed: int) -> torch.Tensor:
    return mean + torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_non_negative_risk_is_that_of_full_labels_on_average() -> None:
    prior = 0.3
    positive, negative = normal_logits(200_000, 1.0, 0), normal_logits(200_000, -1.0, 1)
    mixed = torch.cat([normal_logits(60_000, 1.0, 2), normal_logits(140_000, -1.0, 3)])
    full = (
        prior * torch.nn.functional.softplus(-positive).mean()
        + (1 - prior) * torch.nn.functional.softplus(negative).mean()
    )
    assert float(non_negative_risk(positive, mixed, prior=prior)) == pytest.approx(float(full), abs=0.005)


def test_learning_the_labelled_positives_by_heart_is_undone() -> None:
    positive = torch.tensor([20.0, 25.0]).requires_grad_()
    unlabelled = torch.tensor([-20.0, -30.0]).requires_grad_()
    risk = non_negative_risk(positive, unlabelled, prior=0.4)
    risk.backward()
    assert float(risk.detach()) > 0.0
    assert positive.grad is not None
    assert bool((positive.grad > 0).all())  # a step downhill lowers their scores


def test_the_binomial_risk_is_smallest_where_the_expected_number_is_found() -> None:
    positive = torch.full((5,), 8.0)

    def risk(found: int) -> float:
        unlabelled = torch.full((200,), -12.0)
        unlabelled[:found] = 12.0
        return float(binomial_risk(positive, unlabelled, prior=0.1))

    values = {found: risk(found) for found in (0, 5, 15, 20, 25, 40, 100)}
    assert min(values, key=values.__getitem__) == 20
    assert values[0] > values[5] > values[15]
    assert values[100] > values[40] > values[25]
    exact = -math.log(math.comb(200, 20) * 0.1**20 * 0.9**180)
    assert values[20] == pytest.approx(exact + math.log1p(math.exp(-8.0)), rel=1e-4)


def test_empty_parts_and_wrong_priors() -> None:
    some = torch.tensor([0.5, -0.5])
    none = torch.zeros(0)
    for risk in (non_negative_risk, binomial_risk):
        assert math.isfinite(float(risk(none, some, prior=0.2)))
        assert math.isfinite(float(risk(some, none, prior=0.2)))
        with pytest.raises(ValueError, match="prior"):
            risk(some, some, prior=1.0)
