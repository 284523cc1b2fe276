"""Shape of a brain mask: largest component, volume, centre, roundness; and the score that tells a head from a decoy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

PLAUSIBLE_ML = (100.0, 160.0, 450.0, 600.0)
"""Brain volumes between 25 and 38 weeks: none below the first or above the last, likely between the middle two."""


@dataclass(frozen=True, slots=True)
class MaskShape:
    """One connected mask.

    Parameters
    ----------
    mask
        The largest component, holes filled.
    center_index
        Its centroid, voxels.
    volume_ml
        Its volume.
    roundness
        Its volume over that of the box-free ellipsoid with the same second moments: 1 for an ellipsoid, less for
        anything ragged, branched or hollow.
    elongation
        Longest over shortest semi-axis of that ellipsoid.
    certainty
        Mean probability inside the mask.
    """

    mask: Bool[Tensor, "x y z"]
    center_index: Float[Tensor, "3"]
    volume_ml: float
    roundness: float
    elongation: float
    certainty: float


def measure_mask(
    probability: Float[Tensor, "x y z"], voxel_size_mm: Sequence[float], *, threshold: float = 0.5
) -> MaskShape | None:
    """Largest component (6 neighbours) above the threshold, measured; None if nothing or next to nothing is above."""
    labels, count = ndimage.label((probability > threshold).numpy())
    if count == 0:
        return None
    sizes = numpy.bincount(labels.ravel())
    sizes[0] = 0
    mask = torch.from_numpy(ndimage.binary_fill_holes(labels == int(sizes.argmax())))
    points = mask.nonzero().double()
    if len(points) < 4:
        return None
    center = points.mean(0)
    voxel = torch.tensor(list(voxel_size_mm), dtype=torch.float64)
    offsets = (points - center) * voxel
    covariance = offsets.mT @ offsets / len(points) + torch.diag(voxel.square() / 12)
    axes = (5 * torch.linalg.eigvalsh(covariance)).sqrt()
    volume = len(points) * float(voxel.prod())
    return MaskShape(
        mask=mask,
        center_index=center,
        volume_ml=volume / 1000,
        roundness=min(1.0, volume / (4 / 3 * math.pi * float(axes.prod()))),
        elongation=float(axes[-1] / axes[0]),
        certainty=float(probability[mask].mean()),
    )


def score_candidate(shape: MaskShape, agreement: float) -> float:
    """Score in [0, 1]: certain, agreed on by the turned passes, of a brain's volume, round, not elongated."""
    none_below, likely_from, likely_to, none_above = PLAUSIBLE_ML
    volume = shape.volume_ml
    plausible = min(
        1.0, (volume - none_below) / (likely_from - none_below), (none_above - volume) / (none_above - likely_to)
    )
    round_enough = min(1.0, max(0.0, (shape.roundness - 0.5) / 0.35))
    compact = min(1.0, max(0.0, (2.6 - shape.elongation) / 0.8))
    return shape.certainty * max(agreement, 0.0) * max(plausible, 0.05) * max(round_enough, 0.05) * max(compact, 0.05)
