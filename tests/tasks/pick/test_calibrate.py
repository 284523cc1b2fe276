from __future__ import annotations

import pytest
import torch

from equivox.errors import ConfigError
from equivox.metrics.picking import calibration_error, reliability
from equivox.tasks.pick.calibrate import Calibration, fit_calibration, threshold_for_precision


def drawn(count: int, slope: float, offset: float) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(4)
    score = 3.0 * torch.randn(count, generator=draw, dtype=torch.float64)
    right = torch.rand(count, generator=draw, dtype=torch.float64) < torch.sigmoid(slope * score + offset)
    return score, right


def test_the_line_that_made_the_answers_is_found() -> None:
    score, right = drawn(40_000, 0.7, -1.2)
    found = fit_calibration(score, right)
    assert found.slope == pytest.approx(0.7, abs=0.02)
    assert found.offset == pytest.approx(-1.2, abs=0.05)
    assert (found.picks, found.right) == (40_000, int(right.sum()))
    before = calibration_error(reliability(torch.sigmoid(score), right))
    after = calibration_error(reliability(found.probability(score), right))
    assert after < 0.01 < before
    shifted = fit_calibration(100.0 + 5.0 * score, right)
    assert shifted.probability(100.0 + 5.0 * score) == pytest.approx(found.probability(score), abs=1e-6)


def test_nothing_to_learn_from_is_the_identity_and_separable_picks_stay_finite() -> None:
    score = torch.linspace(-3, 3, 40)
    assert not fit_calibration(score, torch.ones(40, dtype=torch.bool)).fitted
    assert not fit_calibration(score[:4], torch.tensor([True, False, True, False])).fitted
    perfect = fit_calibration(score, score > 0)
    assert perfect.fitted
    assert 0.0 < float(perfect.probability(score).min()) < float(perfect.probability(score).max()) < 1.0


def test_scores_that_mislead_never_turn_the_order_round() -> None:
    score = torch.linspace(-3, 3, 100)
    assert fit_calibration(score, score < 0).slope > 0.0


def test_the_threshold_keeps_as_many_picks_as_the_precision_allows() -> None:
    probability = torch.tensor([0.2, 0.99, 0.5, 0.9, 0.8])
    assert threshold_for_precision(probability, precision=0.6) == 0.0  # the mean of all is 0.678
    assert threshold_for_precision(probability, precision=0.75) == pytest.approx(0.5)
    assert threshold_for_precision(probability, precision=0.95) == pytest.approx(0.99) or (
        threshold_for_precision(probability, precision=0.945) == pytest.approx(0.9)
    )
    assert threshold_for_precision(probability, precision=1.0) > 1.0
    assert threshold_for_precision(torch.zeros(0), precision=0.5) == 0.0
    with pytest.raises(ConfigError, match="--precision"):
        threshold_for_precision(probability, precision=0.0)


def test_the_model_folder_gives_the_same_line_back() -> None:
    line = Calibration(0.5, -1.0, 30, 20)
    assert Calibration.from_dict(line.as_dict()) == line
    with pytest.raises(ConfigError, match="slope"):
        Calibration.from_dict({**line.as_dict(), "slope": -1.0})
    with pytest.raises(ConfigError, match="read"):
        Calibration.from_dict({"slope": 1.0})
