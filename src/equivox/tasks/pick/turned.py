"""How picks change when a micrograph is turned: the metric by angle, exact turns first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as functional
from torch import Tensor

from equivox.metrics.picking import pooled
from equivox.tasks.pick.data import LabelledMicrograph
from equivox.tasks.pick.judge import judged
from equivox.tasks.pick.picker import PickModel
from equivox.tasks.pick.scoring import find_candidates

ANGLES_DEG = (0.0, 90.0, 15.0, 30.0, 45.0)
LARGEST_SIDE_PX = 384
"""The middle part of a micrograph is enough."""


@dataclass(frozen=True, slots=True)
class TurnedArea:
    """Average precision of one way to turn.

    Parameters
    ----------
    name
        In words.
    angle_deg
        In the plane, x towards y.
    mirrored
        Whether x was mirrored first.
    average_precision
        On the inner disc, which stays in the picture at every angle.
    """

    name: str
    angle_deg: float
    mirrored: bool
    average_precision: float


def turned_areas(
    model: PickModel,
    micrographs: Sequence[LabelledMicrograph],
    *,
    tolerance_px: float,
    margin_px: float,
    device: str = "cpu",
) -> tuple[TurnedArea, ...]:
    """Average precision on the middle of micrographs, as they lie, mirrored, and turned by angles."""
    results = []
    for angle, mirrored in [(ANGLES_DEG[0], False), (0.0, True), *((angle, False) for angle in ANGLES_DEG[1:])]:
        parts = []
        for one in micrographs:
            image, labels, radius = _turned(one, angle, mirrored)
            found = find_candidates(model.network, image, distance_px=model.input.radius_px, device=device)
            center = torch.tensor([(side - 1) / 2 for side in image.shape])
            inner = radius - max(margin_px, 0.0)
            near = (labels - center).norm(dim=1) <= inner
            # a pick near the rim may belong to a label beyond it: only picks well inside are counted
            inside = (found.yx_px - center).norm(dim=1) <= inner - tolerance_px
            part = judged(found.select(inside), labels, model.input.radius_px, tolerance_px=tolerance_px)
            parts.append(type(part)(part.score, part.right, int(near.sum())))
        resampled = "" if angle % 90.0 == 0.0 else ", resampled"
        name = "as it lies" if angle == 0.0 else f"turned by {angle:g}°{resampled}"
        results.append(TurnedArea("mirrored" if mirrored else name, angle, mirrored, pooled(parts).area))
    return tuple(results)


def _turned(one: LabelledMicrograph, angle_deg: float, mirrored: bool) -> tuple[Tensor, Tensor, float]:
    """Middle of the micrograph turned about its centre, labels in it, and the radius that every angle keeps."""
    side = min(*one.image.shape, LARGEST_SIDE_PX)
    side -= 1 - side % 2  # odd, so that strided outputs meet a turned picture in the same places
    top, left = ((size - side) // 2 for size in one.image.shape)
    center = (side - 1) / 2
    offsets = torch.arange(side, dtype=torch.float64) - center
    cosine, sine = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    turn = torch.tensor([[cosine, sine], [-sine, cosine]], dtype=torch.float64)  # (y, x) -> turned (y, x)
    if mirrored:
        turn = turn @ torch.diag(torch.tensor([1.0, -1.0], dtype=torch.float64))
    plane = torch.stack(torch.meshgrid(offsets, offsets, indexing="ij"), dim=2)
    source = plane @ turn  # the inverse turn of every place
    part = one.image[top : top + side, left : left + side]
    where = (source.flip(2) / max(center, 1.0)).float()
    exact = angle_deg % 90.0 == 0.0
    image = functional.grid_sample(
        part[None, None], where[None], mode="nearest" if exact else "bicubic", padding_mode="zeros", align_corners=True
    )[0, 0]
    moved = (one.labels_px.double() - torch.tensor([top + center, left + center])) @ turn.T + center
    inside = ((moved >= 0) & (moved <= side - 1)).all(dim=1)
    return image, moved[inside].float(), center - 1.0
