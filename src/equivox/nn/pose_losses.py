"""What a pose network is trained by: the paper's loss on the true cell, and the likelihood of a mixture."""

from __future__ import annotations

import torch
import torch.nn.functional as functional
from jaxtyping import Float, Int
from torch import Tensor

from equivox.nn.matrix_fisher import mixture_log_density
from equivox.nn.pose_heads import PoseHypotheses

DISTANCE_WEIGHT = 10.0
"""Weight of ``sin²(d / 2)`` beside the cross-entropy (the paper gives none)."""


def true_cells(
    grid: Float[Tensor, "rotation 3 3"],
    targets: Float[Tensor, "batch 3 3"],
    *,
    group: Float[Tensor, "element 3 3"] | None = None,
) -> Int[Tensor, " batch"]:
    """Index of the grid member nearest to each target (to any of its symmetric variants); ties: the lowest.

    The trace of ``R_i^T Q`` grows with ``(q_i . q)^2``, so this is the arg-max of ``|q_i . q|``.
    """
    variants = targets[:, None] if group is None else targets[:, None] @ group.to(targets)
    return torch.einsum("rij,beij->bre", grid.to(targets), variants).amax(-1).argmax(-1)


def hard_loss(
    found: PoseHypotheses,
    grid: Float[Tensor, "rotation 3 3"],
    targets: Float[Tensor, "batch 3 3"],
    *,
    group: Float[Tensor, "element 3 3"] | None = None,
    weight: float = DISTANCE_WEIGHT,
) -> Float[Tensor, "batch"]:
    """Cross-entropy of the true cell plus ``weight * sin²(d / 2)`` of that cell's hypothesis (Granberry et al.).

    As printed the paper's sum pushes every hypothesis to the truth; only the true cell's is meant.
    """
    cells = true_cells(grid, targets, group=group)
    rows = torch.arange(len(cells), device=cells.device)
    chosen = found.rotations[rows, cells]
    variants = targets[:, None] if group is None else targets[:, None] @ group.to(targets)
    trace = torch.einsum("bij,beij->be", chosen, variants).amax(-1)
    half_sine = (3.0 - trace) / 4.0  # sin²(d / 2) = (1 - cos d) / 2, tr = 1 + 2 cos d
    return functional.cross_entropy(found.logits, cells, reduction="none") + weight * half_sine


def mixture_loss(
    found: PoseHypotheses,
    targets: Float[Tensor, "batch 3 3"],
    *,
    group: Float[Tensor, "element 3 3"] | None = None,
) -> Float[Tensor, "batch"]:
    """Negative log likelihood of the targets under the mixture of all hypotheses."""
    return -mixture_log_density(found.logits, found.rotations, found.kappa, targets, group=group)


def shift_loss(
    found: PoseHypotheses, targets_px: Float[Tensor, "batch 2"], rotations: Float[Tensor, "batch 3 3"]
) -> Float[Tensor, "batch"]:
    """Squared error [px²] of the shift, each hypothesis weighted by how much of the truth it explains.

    Raises
    ------
    ValueError
        If the hypotheses have no shifts.
    """
    if found.shifts_px is None:
        raise ValueError("the hypotheses have no shifts; build the head with shift=True")
    with torch.no_grad():
        trace = torch.einsum("brij,bij->br", found.rotations, rotations)
        share = torch.softmax(torch.log_softmax(found.logits, -1) + found.kappa * (trace - 3.0), dim=-1)
    return (share * (found.shifts_px - targets_px[:, None]).square().sum(-1)).sum(-1)
