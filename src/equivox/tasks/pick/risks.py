"""What training makes small: full labels, or positives among unlabelled places with a known expected number.

All functions take logits of many places. ``weight`` is 0 where a place must not count (masks, edges).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

NEAR_ZERO = 1e-10


def labelled_risk(
    logits: Float[Tensor, "*place"],
    target: Float[Tensor, "*place"],
    weight: Float[Tensor, "*place"],
    *,
    positive_share: float,
) -> Float[Tensor, "*place"]:
    """Cross-entropy with soft targets, for places that are all labelled.

    Parameters
    ----------
    target
        1 at a particle's centre, falling to 0 away from it.
    positive_share
        Share of the weight that places on particles get (target above 0.1), however rare they are; below it they are
        weighted up.

    Returns
    -------
    Weighted losses whose mean over all places is the risk.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return losses * balanced_weight(target, weight, positive_share=positive_share)


def balanced_weight(
    target: Float[Tensor, "*place"], weight: Float[Tensor, "*place"], *, positive_share: float
) -> Float[Tensor, "*place"]:
    """Weights of mean 1 in which places with a target above 0.1 hold at least ``positive_share``."""
    near = weight * (target > 0.1)
    far = weight - near
    of_near, of_far = near.sum(), far.sum()
    total = (of_near + of_far).clamp_min(1.0)
    share = of_near / total
    if float(of_near) == 0.0 or float(share) >= positive_share or float(of_far) == 0.0:
        return weight * (weight.numel() / total)
    return (near * (positive_share / share) + far * ((1.0 - positive_share) / (1.0 - share))) * (weight.numel() / total)


def non_negative_risk(
    positive: Float[Tensor, " positive"], unlabelled: Float[Tensor, " unlabelled"], *, prior: float
) -> Float[Tensor, ""]:
    """Risk of a classifier from positives and unlabelled places (Kiryo et al. 2017), logistic loss.

    ``prior * E_P[l(+)] + max(0, E_U[l(-)] - prior * E_P[l(-)])``; where the second part is negative (the classifier
    begins to learn the labelled positives by heart) its sign is turned, so that a step undoes it.

    Parameters
    ----------
    positive, unlabelled
        Logits; unlabelled places hold positives too, in the share ``prior``.

    Raises
    ------
    ValueError
        If ``prior`` is not between 0 and 1.
    """
    _check_prior(prior)
    of_positive = functional.softplus(-positive).mean() if len(positive) else unlabelled.new_zeros(())
    as_negative = functional.softplus(positive).mean() if len(positive) else unlabelled.new_zeros(())
    of_unlabelled = functional.softplus(unlabelled).mean() if len(unlabelled) else positive.new_zeros(())
    negative = of_unlabelled - prior * as_negative
    return prior * of_positive + torch.where(negative >= 0.0, negative, -negative)


def binomial_risk(
    positive: Float[Tensor, " positive"], unlabelled: Float[Tensor, " unlabelled"], *, prior: float, slack: float = 1.0
) -> Float[Tensor, ""]:
    """Generalised expectation over a binomial count (Bepler et al. 2019): positives labelled, the rest by its number.

    Cross-entropy of the positives plus ``slack`` times the cross-entropy between the distribution of the number of
    positives among the unlabelled places, taken as a normal of mean ``sum p`` and variance ``sum p (1 - p)`` on the
    whole numbers, and a binomial with ``prior``.

    Parameters
    ----------
    unlabelled
        Logits of places that are nearly independent of each other (further apart than a particle).
    prior
        Expected share of positives among them.

    Raises
    ------
    ValueError
        If ``prior`` is not between 0 and 1.
    """
    _check_prior(prior)
    of_positive = functional.softplus(-positive).mean() if len(positive) else unlabelled.new_zeros(())
    count = len(unlabelled)
    if count == 0:
        return of_positive
    probability = torch.sigmoid(unlabelled.float())
    mean = probability.sum()
    variance = (probability * (1.0 - probability)).sum()
    numbers = torch.arange(count + 1, dtype=torch.float32, device=unlabelled.device)
    belief = torch.softmax(-0.5 * (numbers - mean) ** 2 / (variance + NEAR_ZERO), dim=0)
    return of_positive - slack * (belief * _log_binomial(count, prior).to(belief)).sum()


def _log_binomial(count: int, prior: float) -> Float[Tensor, " number"]:
    """Logarithm of the binomial distribution of 0 .. count, in float64."""
    numbers = torch.arange(count + 1, dtype=torch.float64)
    total = torch.tensor(float(count), dtype=torch.float64)
    choose = torch.lgamma(total + 1) - torch.lgamma(numbers + 1) - torch.lgamma(total - numbers + 1)
    return choose + numbers * math.log(prior) + (count - numbers) * math.log1p(-prior)


def _check_prior(prior: float) -> None:
    if not 0.0 < prior < 1.0:
        raise ValueError(f"expected a prior between 0 and 1, got {prior}")
