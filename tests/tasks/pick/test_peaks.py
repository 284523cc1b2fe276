from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equivox.tasks.pick.peaks import local_maxima, refine_peaks, suppress


def bumps(height: int, width: int, centers: list[tuple[float, float]], sigma: float = 2.0) -> torch.Tensor:
    y = torch.arange(height, dtype=torch.float64)[:, None]
    x = torch.arange(width, dtype=torch.float64)[None, :]
    total = torch.zeros(height, width, dtype=torch.float64)
    for row, column in centers:
        total += torch.exp(-0.5 * ((y - row) ** 2 + (x - column) ** 2) / sigma**2)
    return total.log()


def test_log_odds_that_fall_as_a_parabola_give_the_summit_exactly() -> None:
    centers = [(10.3, 20.7), (30.0, 8.25)]
    for center in centers:
        score = bumps(40, 40, [center])
        places = torch.nonzero(local_maxima(score, floor=-1.0))
        found, height = refine_peaks(score, places)
        assert places.shape == (1, 2)
        assert found[0].tolist() == pytest.approx(center, abs=1e-9)
        assert float(height[0]) == pytest.approx(0.0, abs=1e-9)


def test_a_plateau_is_one_maximum_and_edges_count() -> None:
    score = torch.zeros(9, 9)
    score[3:5, 3:6] = 2.0
    score[0, 8] = 1.0
    score[8, 0] = float("-inf")
    places = torch.nonzero(local_maxima(score, floor=0.5))
    assert places.tolist() == [[0, 8], [3, 3]]
    found, _ = refine_peaks(score, places)
    assert found[0].tolist() == [0.0, 8.0]


@settings(max_examples=50)
@given(count=st.integers(0, 60), distance=st.floats(0.0, 30.0), seed=st.integers(0, 1000))
def test_suppression_keeps_a_distance_and_drops_only_what_is_near_a_better_one(
    count: int, distance: float, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    position = 60.0 * torch.rand(count, 2, generator=draw, dtype=torch.float64) - 10.0
    score = torch.randint(0, 20, (count,), generator=draw).double()
    kept = suppress(position, score, distance=distance)
    order = torch.sort(score, descending=True, stable=True).indices.tolist()
    expected: list[int] = []
    for index in order:
        if all(float((position[index] - position[other]).norm()) >= distance for other in expected):
            expected.append(index)
    assert kept.tolist() == expected
