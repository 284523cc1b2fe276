"""Which picks on a micrograph are right."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.metrics.picking import PickedMicrograph, match_picks
from equivox.tasks.pick.scoring import Candidates

TOLERANCE_RADII = 0.5
"""A pick is right within half a particle radius of a label."""


def judged(
    picks: Candidates,
    labels_px: Float[Tensor, "label 2"],
    radius_px: float,
    *,
    tolerance_px: float | None = None,
    size: tuple[int, int] | None = None,
    margin_px: float = 0.0,
) -> PickedMicrograph:
    """Which candidates are right; labels in the margin of the edge do not count, nor do picks that find them."""
    inside = torch.ones(len(labels_px), dtype=torch.bool)
    if size is not None and margin_px > 0.0:
        limits = torch.tensor(size, dtype=labels_px.dtype) - 1.0
        inside = ((labels_px >= margin_px) & (labels_px <= limits - margin_px)).all(dim=1)
    tolerance = TOLERANCE_RADII * radius_px if tolerance_px is None else tolerance_px
    found = match_picks(picks.yx_px, picks.score, labels_px, tolerance=tolerance)
    matched = found >= 0
    counted = ~matched
    counted[matched] = inside[found[matched]]
    return PickedMicrograph(picks.score[counted], matched[counted], int(inside.sum()))
