"""What pretraining makes small: pure functions of codes, each with its source.

Vectors are rows (batch, vector, 3); a rotation ``Q`` is active, so the vectors of a turned volume should be ``V Q^T``.
The published code pulls with a matrix R, whose target is ``V R``: there ``Q = R^T``.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from jaxtyping import Float
from torch import Tensor

Vectors = Float[Tensor, "batch vector 3"]


def equivariance_loss(
    first: Float[Tensor, "batch vector 3"],
    second: Float[Tensor, "batch vector 3"],
    rotations: Float[Tensor, "batch 3 3"],
) -> Float[Tensor, " batch"]:
    """``|V2 - V1 Q^T|^2 / (|V1|^2 / 2 + |V2|^2 / 2)``: free of scale, so that shrinking gains nothing (soe 4.6 a)."""
    difference = (second - first @ rotations.to(first).mT).square().sum((1, 2))
    size = 0.5 * (first.square().sum((1, 2)) + second.square().sum((1, 2)))
    return difference / (size + 1e-12)


def direction_loss(
    first: Float[Tensor, "batch vector 3"],
    second: Float[Tensor, "batch vector 3"],
    rotations: Float[Tensor, "batch 3 3"],
) -> Float[Tensor, " batch"]:
    """The same for vectors of one common length: ``|V2/|V2| - V1/|V1| Q^T|^2`` (soe 4.6 d)."""
    one, two = (rows / (rows.square().sum((1, 2), keepdim=True) + 1e-12).sqrt() for rows in (first, second))
    return (two - one @ rotations.to(first).mT).square().sum((1, 2))


def condition_ratio(vectors: Float[Tensor, "batch vector 3"]) -> Float[Tensor, " batch"]:
    """Second over first singular value: 0 where the vectors all lie on one line and fix no orientation."""
    values = torch.linalg.svdvals(vectors.float())
    return values[:, 1] / values[:, 0].clamp_min(1e-12)


def condition_loss(vectors: Float[Tensor, "batch vector 3"], *, threshold: float = 0.3) -> Float[Tensor, " batch"]:
    """``relu(threshold - s2 / s1)``; never the third value, which is 0 for a symmetric brain (soe 4.6 b)."""
    return (threshold - condition_ratio(vectors)).clamp_min(0.0)


def spread_loss(vectors: Float[Tensor, "batch vector 3"]) -> Float[Tensor, " batch"]:
    """``-log det(3 V^T V / tr(V^T V) + 1e-4)``: asks for three independent directions (soe 4.6 b, for comparison)."""
    gram = torch.einsum("bnx,bny->bxy", vectors, vectors)
    share = gram / gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None].clamp_min(1e-12)
    return -torch.logdet(3.0 * share + 1e-4 * torch.eye(3, dtype=vectors.dtype, device=vectors.device))


@dataclass(frozen=True, slots=True)
class PublishedTerms:
    """The published loss, part by part.

    Parameters
    ----------
    distance
        ``|Z2 - Z1 R| + |Z1 - Z2 R^T|`` (the two are equal).
    repulsion
        ``1 / |Z1 - Z2|``.
    loss
        ``distance + alpha * repulsion``.
    """

    distance: Float[Tensor, " batch"]
    repulsion: Float[Tensor, " batch"]
    loss: Float[Tensor, " batch"]


def published_loss(
    first: Float[Tensor, "batch vector 3"],
    second: Float[Tensor, "batch vector 3"],
    pull: Float[Tensor, "batch 3 3"],
    *,
    alpha: float = 0.1,
) -> PublishedTerms:
    """The loss of the published pretraining, for its baseline; its optimum is a change of sign (soe 1.6, 3.2)."""
    matrix = pull.to(first)
    one = (second - first @ matrix).flatten(1).norm(dim=1)
    two = (first - second @ matrix.mT).flatten(1).norm(dim=1)
    repulsion = 1.0 / (first - second).flatten(1).norm(dim=1).clamp_min(1e-12)
    return PublishedTerms(one + two, repulsion, one + two + alpha * repulsion)


def vicreg_loss(
    first: Float[Tensor, "batch feature"],
    second: Float[Tensor, "batch feature"],
    *,
    invariance: float = 25.0,
    variance: float = 25.0,
    covariance: float = 1.0,
) -> Float[Tensor, " batch"]:
    """Mean square difference per sample, and per batch too little variance and all covariance (soe 4.6 c).

    References
    ----------
    .. [1] Bardes et al., "VICReg", ICLR 2022, eq. (1) to (6).
    """
    count, width = first.shape
    loss = invariance * (first - second).square().mean(1)
    if count < 2:
        return loss
    for rows in (first, second):
        centered = rows - rows.mean(0)
        deviation = (centered.square().sum(0) / (count - 1) + 1e-4).sqrt()
        loss = loss + variance * 0.5 * functional.relu(1.0 - deviation).mean()
        mixed = centered.mT @ centered / (count - 1)
        off = mixed.square().sum() - mixed.diagonal().square().sum()
        loss = loss + covariance * off / width
    return loss


def contrastive_loss(
    first: Float[Tensor, "batch feature"], second: Float[Tensor, "batch feature"], *, temperature: float = 0.1
) -> Float[Tensor, " batch"]:
    """NT-Xent: each view finds its partner among all others of the batch.

    References
    ----------
    .. [1] Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020, eq. (1).
    """
    count = first.shape[0]
    rows = functional.normalize(torch.cat([first, second]).float(), dim=1, eps=1e-6)
    logits = rows @ rows.mT / temperature
    logits = logits.masked_fill(torch.eye(2 * count, dtype=torch.bool, device=rows.device), float("-inf"))
    partner = torch.arange(2 * count, device=rows.device).roll(count)
    losses = functional.cross_entropy(logits, partner, reduction="none")
    return 0.5 * (losses[:count] + losses[count:])


def bootstrap_loss(
    predicted: Float[Tensor, "batch feature"], target: Float[Tensor, "batch feature"]
) -> Float[Tensor, " batch"]:
    """``2 - 2 cos``: the prediction of one view against the slow network's projection of the other.

    References
    ----------
    .. [1] Grill et al., "Bootstrap Your Own Latent", NeurIPS 2020, eq. (2).
    """
    return 2.0 - 2.0 * functional.cosine_similarity(predicted.float(), target.detach().float(), dim=1, eps=1e-6)


def reconstruction_loss(
    found: Float[Tensor, "batch 1 x y z"],
    wanted: Float[Tensor, "batch 1 x y z"],
    weight: Float[Tensor, "batch 1 x y z"],
) -> Float[Tensor, " batch"]:
    """Mean square difference where ``weight`` says (the erased balls, or the brain)."""
    square = (found - wanted).square() * weight
    return square.sum((1, 2, 3, 4)) / weight.sum((1, 2, 3, 4)).clamp_min(1e-6)


def gaussian_divergence(
    mean: Float[Tensor, "batch feature"], log_variance: Float[Tensor, "batch feature"]
) -> Float[Tensor, " batch"]:
    """Kullback-Leibler divergence of ``N(mean, exp(log_variance))`` from N(0, 1), per feature."""
    return 0.5 * (mean.square() + log_variance.exp() - 1.0 - log_variance).mean(1)
