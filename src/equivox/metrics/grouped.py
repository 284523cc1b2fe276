"""Means and quantiles over measurements that come in groups, with bootstrap intervals over the groups.

Several scans of one subject are not independent. The interval of every number is therefore found by drawing whole
groups with replacement; a drawn group brings all its measurements along. NaN means "no answer": it is left out of
means and quantiles, never counted as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from equivox.errors import InputError

INTERVAL = (0.025, 0.975)
"""A 95 % percentile interval."""

Statistic = Callable[[Float[Tensor, "count"], Float[Tensor, "*draws count"]], Float[Tensor, "*draws"]]
"""Maps (values, weights per draw) to one number per draw."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A number with its 95 % bootstrap interval; all three are NaN when nothing could be measured."""

    value: float
    low: float
    high: float

    def as_dict(self, digits: int = 4) -> dict[str, float | None]:
        """Rounded, NaN as None, for JSON."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        return {name: round(number, digits) if number == number else None for name, number in numbers.items()}


def positions_in_groups(labels: Sequence[Hashable]) -> tuple[list[Hashable], Tensor]:
    """Distinct labels in order of first appearance, and for every item the position of its label (int64)."""
    distinct = list(dict.fromkeys(labels))
    place = {label: index for index, label in enumerate(distinct)}
    return distinct, torch.tensor([place[label] for label in labels], dtype=torch.int64)


def group_means(values: Float[Tensor, "count"], labels: Sequence[Hashable]) -> Float[Tensor, "groups"]:
    """Mean of the finite values of every group, in order of first appearance; NaN for a group without any."""
    distinct, position = positions_in_groups(labels)
    seen = ~values.isnan()
    total = torch.zeros(len(distinct), dtype=values.dtype).index_add_(0, position, values.nan_to_num(0.0))
    count = torch.zeros(len(distinct), dtype=values.dtype).index_add_(0, position, seen.to(values))
    return total / torch.where(count > 0, count, torch.nan)


@dataclass(frozen=True, slots=True)
class Resamples:
    """Draws of a bootstrap: few groups give few distinct draws, so each is computed once and counted often."""

    distinct: Float[Tensor, "distinct count"]
    """How often each item appears in each distinct draw (whole numbers)."""
    which: Int[Tensor, "resamples"]
    """Which distinct draw each resample is."""

    def columns(self, items: Int[Tensor, "chosen"]) -> Resamples:
        """The same draws for some of the items."""
        return Resamples(self.distinct[:, items], self.which)


def draw_groups(labels: Sequence[Hashable], resamples: int, *, generator: torch.Generator) -> Resamples:
    """Draw whole groups with replacement, as many as there are; all items of one group share their number."""
    if resamples < 1:
        raise InputError(f"the bootstrap needs at least 1 resample, got {resamples}; 10000 is usual.")
    names, position = positions_in_groups(labels)
    drawn = torch.randint(max(len(names), 1), (resamples, len(names)), generator=generator)
    times = torch.zeros(resamples, len(names), dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    distinct, which = times.unique(dim=0, return_inverse=True)
    return Resamples(distinct[:, position], which)


def weighted_mean(values: Float[Tensor, "count"], weights: Float[Tensor, "*draws count"]) -> Float[Tensor, "*draws"]:
    """Mean of the finite values under weights; NaN where all weight is on NaN."""
    used = weights * (~values.isnan()).to(weights)
    total = used.sum(-1)
    return (used * values.nan_to_num(0.0)).sum(-1) / torch.where(total > 0, total, torch.nan)


def weighted_quantile(
    values: Float[Tensor, "count"], weights: Float[Tensor, "*draws count"], quantile: float
) -> Float[Tensor, "*draws"]:
    """Quantile of the finite values, each repeated as often as its (whole) weight, interpolated as NumPy does.

    With weights of 1 this is ``numpy.quantile(values, quantile)``.
    """
    seen = ~values.isnan()
    ordered, order = values[seen].sort()
    if ordered.numel() == 0:
        return torch.full(weights.shape[:-1], torch.nan, dtype=values.dtype)
    repeats = weights[..., seen][..., order].cumsum(-1)
    total = repeats[..., -1:]
    place = quantile * (total - 1).clamp_min(0)
    below = torch.searchsorted(repeats, place.floor(), right=True).clamp_max(ordered.numel() - 1)
    above = torch.searchsorted(repeats, place.ceil(), right=True).clamp_max(ordered.numel() - 1)
    result = ordered[below] + (place - place.floor()) * (ordered[above] - ordered[below])
    return torch.where(total > 0, result, torch.nan)[..., 0]


def weighted_median(values: Float[Tensor, "count"], weights: Float[Tensor, "*draws count"]) -> Float[Tensor, "*draws"]:
    """Median: :func:`weighted_quantile` at one half."""
    return weighted_quantile(values, weights, 0.5)


def measure(values: Float[Tensor, "count"], statistic: Statistic, resamples: Resamples) -> Measured:
    """A statistic of ``values`` and its interval over the draws of :func:`draw_groups`."""
    if values.numel() == 0:
        return Measured(torch.nan, torch.nan, torch.nan)
    values = values.double()
    value = float(statistic(values, torch.ones_like(values)))
    draws = statistic(values, resamples.distinct)[resamples.which]
    draws = draws[~draws.isnan()]
    if draws.numel() == 0:
        return Measured(value, torch.nan, torch.nan)
    low, high = torch.quantile(draws, torch.tensor(INTERVAL, dtype=draws.dtype)).tolist()
    return Measured(value, low, high)
