"""From the answers of an orientation network to poses: the search from coarse to fine, and how sure the result is.

Every step is equivariant under the symmetries of the pixel grid: scores decide which poses are looked at, the fine grid
is closed under these symmetries, and answers are merged by angles alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.geometry.point_groups import symmetric_angle
from equivox.nets.orientation import OrientationNet
from equivox.nn.matrix_fisher import mass_within, mixture_entropy, mixture_mode, refined_mean
from equivox.nn.pose_heads import PoseHypotheses

APART_DEG = 15.0
"""Two answers nearer than this are the same answer."""
CONFIDENCE_DEG = 10.0
"""Confidence is the probability that the truth lies within this of the answer."""
SECOND_LOOK = 4
"""Hypotheses that the last look follows, without a grid."""
NEVER = -1e4


@dataclass(frozen=True, slots=True)
class PoseAnswers:
    """Answers per picture, best first.

    Parameters
    ----------
    rotations
        Poses.
    confidence
        Probability that the truth lies within 10 degrees of each.
    log_density
        Of the mixture at each, against the uniform distribution.
    entropy
        Of the whole mixture [nat]: 0 knows nothing.
    shifts_px
        Where the particle's centre lies from the picture's, (x, y); None where not estimated.
    """

    rotations: Float[Tensor, "batch answer 3 3"]
    confidence: Float[Tensor, "batch answer"]
    log_density: Float[Tensor, "batch answer"]
    entropy: Float[Tensor, "batch"]
    shifts_px: Float[Tensor, "batch answer 2"] | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """What makes confidences honest on validation pictures.

    Parameters
    ----------
    temperature
        Divides the scores.
    slope, offset
        Of the confidence's log odds.
    """

    temperature: float = 1.0
    slope: float = 1.0
    offset: float = 0.0

    def honest(self, confidence: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Confidences with corrected log odds; 0 stays 0."""
        odds = torch.logit(confidence.clamp(1e-6, 1.0 - 1e-6))
        return torch.where(confidence > 0, torch.sigmoid(self.slope * odds + self.offset), torch.zeros_like(confidence))


@torch.inference_mode()
def search_poses(
    network: OrientationNet,
    pictures: Float[Tensor, "batch channel y x"],
    *,
    answers: int = 1,
    group: Float[Tensor, "element 3 3"] | None = None,
    calibration: Calibration | None = None,
) -> PoseAnswers:
    """Look coarsely, then near the best on the fine grid, then at the best themselves; return the best answers.

    Parameters
    ----------
    network
        In evaluation mode.
    pictures
        As the network takes them.
    answers
        How many different poses to return for each picture.
    group
        Symmetry of the particle: answers that it makes equal are one.
    calibration
        Fitted after training; None leaves scores and confidences as they are.
    """
    chosen = calibration or Calibration()
    found = hypotheses_of(network, pictures)
    tempered = PoseHypotheses(found.logits / chosen.temperature, found.rotations, found.kappa, found.shifts_px)
    answered = best_answers(tempered, answers=answers, group=group)
    return replace(answered, confidence=chosen.honest(answered.confidence))


def hypotheses_of(network: OrientationNet, pictures: Float[Tensor, "batch channel y x"]) -> PoseHypotheses:
    """The mixture after the last look: the best four answers of the fine grid looked at once more, and the others."""
    coarse = network.look_coarse(pictures)
    if network.fine is None:
        return coarse
    count = min(network.candidates, coarse.logits.shape[1])
    best = coarse.select(coarse.logits.topk(count, dim=1).indices)
    cells, repeated = fine_cells(network, best.rotations)
    fine = network.look_fine(pictures, cells)
    scores = fine.logits.masked_fill(repeated, NEVER)
    kept = PoseHypotheses(scores, fine.rotations, fine.kappa, fine.shifts_px)
    order = scores.argsort(dim=1, descending=True, stable=True)
    first, others = kept.select(order[:, :SECOND_LOOK]), kept.select(order[:, SECOND_LOOK:])
    last = network.look_fine(pictures, first.rotations)
    moved = PoseHypotheses(
        last.logits.masked_fill(first.logits <= NEVER, NEVER), last.rotations, last.kappa, last.shifts_px
    )
    return _together(moved, others)


def fine_cells(
    network: OrientationNet, rotations: Float[Tensor, "batch candidate 3 3"]
) -> tuple[Float[Tensor, "batch candidate 3 3"], Tensor]:
    """Members of the fine grid nearest to some poses, and which of them an earlier candidate has already."""
    grid = network.fine_grid()
    places = grid.nearest(rotations.detach().flatten(0, 1).double().cpu()).unflatten(0, rotations.shape[:2])
    same = places[:, :, None] == places[:, None, :]
    repeated = same.tril(-1).any(-1).to(rotations.device)
    return grid.matrices[places].to(rotations), repeated


def best_answers(
    found: PoseHypotheses, *, answers: int = 1, group: Float[Tensor, "element 3 3"] | None = None
) -> PoseAnswers:
    """The modes of a mixture, best first, each refined to the mean of what surrounds it.

    Answers within 15 degrees of a better one are left out; where none is left, the last repeat with confidence 0.
    """
    logits, modes, kappa = found.logits, found.rotations, found.kappa
    level = mixture_mode(logits, modes, kappa, group=group)
    rows = torch.arange(len(logits), device=logits.device)
    members = torch.eye(3).to(modes)[None] if group is None else group.to(modes)
    poses, confidence, density, shifts = [], [], [], []
    left = level
    for _ in range(answers):
        best = left.argmax(1)
        exhausted = left[rows, best].isneginf()
        center = modes[rows, best]
        pose = refined_mean(logits, modes, kappa, center, within_deg=APART_DEG, group=group)
        sure = mass_within(logits, modes, kappa, pose, CONFIDENCE_DEG, group=group)
        poses.append(pose)
        confidence.append(sure.masked_fill(exhausted, 0.0))
        density.append(level[rows, best])
        if found.shifts_px is not None:
            shifts.append(found.shifts_px[rows, best])
        near = symmetric_angle(center[:, None].expand_as(modes), modes, members) < math.radians(APART_DEG)
        left = left.masked_fill(near, -math.inf)
        left = torch.where(left.isneginf().all(1, keepdim=True), torch.full_like(left, -math.inf), left)
    return PoseAnswers(
        rotations=torch.stack(poses, dim=1),
        confidence=torch.stack(confidence, dim=1),
        log_density=torch.stack(density, dim=1),
        entropy=mixture_entropy(logits, modes, kappa, group=group),
        shifts_px=torch.stack(shifts, dim=1) if shifts else None,
    )


def _together(first: PoseHypotheses, second: PoseHypotheses) -> PoseHypotheses:
    """Hypotheses of both."""
    shifts = None
    if first.shifts_px is not None and second.shifts_px is not None:
        shifts = torch.cat([first.shifts_px, second.shifts_px], dim=1)
    return PoseHypotheses(
        torch.cat([first.logits, second.logits], dim=1),
        torch.cat([first.rotations, second.rotations], dim=1),
        torch.cat([first.kappa, second.kappa], dim=1),
        shifts,
    )
