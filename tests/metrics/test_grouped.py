from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equivox.errors import InputError
from equivox.metrics.grouped import (
    Resamples,
    draw_groups,
    group_means,
    measure,
    weighted_mean,
    weighted_quantile,
)


@given(
    values=st.lists(st.floats(-100, 100), min_size=1, max_size=12),
    quantile=st.sampled_from([0.0, 0.025, 0.3, 0.5, 0.95, 1.0]),
    seed=st.integers(0, 1000),
)
def test_weighted_quantile_is_numpys_quantile_of_the_repeated_values(
    values: list[float], quantile: float, seed: int
) -> None:
    weights = torch.randint(0, 4, (3, len(values)), generator=torch.Generator().manual_seed(seed)).double()
    weights[:, 0] += 1
    got = weighted_quantile(torch.tensor(values, dtype=torch.float64), weights, quantile)
    for row, number in zip(weights, got.tolist(), strict=True):
        repeated = np.repeat(np.array(values), row.long().numpy())
        assert number == pytest.approx(np.quantile(repeated, quantile), abs=1e-9)


def test_values_without_an_answer_are_left_out_and_not_counted_as_zero() -> None:
    values = torch.tensor([4.0, torch.nan, 2.0], dtype=torch.float64)
    ones = torch.ones(3, dtype=torch.float64)
    assert float(weighted_mean(values, ones)) == 3.0
    assert float(weighted_quantile(values, ones, 0.5)) == 3.0
    assert group_means(values, ["a", "b", "a"]).tolist()[0] == 3.0
    assert group_means(values, ["a", "b", "a"]).isnan().tolist() == [False, True]


def test_the_bootstrap_draws_whole_groups() -> None:
    labels = ["a", "a", "b", "c", "c", "c"]
    resamples = draw_groups(labels, 200, generator=torch.Generator().manual_seed(0))
    drawn = resamples.distinct[resamples.which]
    assert drawn.shape == (200, 6)
    assert len(resamples.distinct) <= 10  # multisets of 3 out of 3
    assert torch.equal(drawn[:, 0], drawn[:, 1])
    assert torch.equal(drawn[:, 3], drawn[:, 5])
    assert bool((drawn[:, [0, 2, 3]].sum(1) == 3).all())  # as many groups as there are
    assert len(drawn[:, [0, 2, 3]].unique(dim=0)) > 5


def test_interval_of_a_mean_over_independent_items_has_the_textbook_width() -> None:
    draw = torch.Generator().manual_seed(1)
    values = torch.randn(400, generator=draw, dtype=torch.float64)
    drawn = draw_groups(list(range(400)), 4000, generator=draw)
    measured = measure(values, weighted_mean, drawn)
    assert measured.high - measured.low == pytest.approx(2 * 1.96 * float(values.std()) / 20, rel=0.06)
    assert measured.low < measured.value < measured.high


def test_grouping_widens_the_interval_when_a_group_repeats_one_value() -> None:
    draw = torch.Generator().manual_seed(2)
    values = torch.randn(20, generator=draw, dtype=torch.float64).repeat_interleave(10)
    alone = measure(values, weighted_mean, draw_groups(list(range(200)), 2000, generator=draw))
    labels = [index // 10 for index in range(200)]
    grouped = measure(values, weighted_mean, draw_groups(labels, 2000, generator=draw))
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)  # sqrt(10) = 3.2


def test_nothing_measured_is_said_as_none() -> None:
    values = torch.full((3,), torch.nan, dtype=torch.float64)
    measured = measure(
        values, weighted_mean, Resamples(torch.ones(1, 3, dtype=torch.float64), torch.zeros(5, dtype=torch.int64))
    )
    assert measured.as_dict() == {"value": None, "low": None, "high": None}


def test_zero_resamples_are_refused() -> None:
    with pytest.raises(InputError, match="at least 1 resample"):
        draw_groups(["a"], 0, generator=torch.Generator())
