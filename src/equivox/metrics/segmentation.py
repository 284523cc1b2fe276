"""How well a segmentation overlaps the truth."""

from __future__ import annotations

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

SMOOTH = 1e-7
"""Added above and below, so that a class that is absent from both counts as 1 (published value)."""


def one_hot(
    labels: Shaped[Tensor, "batch x y z"], classes: int, *, dtype: torch.dtype
) -> Float[Tensor, "batch class x y z"]:
    """One channel per class 0..classes-1; a voxel with any other label is 0 in all of them."""
    values = torch.arange(classes, device=labels.device).view(1, -1, 1, 1, 1)
    return (labels[:, None] == values).to(dtype)


def dice_coefficient(
    prediction: Float[Tensor, "batch class x y z"],
    target: Float[Tensor, "batch class x y z"],
    *,
    smooth: float = SMOOTH,
) -> Float[Tensor, "batch class"]:
    """Overlap ``(2 sum(p t) + smooth) / (sum(p) + sum(t) + smooth)`` over the voxels, per item and class.

    Parameters
    ----------
    prediction
        Probabilities, or 0 and 1.
    target
        0 and 1.

    References
    ----------
    .. [1] Dice, "Measures of the amount of ecologic association between species", Ecology 26, 1945.

    Examples
    --------
    >>> same = torch.ones(1, 1, 2, 2, 2)
    >>> dice_coefficient(same, same)
    tensor([[1.]])
    """
    voxels = (-3, -2, -1)
    both = (prediction * target).sum(voxels)
    return (2.0 * both + smooth) / (prediction.sum(voxels) + target.sum(voxels) + smooth)


def dice_of_decision(
    logits: Float[Tensor, "batch class x y z"], labels: Shaped[Tensor, "batch x y z"]
) -> Float[Tensor, "batch class"]:
    """Dice of the class with the largest logit, for every class (background first)."""
    classes = logits.shape[1]
    decided = one_hot(logits.argmax(1), classes, dtype=logits.dtype)
    return dice_coefficient(decided, one_hot(labels, classes, dtype=logits.dtype))
