"""From class probabilities to the mask of one object, its centre, and what can be said about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from equivox.errors import ConfigError

OBJECT = 1
"""Class of the object whose pose is wanted; 0 is background."""

PUBLISHED_THRESHOLDS = (0.9, 0.8)
"""Least probability of background and object in the original; every further class has none (-1)."""

Connectivity = Literal[6, 18, 26]


def default_thresholds(classes: int) -> tuple[float, ...]:
    """The published thresholds for any number of classes: 0.9, 0.8, then -1 for each further one."""
    return (PUBLISHED_THRESHOLDS + (-1.0,) * classes)[:classes]


def classify(probabilities: Float[Tensor, "class x y z"], thresholds: Sequence[float]) -> Int[Tensor, "x y z"]:
    """The original's class of every voxel: probabilities at or below their class's threshold count as 0, then arg-max.

    The original takes a second softmax in float32 before the arg-max and so decides near ties by rounding: kept.
    Where neither background nor object passes, a class without threshold wins whatever its probability: the map of the
    further classes is full of false voxels, the object's is not (its probability is above its threshold, always).

    Raises
    ------
    ConfigError
        If there is not one threshold per class.
    """
    if len(thresholds) != probabilities.shape[0]:
        raise ConfigError(
            f"{len(thresholds)} thresholds were given for {probabilities.shape[0]} classes; give one per class."
        )
    limit = torch.tensor(thresholds, dtype=probabilities.dtype, device=probabilities.device).view(-1, 1, 1, 1)
    kept = probabilities * (probabilities > limit)
    return torch.softmax(kept, dim=0).argmax(0)


def largest_component(mask: Bool[Tensor, "x y z"], *, connectivity: Connectivity = 6) -> Bool[Tensor, "x y z"]:
    """Keep the connected component with most voxels (the first on ties); an empty mask stays empty."""
    labels, sizes = _components(mask, connectivity)
    if sizes.size == 0:
        return torch.zeros_like(mask)
    return torch.from_numpy(labels == int(sizes.argmax()) + 1).to(mask.device)


def component_count(mask: Bool[Tensor, "x y z"], *, connectivity: Connectivity = 6, least_voxels: int = 1) -> int:
    """Number of connected components with at least ``least_voxels`` voxels."""
    return int((_components(mask, connectivity)[1] >= least_voxels).sum())


def brain_and_eyes(
    probabilities: Float[Tensor, "3 x y z"], thresholds: Sequence[float]
) -> tuple[Bool[Tensor, "x y z"], Bool[Tensor, "x y z"]]:
    """The original's variant for fetuses: the brain, and the eyes.

    The brain is the largest 18-connected component of class 1; the eyes are the two largest 18-connected components of
    the voxels whose probability of class 2 is above 0.5.
    """
    brain = largest_component(classify(probabilities, thresholds) == OBJECT, connectivity=18)
    labels, sizes = _components(probabilities[2] > 0.5, 18)
    chosen = np.argsort(-sizes, kind="stable")[:2] + 1
    return brain, torch.from_numpy(np.isin(labels, chosen)).to(probabilities.device)


def center_of_mask(mask: Bool[Tensor, "x y z"]) -> Float[Tensor, "3"]:
    """Unweighted mean voxel index of a mask that is not empty, float64 on the CPU."""
    return mask.nonzero().double().mean(0).cpu()


def voxels_to_border(mask: Bool[Tensor, "x y z"], field_of_view: Bool[Tensor, "x y z"]) -> int:
    """Fewest voxels between the mask's box and the edge of the box of what was imaged; 0 where they touch."""
    inner, outer = mask.nonzero(), field_of_view.nonzero()
    before = inner.amin(0) - outer.amin(0)
    after = outer.amax(0) - inner.amax(0)
    return int(torch.minimum(before, after).min().clamp_min(0))


def _components(mask: Tensor, connectivity: int) -> tuple[np.ndarray, np.ndarray]:
    """Label image (0 outside) and the voxel count of every label."""
    structure = ndimage.generate_binary_structure(3, {6: 1, 18: 2, 26: 3}[connectivity])
    labels, count = ndimage.label(mask.cpu().numpy(), structure=structure)
    return labels, np.bincount(labels.ravel(), minlength=count + 1)[1:]
