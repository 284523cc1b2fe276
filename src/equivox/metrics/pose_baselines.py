"""What a table of pose errors is to be compared with: no knowledge, the mean pose, the shape of the mask."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from equivox.errors import InputError
from equivox.geometry.rotations import chordal_mean, geodesic_angle
from equivox.geometry.space import Volume

MEASURED_AXES = (1, 0, 2)
"""Head axes from the longest principal axis of a brain mask to the shortest: y (50 mm), x (43 mm), z (34 mm)."""


@dataclass(frozen=True, slots=True)
class BaselineNumbers:
    """Rotation errors of a method that one should beat, over stacks."""

    stacks: int | None
    """How many; None for an exact distribution."""
    mean_deg: float
    median_deg: float
    p95_deg: float
    share_below_10_deg: float
    share_below_20_deg: float
    share_below_30_deg: float
    share_flipped: float

    def as_dict(self) -> dict[str, float | int | None]:
        """Rounded to 4 decimals."""
        return {key: value if value is None else round(value, 4) for key, value in asdict(self).items()}


def baseline_numbers(rotation_deg: Float[Tensor, "count"]) -> BaselineNumbers:
    """Summary of errors [degrees], none of them NaN, at least one."""
    angle = rotation_deg.double()
    below_10, below_20, below_30 = (float((angle < limit).double().mean()) for limit in (10.0, 20.0, 30.0))
    return BaselineNumbers(
        stacks=angle.numel(),
        mean_deg=float(angle.mean()),
        median_deg=float(angle.quantile(0.5)),
        p95_deg=float(angle.quantile(0.95)),
        share_below_10_deg=below_10,
        share_below_20_deg=below_20,
        share_below_30_deg=below_30,
        share_flipped=float((angle > 90.0).double().mean()),
    )


def uniform_rotation_share_below(angle_deg: float) -> float:
    """Probability that a rotation uniform on SO(3) is within an angle of any fixed one: ``(w - sin w) / pi``."""
    angle = math.radians(min(max(angle_deg, 0.0), 180.0))
    return (angle - math.sin(angle)) / math.pi


def uniform_rotation_numbers() -> BaselineNumbers:
    """Errors of a predictor that draws uniformly from SO(3), exact: mean 126.5, median 132.3 degrees."""
    return BaselineNumbers(
        stacks=None,
        mean_deg=90.0 + math.degrees(2.0 / math.pi),
        median_deg=_uniform_quantile(0.5),
        p95_deg=_uniform_quantile(0.95),
        share_below_10_deg=uniform_rotation_share_below(10.0),
        share_below_20_deg=uniform_rotation_share_below(20.0),
        share_below_30_deg=uniform_rotation_share_below(30.0),
        share_flipped=1.0 - uniform_rotation_share_below(90.0),
    )


def _uniform_quantile(share: float) -> float:
    low, high = 0.0, 180.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if uniform_rotation_share_below(middle) < share else (low, middle)
    return (low + high) / 2


def mean_rotation_by_fold(
    true_rotation: Float[Tensor, "count 3 3"], folds: Sequence[Hashable]
) -> Float[Tensor, "count 3 3"]:
    """For every stack the chordal mean of the true rotations of all *other* folds: a predictor that never looks.

    Raises
    ------
    InputError
        If there is only one fold.
    """
    predicted = torch.empty_like(true_rotation, dtype=torch.float64)
    for fold in dict.fromkeys(folds):
        held_out = torch.tensor([f == fold for f in folds])
        if bool(held_out.all()):
            raise InputError(f"all stacks are in fold {fold}; the mean rotation of the other folds needs two.")
        predicted[held_out] = chordal_mean(true_rotation[~held_out].double())
    return predicted


def principal_axes(mask: Volume) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"]]:
    """Principal axes of a mask in the world, as columns from longest to shortest, and its centroid in mm.

    Raises
    ------
    InputError
        If the mask holds fewer than four voxels.
    """
    points = mask.world_from_voxel((mask.data[0] > 0).nonzero().double())
    if points.shape[0] < 4:
        raise InputError(f"mask of {mask.name} holds {points.shape[0]} voxels; principal axes need at least 4.")
    centroid = points.mean(0)
    _, vectors = torch.linalg.eigh((points - centroid).mT @ (points - centroid))
    return vectors.flip(-1), centroid


def principal_axes_oracle(mask: Volume, true_rotation: Float[Tensor, "3 3"]) -> Float[Tensor, "3 3"]:
    """Head rotation from the mask's principal axes, with the best of the 4 proper sign choices (an oracle's).

    The longest axis is taken for the head's y (front-back), the middle one for x, the shortest for z.
    """
    axes, _ = principal_axes(mask)
    named = torch.empty(3, 3, dtype=torch.float64)
    named[:, list(MEASURED_AXES)] = axes
    signs = torch.tensor(list(itertools.product((1.0, -1.0), repeat=3)), dtype=torch.float64)
    choices = named * signs[:, None, :]
    choices = choices[torch.linalg.det(choices) > 0]
    distance = geodesic_angle(choices, true_rotation.double().expand_as(choices))
    return choices[int(distance.argmin())]
