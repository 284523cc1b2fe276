"""What speaks for and against an answer: numbers by name, and a small calibrated read-out of them.

The numbers come from the mask (a brain is round, of a brain's size, surrounded by darker skull, and looks like one from
every side), from the rotation (a head gives the same answer in every turned view, and its mask is long where the
rotation says that heads are long) and from the template (it fits, fits nowhere else, and agrees with the rotation).
A :class:`CalibratedReadOut` turns them into a probability; its weights are fitted to held-out stacks and inputs without
a head (``experiments/pose/confidence_fit.py``) and lie in the model folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from equivox.errors import ConfigError
from equivox.geometry.rotations import geodesic_angle
from equivox.tasks.pose.locate import Candidate
from equivox.tasks.pose.register import Registration
from equivox.tasks.pose.rotate import WORKING_SIDE, WORKING_VOXEL_MM, Answer

LONG_AXES = (1, 0, 2)
"""Axes of frame A from the brain's longest to its shortest: anterior, right, superior (semi-axes 50, 43, 38 mm)."""
SHELL_VOXELS = (2, 5)
"""The shell around the mask in which skull and scalp are looked for, in voxels of 3 mm: from 6 to 15 mm."""
FEATURES = (
    "score", "agreement", "certainty", "first_look", "log_volume", "roundness", "elongation", "in_field_of_view",
    "shell_level", "shell_contrast", "inside_variation", "spread_deg", "spread_max_deg", "singular_value_1",
    "singular_value_2", "singular_value_3", "axis_misfit_deg", "template_correlation", "template_lead",
    "template_turn_deg", "template_shift_mm", "template_resize",
)  # fmt: skip
"""Names of the numbers, as :func:`gather_evidence` gives them."""


@dataclass(frozen=True, slots=True)
class CalibratedReadOut:
    """A logistic read-out: ``1 / (1 + exp(-(intercept + sum w (x - mean) / scale)))`` over named numbers.

    Parameters
    ----------
    names
        Which of :data:`FEATURES` it looks at.
    means, scales, weights
        One each per name; a standardised number is clipped to +-4, so that no single one decides alone.
    intercept
        Added to the sum.
    least
        Below this probability the answer is not given (object) or called doubtful (pose).
    """

    names: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    least: float

    def __post_init__(self) -> None:
        unknown = sorted(set(self.names) - set(FEATURES))
        if unknown:
            raise ConfigError(f"a confidence read-out names the unknown number {unknown[0]!r}; known: {FEATURES}.")
        if not len(self.names) == len(self.means) == len(self.scales) == len(self.weights):
            raise ConfigError(f"a confidence read-out has {len(self.names)} names but other counts of numbers.")

    def probability(self, evidence: Mapping[str, float]) -> float:
        """Probability in [0, 1] for one answer's numbers."""
        logit = self.intercept
        for name, mean, scale, weight in zip(self.names, self.means, self.scales, self.weights, strict=True):
            logit += weight * max(-4.0, min(4.0, (evidence[name] - mean) / scale))
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, logit))))

    @classmethod
    def from_settings(cls, stored: Mapping[str, Any]) -> CalibratedReadOut:
        """Read it from a model folder's settings (lists for tuples)."""
        known = {field.name for field in fields(cls)}
        if set(stored) != known:
            raise ConfigError(f"a confidence read-out holds {sorted(stored)}; expected {sorted(known)}.")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            field.name: list(value) if isinstance(value := getattr(self, field.name), tuple) else value
            for field in fields(self)
        }


def gather_evidence(
    candidate: Candidate,
    cube: Float[Tensor, "1 x y z"],
    valid: Float[Tensor, "1 x y z"],
    answer: Answer,
    registration: Registration | None = None,
    *,
    in_field_of_view: float,
) -> dict[str, float]:
    """Every number of :data:`FEATURES` for one located head and its rotation.

    Parameters
    ----------
    candidate
        Where the head was found, with its mask.
    cube, valid
        Intensities about its centre and where they are known, from :func:`equivox.tasks.pose.rotate.head_cube`.
    answer
        The networks' rotation.
    registration
        The template's pose; without one, the ``template_`` numbers are 0.
    in_field_of_view
        Share of the head's ball that was imaged.
    """
    first, second, third = answer.singular_values
    return {
        "score": candidate.score,
        "agreement": candidate.agreement,
        "certainty": candidate.certainty,
        "first_look": candidate.first_look,
        "log_volume": math.log(max(candidate.mask_volume_ml, 1.0)),
        "roundness": candidate.roundness,
        "elongation": candidate.elongation,
        "in_field_of_view": in_field_of_view,
        **_surroundings(candidate, cube[0], valid[0]),
        "spread_deg": answer.spread_deg,
        "spread_max_deg": answer.spread_max_deg,
        "singular_value_1": first,
        "singular_value_2": second,
        "singular_value_3": third,
        "axis_misfit_deg": axis_misfit_deg(
            candidate, answer.rotation if registration is None else registration.rotation
        ),
        **_agreement(answer, registration),
    }


def _agreement(answer: Answer, registration: Registration | None) -> dict[str, float]:
    """What the template says of the pose, and how far it moved from where the networks saw the head."""
    names = [name for name in FEATURES if name.startswith("template_")]
    if registration is None:
        return dict.fromkeys(names, 0.0)
    turn = math.degrees(float(geodesic_angle(answer.rotation.double().cpu(), registration.rotation)))
    shift = float(registration.shift_mm.norm())
    values = (registration.correlation, registration.lead, turn, shift, abs(registration.log_size))
    return dict(zip(names, values, strict=True))


def axis_misfit_deg(candidate: Candidate, world_from_head: Float[Tensor, "3 3"]) -> float:
    """Angle between the mask's principal axes and the axes along which a brain posed so is long, signs left open."""
    mask = candidate.mask
    points = mask.world_from_voxel((mask.data[0] > 0.5).nonzero().double())
    _, vectors = torch.linalg.eigh((points - points.mean(0)).mT @ (points - points.mean(0)))
    principal = vectors.flip(1)  # longest first
    frame = torch.zeros(3, 3, dtype=torch.float64)
    for order, axis in enumerate(LONG_AXES):
        frame[:, axis] = principal[:, order]
    if float(torch.linalg.det(frame)) < 0:
        frame = -frame
    signs = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    angles = geodesic_angle(world_from_head.double().expand(4, 3, 3), frame * signs[:, None, :])
    return math.degrees(float(angles.min()))


def _surroundings(candidate: Candidate, cube: Tensor, valid: Tensor) -> dict[str, float]:
    """Level of the shell around the mask against its inside, and how much each varies; 1, 0, 0 where not to be seen."""
    affine = torch.diag(torch.tensor([WORKING_VOXEL_MM] * 3 + [1.0], dtype=torch.float64))
    affine[:3, 3] = candidate.center_mm.double() - WORKING_VOXEL_MM * (WORKING_SIDE - 1) / 2
    mask = candidate.mask.resample(affine, cube.shape).data[0] > 0.5
    near, far = (torch.from_numpy(ndimage.binary_dilation(mask.numpy(), iterations=steps)) for steps in SHELL_VOXELS)
    known = valid > 0.5
    inside, shell = cube[mask & known], cube[far & ~near & known]
    if len(inside) < 50 or len(shell) < 50 or float(inside.median()) <= 0:
        return {"shell_level": 1.0, "shell_contrast": 0.0, "inside_variation": 0.0}
    level = float(inside.median())
    quarter, rest = _quantiles(shell, (0.25, 0.75))
    return {
        "shell_level": min(float(shell.median()) / level, 5.0),
        "shell_contrast": min((rest - quarter) / level, 5.0),
        "inside_variation": min(float(inside.std()) / level, 5.0),
    }


def _quantiles(values: Tensor, shares: Sequence[float]) -> list[float]:
    ordered = values.sort().values
    return [float(ordered[round(share * (len(ordered) - 1))]) for share in shares]
