from __future__ import annotations

import math

import pytest
import torch

from equivox.metrics.picking import (
    PickedMicrograph,
    area_band,
    assign_picks,
    calibration_error,
    match_picks,
    pooled,
    precision_recall,
    reliability,
)


def test_a_label_is_found_once_by_the_best_pick_near_it() -> None:
    picks = torch.tensor([[0.0, 0.0], [1.0, 0.0], [20.0, 0.0], [40.0, 3.0]])
    labels = torch.tensor([[0.4, 0.0], [20.0, 4.0], [90.0, 90.0]])
    found = match_picks(picks, torch.tensor([0.5, 0.9, 0.7, 0.8]), labels, tolerance=5.0)
    assert found.tolist() == [-1, 0, 1, -1]
    assert match_picks(picks, torch.ones(4), labels, tolerance=3.9).tolist() == [0, -1, -1, -1]
    assert match_picks(picks, torch.ones(4), torch.zeros(0, 2), tolerance=1.0).tolist() == [-1] * 4
    assert match_picks(torch.zeros(0, 2), torch.zeros(0), labels, tolerance=1.0).tolist() == []


def test_the_assignment_finds_more_than_the_greedy_one_where_picks_compete() -> None:
    picks = torch.tensor([[0.0, 0.0], [0.0, 6.0]])
    labels = torch.tensor([[0.0, 3.5], [0.0, -4.0]])
    greedy = match_picks(picks, torch.tensor([1.0, 0.5]), labels, tolerance=4.5)
    assert greedy.tolist() == [0, -1]
    assert assign_picks(picks, labels, tolerance=4.5).tolist() == [1, 0]
    assert assign_picks(picks, labels, tolerance=1.0).tolist() == [-1, -1]


def test_average_precision_is_that_of_scikit_learn_when_every_label_has_a_pick() -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    draw = torch.Generator().manual_seed(0)
    score = torch.randint(0, 30, (200,), generator=draw).double()
    right = torch.rand(200, generator=draw) < 0.3
    found = precision_recall(score, right, labels=int(right.sum()))
    assert found.area == pytest.approx(sklearn.average_precision_score(right.numpy(), score.numpy()), abs=1e-12)
    half = precision_recall(score, right, labels=2 * int(right.sum()))
    assert half.area == pytest.approx(found.area / 2)


def test_counts_of_a_small_case_by_hand() -> None:
    found = precision_recall(torch.tensor([3.0, 2.0, 2.0, 1.0]), torch.tensor([True, True, False, False]), labels=4)
    assert found.threshold.tolist() == [3.0, 2.0, 1.0]
    assert found.precision.tolist() == pytest.approx([1.0, 2 / 3, 0.5])
    assert found.recall.tolist() == [0.25, 0.5, 0.5]
    assert found.area == pytest.approx(0.25 + 0.25 * 2 / 3)
    assert found.best_f1() == (pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5)), 1)
    nothing = precision_recall(torch.zeros(0), torch.zeros(0, dtype=torch.bool), labels=3)
    assert (nothing.area, nothing.best_f1()) == (0.0, (0.0, -1))
    assert math.isnan(precision_recall(torch.zeros(0), torch.zeros(0, dtype=torch.bool), labels=0).area)


def test_the_band_holds_the_area_and_grows_with_differences_between_micrographs() -> None:
    def part(quality: float, seed: int) -> PickedMicrograph:
        draw = torch.Generator().manual_seed(seed)
        right = torch.rand(100, generator=draw) < 0.5
        return PickedMicrograph(quality * right + torch.rand(100, generator=draw), right, int(right.sum()))

    alike = [part(0.6, seed) for seed in range(6)]
    unlike = [part(0.2 * seed, seed) for seed in range(6)]
    bands = [area_band(parts, generator=torch.Generator().manual_seed(0)) for parts in (alike, unlike)]
    assert bands[0] is not None
    assert bands[1] is not None
    assert bands[0].low <= pooled(alike).area <= bands[0].high
    assert bands[1].high - bands[1].low > 2 * (bands[0].high - bands[0].low)
    assert area_band(alike[:1], generator=torch.Generator()) is None
    inner = bands[0].precision_low <= bands[0].precision_high
    assert bool((inner | torch.isnan(bands[0].precision_low)).all())


def test_reliability_of_honest_and_of_boastful_probabilities() -> None:
    draw = torch.Generator().manual_seed(0)
    probability = torch.rand(20_000, generator=draw, dtype=torch.float64)
    right = torch.rand(20_000, generator=draw, dtype=torch.float64) < probability
    honest = reliability(probability, right)
    assert len(honest) == 10
    assert sum(one.count for one in honest) == 20_000
    assert calibration_error(honest) < 0.02
    assert calibration_error(reliability(probability.sqrt(), right)) > 0.1
    assert len(reliability(torch.tensor([1.0, 0.0]), torch.tensor([True, False]))) == 2
    assert math.isnan(calibration_error([]))
