"""From one logit per rotation to one logit: maximum, mean, or "at least one is true" (projection2d.md 5).

``"al1"`` is the logit of ``1 - prod P(y_i = 0)`` where every logit first receives ``log(expm1(ln 2 / R))``, so that
undecided hypotheses leave the whole undecided at any number of them. ``"al1_effective"`` counts neighbouring
hypotheses as one piece of evidence: with a fixed effective number its value converges as the grid is refined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

from equivox.errors import ConfigError

Aggregation = Literal["max", "mean", "logmeanexp", "al1", "al1_effective"]
AGGREGATIONS: tuple[str, ...] = ("max", "mean", "logmeanexp", "al1", "al1_effective")
RARE = -5.0
"""Below this logit ``log softplus`` is summed as a series."""
FEW, MANY = -4.0, 3.0
"""Of the logarithm of the expected count: where the last step changes its form."""


def al1_bias(count: float) -> float:
    """What each of ``count`` hypotheses receives: ``log(2^(1/count) - 1)``, to all digits."""
    return math.log(math.expm1(math.log(2.0) / count))


def aggregate(
    logits: Float[Tensor, "..."],
    how: Aggregation = "al1_effective",
    dim: int = 1,
    *,
    weights: Float[Tensor, "rotation"] | None = None,
    effective_count: float | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """Reduce the axis of rotations.

    Parameters
    ----------
    logits
        Any shape; half precision is reduced in, and returned as, float32.
    how
        ``"max"``, ``"mean"``, ``"logmeanexp"``, ``"al1"`` (as published) or ``"al1_effective"``.
    dim
        The axis of rotations.
    weights
        Share of SO(3) that each rotation stands for (they add up to 1); default: equal. ``"max"`` and ``"al1"`` take
        none.
    effective_count
        For ``"al1_effective"``: how many independent hypotheses there are, at any number of rotations; default: as
        many as rotations, which with equal weights is ``"al1"``. A positive tensor may be learned.

    Returns
    -------
    The logits without that axis. All zero gives zero for every kind.

    Raises
    ------
    ConfigError
        If ``how`` is unknown, or a number does not fit it.

    Examples
    --------
    >>> float(aggregate(torch.zeros(1, 24), "al1").abs()) < 1e-6
    True
    """
    return aggregate_parts([logits], how, dim, weights=weights, effective_count=effective_count)


def aggregate_parts(
    parts: Iterable[Float[Tensor, "..."]],
    how: Aggregation = "al1_effective",
    dim: int = 1,
    *,
    count: int | None = None,
    weights: Float[Tensor, "rotation"] | None = None,
    effective_count: float | Tensor | None = None,
) -> Float[Tensor, "..."]:
    """:func:`aggregate` of logits that come a few rotations at a time: only the running sum is kept.

    Parameters
    ----------
    parts
        Pieces along ``dim``, in the order of ``weights``.
    count
        Rotations in all; needed where there is more than one part, except for ``"max"``.
    """
    if how not in AGGREGATIONS:
        raise ConfigError(f"aggregation {how!r} is unknown; known are {', '.join(AGGREGATIONS)}.")
    if effective_count is not None and how != "al1_effective":
        raise ConfigError(f"aggregation {how!r} knows no effective count; take 'al1_effective' or leave it out.")
    if weights is not None and how in ("max", "al1"):
        raise ConfigError(f"aggregation {how!r} takes no weights; take 'al1_effective' or leave them out.")
    pieces = iter(parts)
    first = next(pieces)
    total = count if count is not None else first.shape[dim]
    effective = float(total) if effective_count is None else effective_count
    running: Tensor | None = None
    start = 0
    for part in (first, *pieces) if count is None else _chain(first, pieces):
        work = part.float() if part.dtype in (torch.float16, torch.bfloat16) else part
        stop = start + work.shape[dim]
        if how != "max" and stop > total:
            raise ConfigError(f"parts hold more than the {total} rotations that were announced; give count.")
        share = _shares(weights, work, dim, total, slice(start, stop))
        here = _reduce(work, how, dim, share, effective)
        running = here if running is None else _join(running, here, how)
        start = stop
    assert running is not None
    if how != "max" and start != total:
        raise ConfigError(f"parts hold {start} rotations, not the {total} that were announced.")
    if how not in ("al1", "al1_effective"):
        return running
    scale = math.log(effective) if isinstance(effective, (int, float)) else effective.log().to(running)
    return _logit_of_count(running + scale)


def _chain(first: Tensor, rest: Iterable[Tensor]) -> Iterable[Tensor]:
    """All parts, one at a time."""
    yield first
    yield from rest


def _shares(weights: Tensor | None, work: Tensor, dim: int, total: int, part: slice) -> Tensor | float:
    """Weights shaped to multiply the logits; one number if they are equal."""
    if weights is None:
        return 1.0 / total
    if len(weights) != total:
        raise ConfigError(f"{len(weights)} weights were given for {total} rotations.")
    shape = [1] * work.ndim
    shape[dim] = -1
    return weights[part].to(work).reshape(shape)


def _reduce(work: Tensor, how: str, dim: int, share: Tensor | float, effective: float | Tensor) -> Tensor:
    """One part's contribution."""
    if how == "max":
        return work.amax(dim)
    if how == "mean":
        return (work * share).sum(dim)
    level = share.log() if isinstance(share, Tensor) else math.log(share)
    if how == "logmeanexp":
        return torch.logsumexp(work + level, dim)
    if isinstance(effective, (int, float)):
        bias: float | Tensor = al1_bias(effective)
    else:
        bias = torch.log(torch.expm1(math.log(2.0) / effective)).to(work)
    return torch.logsumexp(_log_softplus(work + bias) + level, dim)


def _join(one: Tensor, two: Tensor, how: str) -> Tensor:
    """Contributions of two parts."""
    if how == "max":
        return torch.maximum(one, two)
    return one + two if how == "mean" else torch.logaddexp(one, two)


def _log_softplus(value: Tensor) -> Tensor:
    """``log(log(1 + e^x))``, finite with its gradient for every finite x."""
    rare = value < RARE
    small = value.clamp(max=RARE)
    odds = small.exp()
    tail = torch.zeros_like(odds)
    for power in range(7, 1, -1):  # log(1 + x) / x = 1 - x/2 + x^2/3 - ...
        tail = odds * ((-1.0) ** (power - 1) / power + tail)
    series = small + torch.log1p(tail)
    return torch.where(rare, series, functional.softplus(value.clamp(min=RARE), threshold=30.0).log())


def _logit_of_count(level: Tensor) -> Tensor:
    """``log(expm1(S))`` from ``s = log S``."""
    few = level.clamp(max=FEW).exp()
    low = level + few / 2 + few**2 / 24
    some = level.clamp(FEW, MANY).exp()
    middle = torch.log(torch.expm1(some))
    many = level.clamp(min=MANY).exp()
    high = many + torch.log1p(-torch.exp(-many))
    return torch.where(level < FEW, low, torch.where(level < MANY, middle, high))
