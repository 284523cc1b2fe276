from __future__ import annotations

import pytest
import torch

from equivox.metrics.class_intervals import class_numbers, roc_area
from equivox.metrics.grouped import draw_groups
from equivox.metrics.probing import fit_logistic, fit_ridge, predicted_classes
from equivox.metrics.regression import paired_difference, regression_numbers


def problem(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    features = torch.randn(120, 30, generator=generator, dtype=torch.float64)
    targets = 50 + 8 * features[:, 0] - 5 * features[:, 1] + 2 * torch.randn(120, generator=generator).double()
    return 1e3 * features + 7, targets, list(range(120))


@pytest.mark.parametrize("penalty", [0.1, 30.0])
def test_ridge_is_scikit_learn_s_on_standardised_features(penalty: float, generator: torch.Generator) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    features, targets, groups = problem(generator)
    readout = fit_ridge(features, targets, groups, generator=generator, penalties=[penalty])
    standard = (features - features.mean(0)) / features.std(0, correction=0)
    expected = linear.Ridge(alpha=penalty).fit(standard.numpy(), targets.numpy())
    assert torch.allclose(readout.predict(features)[:, 0], torch.from_numpy(expected.predict(standard.numpy())))


@pytest.mark.parametrize("penalty", [0.1, 30.0])
def test_logistic_is_scikit_learn_s_with_balanced_classes(penalty: float, generator: torch.Generator) -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    features, targets, groups = problem(generator)
    labels = (targets > 56).long()
    readout = fit_logistic(features, labels, groups, classes=2, generator=generator, penalties=[penalty])
    standard = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
    model = linear.LogisticRegression(C=1 / penalty, class_weight="balanced", tol=1e-10, max_iter=2000)
    expected = torch.from_numpy(model.fit(standard, labels.numpy()).decision_function(standard))
    assert torch.allclose(readout.predict(features)[:, 0], expected, atol=1e-4)


def test_noise_gets_a_strong_penalty_and_signal_a_weak_one(generator: torch.Generator) -> None:
    features, targets, groups = problem(generator)
    strong = fit_ridge(torch.randn(120, 60, generator=generator), targets, groups, generator=generator)
    assert strong.penalty > 100 * fit_ridge(features, targets, groups, generator=generator).penalty


def test_a_constant_feature_predicts_the_mean(generator: torch.Generator) -> None:
    _, targets, groups = problem(generator)
    readout = fit_ridge(torch.full((120, 1), 3.0), targets, groups, generator=generator)
    assert torch.allclose(readout.predict(torch.full((2, 1), 3.0))[:, 0], targets.mean().expand(2))


def test_three_classes(generator: torch.Generator) -> None:
    centres = torch.tensor([[3.0, 0], [-3, 3], [-3, -3]])
    labels = torch.arange(3).repeat_interleave(30)
    features = centres[labels] + torch.randn(90, 2, generator=generator)
    readout = fit_logistic(features, labels, list(range(90)), classes=3, generator=generator)
    assert float((predicted_classes(readout.predict(features)) == labels).double().mean()) > 0.95


def test_separable_classes_do_not_diverge(generator: torch.Generator) -> None:
    features = torch.cat([torch.zeros(20, 1) - 5, torch.zeros(20, 1) + 5])
    labels = torch.arange(2).repeat_interleave(20)
    readout = fit_logistic(features, labels, list(range(40)), classes=2, generator=generator)
    assert torch.isfinite(readout.predict(features)).all()
    assert torch.equal(predicted_classes(readout.predict(features)), labels)


def test_numbers_of_a_regression(generator: torch.Generator) -> None:
    truth = torch.linspace(20, 80, 61)
    shrunk = 50 + 0.5 * (truth - 50)
    draws = draw_groups(list(range(61)), 400, generator=generator)
    found = regression_numbers(shrunk[None].expand(2, -1), truth, draws)
    assert found.mae.value == pytest.approx(0.5 * float((truth - 50).abs().mean()))
    assert found.mae.low < found.mae.value < found.mae.high
    assert found.mae_sd == 0.0
    assert found.r == pytest.approx(1.0)
    assert found.r2.value == pytest.approx(0.75)
    assert found.bias_slope == pytest.approx(-0.5)
    better = truth + 1
    difference = paired_difference(better[None], shrunk[None], truth, draws)
    assert difference.high < 0


def test_numbers_of_classes(generator: torch.Generator) -> None:
    labels = torch.tensor([0] * 8 + [1] * 2)
    never = torch.zeros(1, 10, dtype=torch.int64)
    draws = draw_groups(list(range(10)), 300, generator=generator)
    found = class_numbers(never, never.double(), labels, classes=2, resamples=draws)
    assert found.bacc.value == 0.5  # the majority, however large
    assert found.f1 == 0.0
    assert found.auc == 0.5
    right = class_numbers(labels[None], labels[None].double(), labels, classes=2, resamples=draws)
    assert (right.bacc.value, right.f1, right.auc) == (1.0, 1.0, 1.0)
    assert roc_area(torch.tensor([0.2, 0.1]), torch.tensor([0, 0])) != roc_area(torch.tensor([0.2]), torch.tensor([0]))
