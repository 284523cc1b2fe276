"""How far predicted poses of a head are from true ones: errors, flips, constant offset, summary.

All rotations are ``world_from_head`` (columns: fetal right, anterior, superior in the world), all positions mm in the
world. The errors of a stack come from ``E = R_true^T R_predicted``, in the head's own frame: the angle of E, and the
parts of its rotation vector about the head's x (pitch), y (roll) and z (yaw) axes. A stack without an answer is a row
of NaN: it counts as a miss in every share and is left out of means and quantiles.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equivox.errors import InputError
from equivox.geometry.rotations import (
    rotation_about,
    rotation_angle,
    rotation_from_vector,
    rotation_vector,
)
from equivox.metrics.grouped import (
    Measured,
    Statistic,
    draw_groups,
    group_means,
    measure,
    weighted_mean,
    weighted_median,
    weighted_quantile,
)

FLIP_DEG = 90.0
"""A rotation error above this is a flip."""
SHARES_DEG = (10.0, 20.0, 30.0)
CENTER_SHARE_MM = 10.0
SYMMETRIES = ("x", "y", "z")
"""Half turns that a head can be confused by, named by their axis in the head's frame."""
HALF_TURNS = {
    "x": "about the left-right axis (front and back, up and down swapped)",
    "y": "about the front-back axis (left and right, up and down swapped)",
    "z": "about the up-down axis (left and right, front and back swapped)",
}


@dataclass(frozen=True, slots=True)
class PoseErrors:
    """Errors per stack, degrees and mm, float64; NaN where there was no answer."""

    rotation_deg: Float[Tensor, "count"]
    pitch_deg: Float[Tensor, "count"]
    roll_deg: Float[Tensor, "count"]
    yaw_deg: Float[Tensor, "count"]
    center_mm: Float[Tensor, "count"]
    center_in_head_mm: Float[Tensor, "count 3"]
    confused_axis: tuple[str, ...]
    """For a flip the axis of the half turn that is nearest to the error, else an empty text."""

    def __len__(self) -> int:
        return self.rotation_deg.numel()

    @property
    def flipped(self) -> Bool[Tensor, "count"]:
        """Which rotation errors exceed 90 degrees."""
        return self.rotation_deg > FLIP_DEG

    def select(self, keep: Bool[Tensor, "count"]) -> PoseErrors:
        """The errors of some stacks."""
        parts = {f.name: getattr(self, f.name)[keep] for f in fields(self) if f.name != "confused_axis"}
        axes = tuple(axis for axis, kept in zip(self.confused_axis, keep.tolist(), strict=True) if kept)
        return PoseErrors(**parts, confused_axis=axes)


def pose_errors(
    predicted_rotation: Float[Tensor, "count 3 3"],
    true_rotation: Float[Tensor, "count 3 3"],
    predicted_center_mm: Float[Tensor, "count 3"],
    true_center_mm: Float[Tensor, "count 3"],
) -> PoseErrors:
    """Errors of every stack; a predicted rotation or centre of NaN is "no answer".

    Notes
    -----
    Signed rotation vectors are made absolute per axis. ``center_in_head_mm`` is ``R_true^T (t_predicted - t_true)``:
    positive towards the head's own right, front and top.
    """
    predicted, true = predicted_rotation.double(), true_rotation.double()
    answered = torch.isfinite(predicted).all(-1).all(-1)
    identity = torch.eye(3, dtype=torch.float64)
    error = torch.where(answered[:, None, None], true.mT @ predicted, identity)
    nothing = torch.where(answered, 0.0, torch.nan).double()
    angle = torch.rad2deg(rotation_angle(error)) + nothing
    parts = torch.rad2deg(rotation_vector(error)).abs() + nothing[:, None]
    offset = predicted_center_mm.double() - true_center_mm.double()
    return PoseErrors(
        rotation_deg=angle,
        pitch_deg=parts[:, 0],
        roll_deg=parts[:, 1],
        yaw_deg=parts[:, 2],
        center_mm=offset.norm(dim=-1),
        center_in_head_mm=(true.mT @ offset[..., None])[..., 0],
        confused_axis=tuple(_confused_axis(e, float(a)) for e, a in zip(error, angle, strict=True)),
    )


def _confused_axis(error: Float[Tensor, "3 3"], angle_deg: float) -> str:
    if not angle_deg > FLIP_DEG:  # also NaN
        return ""
    turns = torch.stack([rotation_about(axis, 180.0) for axis in SYMMETRIES])
    return SYMMETRIES[int(rotation_angle(turns.mT @ error).argmin())]


def geodesic_median(
    rotations: Float[Tensor, "count 3 3"], *, steps: int = 20, start: Float[Tensor, "3 3"] | None = None
) -> Float[Tensor, "3 3"]:
    """Rotation with the least sum of geodesic distances to the given ones (Weiszfeld in the tangent space).

    Parameters
    ----------
    rotations
        At least one.
    steps
        Iterations; the protocol takes 20.
    start
        Where to begin; identity unless given (the protocol's choice: small offsets are sought, flips are outliers).
    """
    if rotations.shape[0] == 0:
        raise InputError("the median of no rotations was asked for; give at least one.")
    center = torch.eye(3, dtype=torch.float64) if start is None else start.double()
    for _ in range(steps):
        tangent = rotation_vector(center.mT @ rotations.double())
        weight = 1.0 / tangent.norm(dim=-1).clamp_min(1e-9)
        center = center @ rotation_from_vector((weight[:, None] * tangent).sum(0) / weight.sum())
    return center


def fit_offset(
    predicted_rotation: Float[Tensor, "count 3 3"], true_rotation: Float[Tensor, "count 3 3"]
) -> Float[Tensor, "3 3"]:
    """Constant rotation C such that ``R_predicted C`` is nearest to ``R_true`` in the median (canonical frames differ).

    Rows without an answer (NaN) are left out.
    """
    answered = torch.isfinite(predicted_rotation).all(-1).all(-1)
    difference = predicted_rotation[answered].double().mT @ true_rotation[answered].double()
    return geodesic_median(difference)


def calibrate_by_fold(
    predicted_rotation: Float[Tensor, "count 3 3"],
    true_rotation: Float[Tensor, "count 3 3"],
    folds: Sequence[Hashable],
    fit_on: Bool[Tensor, "count"] | None = None,
) -> tuple[Float[Tensor, "count 3 3"], dict[str, float]]:
    """Multiply every prediction by the offset fitted on the *other* folds, never on its own.

    Returns the calibrated rotations and, per fold, the size of its offset in degrees. ``fit_on`` restricts the stacks
    that are fitted (not those that are calibrated).

    Raises
    ------
    InputError
        If some fold has no other fold to be fitted on.
    """
    calibrated = predicted_rotation.double().clone()
    offsets: dict[str, float] = {}
    usable = torch.isfinite(calibrated).all(-1).all(-1)
    if fit_on is not None:
        usable = usable & fit_on
    for fold in dict.fromkeys(folds):
        held_out = torch.tensor([f == fold for f in folds])
        fit = usable & ~held_out
        if not bool(fit.any()):
            raise InputError(f"no answered stack outside fold {fold} to fit its offset on; give stacks of two folds.")
        offset = fit_offset(predicted_rotation[fit], true_rotation[fit])
        calibrated[held_out] = predicted_rotation[held_out].double() @ offset
        offsets[str(fold)] = float(torch.rad2deg(rotation_angle(offset)))
    return calibrated, offsets


@dataclass(frozen=True, slots=True)
class PoseSummary:
    """The numbers of one table: per stack, and per subject (first the mean over a subject's stacks)."""

    stacks: int
    subjects: int
    groups: int
    without_answer: int
    flips: int
    flips_by_axis: dict[str, int]
    by_subject: dict[str, Measured]
    by_stack: dict[str, Measured]

    def as_dict(self) -> dict[str, object]:
        """Plain JSON values."""
        return {
            "stacks": self.stacks,
            "subjects": self.subjects,
            "groups": self.groups,
            "without_answer": self.without_answer,
            "flips": self.flips,
            "flips_by_axis": dict(self.flips_by_axis),
            "by_subject": {name: number.as_dict() for name, number in self.by_subject.items()},
            "by_stack": {name: number.as_dict() for name, number in self.by_stack.items()},
        }


def summarize_errors(
    errors: PoseErrors,
    subjects: Sequence[Hashable],
    groups: Sequence[Hashable],
    *,
    generator: torch.Generator,
    resamples: int = 10_000,
) -> PoseSummary:
    """Every number of the protocol with its 95 % interval.

    Parameters
    ----------
    errors
        One row per stack.
    subjects
        Whose stack it is: averages go over a subject's stacks first.
    groups
        What the bootstrap draws; a group holds whole subjects. Pass ``subjects`` again where nothing coarser is known.
    generator
        Source of the bootstrap's draws.
    resamples
        How many.
    """
    if not len(errors) == len(subjects) == len(groups):
        raise ValueError(f"{len(errors)} errors, {len(subjects)} subjects, {len(groups)} groups: expected equal counts")
    per_stack = {name: (values, statistic) for name, values, statistic in _columns(errors)}
    drawn = draw_groups(groups, resamples, generator=generator)

    first = {subject: index for index, subject in reversed(list(enumerate(subjects)))}
    subject_rows = torch.tensor([first[s] for s in dict.fromkeys(subjects)], dtype=torch.int64)
    by_stack = {name: measure(values, statistic, drawn) for name, (values, statistic) in per_stack.items()}
    by_subject = {
        name: measure(group_means(values, subjects), statistic, drawn.columns(subject_rows))
        for name, (values, statistic) in per_stack.items()
    }
    return PoseSummary(
        stacks=len(errors),
        subjects=len(set(subjects)),
        groups=len(set(groups)),
        without_answer=int(errors.rotation_deg.isnan().sum()),
        flips=int(errors.flipped.sum()),
        flips_by_axis={axis: errors.confused_axis.count(axis) for axis in SYMMETRIES},
        by_subject=by_subject,
        by_stack=by_stack,
    )


def _columns(errors: PoseErrors) -> list[tuple[str, Float[Tensor, "count"], Statistic]]:
    """Name, values per stack, statistic over them. Shares are means of 0 and 1, a missing answer is a 0 (a miss)."""
    angle = errors.rotation_deg
    columns: list[tuple[str, Float[Tensor, "count"], Statistic]] = [
        ("rotation_mean_deg", angle, weighted_mean),
        ("rotation_median_deg", angle, weighted_median),
        ("rotation_p95_deg", angle, _percentile_95),
    ]
    columns += [(f"share_below_{limit:.0f}_deg", (angle < limit).double(), weighted_mean) for limit in SHARES_DEG]
    columns += [
        ("share_flipped", errors.flipped.double(), weighted_mean),
        ("share_without_answer", angle.isnan().double(), weighted_mean),
        ("pitch_median_deg", errors.pitch_deg, weighted_median),
        ("roll_median_deg", errors.roll_deg, weighted_median),
        ("yaw_median_deg", errors.yaw_deg, weighted_median),
        ("center_median_mm", errors.center_mm, weighted_median),
        ("center_p95_mm", errors.center_mm, _percentile_95),
        (
            f"share_center_within_{CENTER_SHARE_MM:.0f}_mm",
            (errors.center_mm <= CENTER_SHARE_MM).double(),
            weighted_mean,
        ),
    ]
    return columns


def _percentile_95(values: Float[Tensor, "count"], weights: Float[Tensor, "*draws count"]) -> Float[Tensor, "*draws"]:
    return weighted_quantile(values, weights, 0.95)
