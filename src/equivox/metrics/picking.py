"""How good picks are: one-to-one matching with labels, precision and recall, their area with a band, reliability.

A pick is right when a label lies within a tolerance (half a particle radius) and no better pick has taken that label.
The area under the precision-recall curve is the step sum (average precision); the trapezoid would flatter rare labels.
Labels that are missing from the truth count as false picks: the area is then a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def match_picks(
    picks: Float[Tensor, "pick 2"],
    score: Float[Tensor, " pick"],
    labels: Float[Tensor, "label 2"],
    *,
    tolerance: float,
) -> Int[Tensor, " pick"]:
    """Give every pick, from the best down, the nearest label within ``tolerance`` that is still free.

    Returns
    -------
    Index of the label, -1 for a pick without one. Every label is used at most once.
    """
    taken = torch.full((len(picks),), -1, dtype=torch.int64)
    if len(picks) == 0 or len(labels) == 0:
        return taken
    distance = torch.cdist(picks.double(), labels.double())
    free = torch.ones(len(labels), dtype=torch.bool)
    for index in torch.sort(score, descending=True, stable=True).indices.tolist():
        reach = torch.where(free, distance[index], math.inf)
        nearest = int(reach.argmin())
        if float(reach[nearest]) <= tolerance:
            taken[index] = nearest
            free[nearest] = False
    return taken


def assign_picks(
    picks: Float[Tensor, "pick 2"], labels: Float[Tensor, "label 2"], *, tolerance: float
) -> Int[Tensor, " pick"]:
    """The largest one-to-one assignment within ``tolerance``, of least total distance (Hungarian), scores aside.

    Returns
    -------
    Index of the label, -1 for a pick without one.
    """
    from scipy.optimize import linear_sum_assignment

    taken = torch.full((len(picks),), -1, dtype=torch.int64)
    if len(picks) == 0 or len(labels) == 0:
        return taken
    distance = torch.cdist(picks.double(), labels.double())
    near = distance <= tolerance
    cost = torch.where(near, distance, torch.full_like(distance, 1e6 * max(tolerance, 1.0)))
    rows, columns = linear_sum_assignment(cost.numpy())
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        if bool(near[row, column]):
            taken[row] = column
    return taken


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Precision and recall after each distinct score, from the highest down.

    Parameters
    ----------
    threshold, precision, recall
        One entry per distinct score.
    area
        Average precision: ``sum (recall_k - recall_{k-1}) precision_k``.
    labels
        How many labels there are in all: the denominator of recall.
    """

    threshold: Float[Tensor, " point"]
    precision: Float[Tensor, " point"]
    recall: Float[Tensor, " point"]
    area: float
    labels: int

    def best_f1(self) -> tuple[float, int]:
        """Highest F1 and the point where it is; (0, -1) without points."""
        if len(self.threshold) == 0:
            return 0.0, -1
        total = (self.precision + self.recall).clamp_min(1e-300)
        f1 = 2.0 * self.precision * self.recall / total
        place = int(f1.argmax())
        return float(f1[place]), place


def precision_recall(score: Float[Tensor, " pick"], right: Bool[Tensor, " pick"], *, labels: int) -> PrecisionRecall:
    """Precision-recall curve of picks; equal scores are one step.

    Parameters
    ----------
    score
        The higher the surer.
    right
        Whether a label was matched.
    labels
        Labels in all, those that no pick has found included.
    """
    if len(score) == 0 or labels == 0:
        empty = torch.zeros(0, dtype=torch.float64)
        return PrecisionRecall(empty, empty, empty, 0.0 if labels else math.nan, labels)
    ordered, order = torch.sort(score.double(), descending=True, stable=True)
    hits = right[order].double().cumsum(0)
    last = torch.cat([ordered[1:] != ordered[:-1], torch.tensor([True])])
    hits = hits[last]
    found = torch.arange(1, len(score) + 1, dtype=torch.float64)[last]
    precision, recall = hits / found, hits / labels
    steps = torch.diff(recall, prepend=torch.zeros(1, dtype=torch.float64))
    return PrecisionRecall(ordered[last], precision, recall, float((steps * precision).sum()), labels)


@dataclass(frozen=True, slots=True)
class PickedMicrograph:
    """Scores of a micrograph's picks, which of them are right, and how many labels it has."""

    score: Float[Tensor, " pick"]
    right: Bool[Tensor, " pick"]
    labels: int


def pooled(parts: Sequence[PickedMicrograph]) -> PrecisionRecall:
    """One curve over several micrographs, scores compared across them."""
    return precision_recall(
        torch.cat([part.score.double() for part in parts]) if parts else torch.zeros(0, dtype=torch.float64),
        torch.cat([part.right for part in parts]) if parts else torch.zeros(0, dtype=torch.bool),
        labels=sum(part.labels for part in parts),
    )


@dataclass(frozen=True, slots=True)
class AreaBand:
    """What the area and the curve would be on other micrographs like these.

    Parameters
    ----------
    low, high
        2.5 and 97.5 % of the area over draws of micrographs with replacement.
    recall, precision_low, precision_high
        The band of the curve at given recalls; NaN where fewer than half of the draws reach that far.
    draws
        How many.
    """

    low: float
    high: float
    recall: Float[Tensor, " point"]
    precision_low: Float[Tensor, " point"]
    precision_high: Float[Tensor, " point"]
    draws: int


def area_band(
    parts: Sequence[PickedMicrograph], *, generator: torch.Generator, draws: int = 400, points: int = 101
) -> AreaBand | None:
    """Bootstrap over micrographs (their picks are not independent of each other); None for fewer than two."""
    if len(parts) < 2:
        return None
    grid = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
    areas, curves = [], []
    for _ in range(draws):
        chosen = torch.randint(len(parts), (len(parts),), generator=generator).tolist()
        curve = pooled([parts[index] for index in chosen])
        areas.append(curve.area)
        curves.append(_precision_at(curve, grid))
    area = torch.tensor(areas, dtype=torch.float64)
    stack = torch.stack(curves)
    reached = (~torch.isnan(stack)).double().mean(0) >= 0.5
    low, high = (torch.nanquantile(stack, share, dim=0) for share in (0.025, 0.975))
    nan = torch.full_like(grid, math.nan)
    return AreaBand(
        float(torch.nanquantile(area, 0.025)),
        float(torch.nanquantile(area, 0.975)),
        grid,
        torch.where(reached, low, nan),
        torch.where(reached, high, nan),
        draws,
    )


def _precision_at(curve: PrecisionRecall, recalls: Tensor) -> Tensor:
    """Precision of the first point that reaches each recall; NaN beyond the last."""
    if len(curve.recall) == 0:
        return torch.full_like(recalls, math.nan)
    place = torch.searchsorted(curve.recall, recalls - 1e-12)
    inside = place < len(curve.recall)
    return torch.where(inside, curve.precision[place.clamp(max=len(curve.recall) - 1)], math.nan)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Picks of similar probability: the mean of what was said, the share that was right, how many."""

    said: float
    right: float
    count: int


def reliability(
    probability: Float[Tensor, " pick"], right: Bool[Tensor, " pick"], *, bins: int = 10
) -> list[ReliabilityBin]:
    """Reliability diagram: picks in bins of equal width over [0, 1]; empty bins are left out."""
    place = (probability.double() * bins).long().clamp(0, bins - 1)
    found = []
    for index in range(bins):
        inside = place == index
        if bool(inside.any()):
            said, share = float(probability[inside].double().mean()), float(right[inside].double().mean())
            found.append(ReliabilityBin(said, share, int(inside.sum())))
    return found


def calibration_error(bins: Sequence[ReliabilityBin]) -> float:
    """Expected calibration error: mean of ``|said - right|``, weighted by counts; NaN without picks."""
    total = sum(one.count for one in bins)
    return sum(abs(one.said - one.right) * one.count for one in bins) / total if total else math.nan
